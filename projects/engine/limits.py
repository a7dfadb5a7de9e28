"""What the engine may produce: the same limits as an upload has, passed in by the caller."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from projects.engine.errors import EngineError
from projects.files.paths import MAX_DEPTH, MAX_PATH_BYTES, Fault, shortened, upload_faults

MAX_REPORTED = 10  # of error messages, to a model or a person

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Limits:
    """How many files, and how large in bytes; the defaults are the API's."""

    max_files: int = 1_000
    max_file: int = 1024**2
    max_total: int = 20 * 1024**2
    max_path_bytes: int = MAX_PATH_BYTES
    max_depth: int = MAX_DEPTH

    def faults(self, sizes: Iterable[tuple[str, int]]) -> list[Fault]:
        """All that is wrong with files of these paths and sizes in bytes, as for an upload."""
        return upload_faults(
            sizes,
            max_files=self.max_files,
            max_file=self.max_file,
            max_total=self.max_total,
            max_path_bytes=self.max_path_bytes,
            max_depth=self.max_depth,
        )

    def check(self, files: Files) -> None:
        """Raise EngineError `files_refused` unless the files could be uploaded as they are."""
        if faults := self.faults((path, len(content)) for path, content in files.items()):
            raise EngineError("files_refused", sentences(faults))


def sentences(faults: list[Fault]) -> str:
    """The first faults of a list as text."""
    return " ".join(f"{fault.path[:100] or 'files'}: {fault.detail}" for fault in shortened(faults)[:MAX_REPORTED])
