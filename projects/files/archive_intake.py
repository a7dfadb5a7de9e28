"""Collects the members of an archive: the files that are kept, and all errors.

Knows the installation's limits and no archive format. Names arrive decoded with `surrogateescape`, so that
invalid UTF-8 can be recognised and reported.
"""

from django.conf import settings

from projects.files.ignore_rules import IgnoreRules, ignored_name
from projects.files.limits import InvalidUploadError, limit_faults
from projects.files.paths import Fault, NewFile, path_fault


class ArchiveError(Exception):
    """The rest of the archive cannot be read; the text says why and what to do."""


def most_headers() -> int:
    """How many headers an archive may have: for files, folders, and extended headers."""
    return int(8 * settings.MAX_FILES + 1000)


def text_of(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


class Intake:
    """Members are added as they are read; `result` returns the files, or raises with every error at once."""

    def __init__(self, ignore_rules: IgnoreRules | None = None) -> None:
        self._ignore_rules = ignore_rules
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
        """Folders follow from the files: only an unsafe name matters."""
        if self._ignore_rules and ignored_name(f"{name}/"):  # not counted: its content is
            return
        if self._is_utf8(name):
            reason = path_fault(name, max_bytes=settings.MAX_PATH_BYTES, max_depth=settings.MAX_PATH_DEPTH)
            if reason:
                self.refuse("invalid_path", name, reason)

    def wants(self, name: str, size: int) -> bool:
        """Add a plain file. Returns False when its content need not be read, because it will not be kept."""
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
        """Raise InvalidUploadError if there are errors so far."""
        if faults := self._faults + limit_faults(self._sizes):
            self._files.clear()
            raise InvalidUploadError(faults)

    def result(self) -> list[NewFile]:
        self.check()
        return self._files

    def _is_held_back(self, name: str) -> bool:
        return self._ignore_rules is not None and self._ignore_rules.ignores(name)

    def _is_utf8(self, name: str) -> bool:
        if name.isascii() or _shown(name) == name:
            return True
        self.refuse(
            "invalid_path",
            name,
            "The name is not valid UTF-8: rename the file, or create the archive with another program.",
        )
        return False


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_left_out(name: str) -> bool:
    """Files that macOS adds to archives."""
    top, last = name.partition("/")[0], name.rpartition("/")[2]
    return top == "__MACOSX" or last == ".DS_Store" or last.startswith("._")
