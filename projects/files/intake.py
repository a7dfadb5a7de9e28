"""Where the members of an archive go: what is kept of them, and all that is wrong with them.

Knows the limits of the installation and no archive format. Names come in as text decoded with `surrogateescape`, so
that one that is no UTF-8 can be told apart, and told.
"""

from django.conf import settings

from projects.files.ignore_rules import Sieve, noise_in
from projects.files.limits import InvalidUploadError, limit_faults
from projects.files.paths import Fault, NewFile, path_fault


class Unreadable(Exception):
    """Nothing more can be read from the archive; the text says why and what to do."""


def most_headers() -> int:
    """How many headers an archive may have: of files, of folders, and of those that belong to another."""
    return int(8 * settings.MAX_FILES + 1000)


def text_of(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


class Intake:
    """Members are put in as they are met; `result` gives the files, or raises with every fault at once."""

    def __init__(self, sieve: Sieve | None = None) -> None:
        self._sieve = sieve
        self._files: list[NewFile] = []
        self._sizes: list[tuple[str, int]] = []
        self._faults: list[Fault] = []
        self.total_bytes = 0

    def refuse(self, code: str, name: str, detail: str) -> None:
        self._faults.append(Fault(code, _shown(name), detail))

    def refuse_kind(self, name: str, kind: str) -> None:
        if self._is_held_back(name):
            return
        self.refuse("unsafe_member", name, f"This is {kind}: an archive may hold only plain files and folders.")

    def folder(self, name: str) -> None:
        """Folders are made as the files need them: only a name that points elsewhere is of interest."""
        if self._sieve and noise_in(f"{name}/"):  # not counted: what is in it is
            return
        if self._is_utf8(name):
            reason = path_fault(name, max_bytes=settings.MAX_PATH_BYTES, max_depth=settings.MAX_PATH_DEPTH)
            if reason:
                self.refuse("invalid_path", name, reason)

    def wants(self, name: str, size: int) -> bool:
        """Note a plain file. False: its content need not be read, because it will not be kept."""
        if self._is_held_back(name) or _is_left_out(name) or not self._is_utf8(name):
            return False
        self._sizes.append((name, size))
        self.total_bytes += size
        return (
            size <= settings.MAX_FILE_BYTES
            and self.total_bytes <= settings.MAX_PROJECT_BYTES
            and len(self._sizes) <= settings.MAX_FILES
        )

    def keep(self, name: str, content: bytes, *, executable: bool) -> None:
        self._files.append(NewFile(name, content, executable))

    def check(self) -> None:
        """Raise InvalidUploadError if anything is wrong up to here."""
        if faults := self._faults + limit_faults(self._sizes):
            self._files.clear()
            raise InvalidUploadError(faults)

    def result(self) -> list[NewFile]:
        self.check()
        return self._files

    def _is_held_back(self, name: str) -> bool:
        return self._sieve is not None and self._sieve.holds_back(name)

    def _is_utf8(self, name: str) -> bool:
        if name.isascii() or _shown(name) == name:
            return True
        self.refuse("invalid_path", name, "The name is not UTF-8: rename the file, or pack it with another program.")
        return False


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_left_out(name: str) -> bool:
    """What macOS adds to archives by itself."""
    top, last = name.partition("/")[0], name.rpartition("/")[2]
    return top == "__MACOSX" or last == ".DS_Store" or last.startswith("._")
