"""Whether source files are within the limits of this installation: how many, and how large."""

from collections.abc import Iterable, Sequence

from django.conf import settings

from chef.refusals import Reason, RefusalError
from projects.files.paths import Fault, NewFile, shortened, upload_faults


class InvalidUploadError(RefusalError):
    """The files cannot be accepted. `faults` lists the errors; of very many, the first and the number of others."""

    code, status = "invalid_file", 400

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = shortened(faults)
        super().__init__(
            "; ".join(f"{fault.path or 'files'}: {fault.detail}" for fault in self.faults),
            reasons=[_reason(fault) for fault in self.faults],
        )


def _reason(fault: Fault) -> Reason:
    attr = ("files", fault.path) if fault.path else ("files",)
    return Reason(fault.code, fault.detail, attr, is_of_user=bool(fault.path))


def limit_faults(sizes: Iterable[tuple[str, int]]) -> list[Fault]:
    """All errors in (path, size in bytes) pairs, by the limits of this installation."""
    return upload_faults(
        sizes,
        max_files=settings.MAX_FILES,
        max_file=settings.MAX_FILE_BYTES,
        max_total=settings.MAX_PROJECT_BYTES,
        max_path_bytes=settings.MAX_PATH_BYTES,
        max_depth=settings.MAX_PATH_DEPTH,
    )


def check_files(files: Sequence[NewFile], *, generated: int = 0) -> None:
    """Raise InvalidUploadError unless the files are within the limits; `generated` is how many files Chef will add."""
    faults = limit_faults((file.path, len(file.content)) for file in files)
    if not files and not generated:
        faults.append(Fault("no_files", "", "There is nothing to build: send at least one file."))
    if faults:
        raise InvalidUploadError(faults)
