"""Reads forms with a folder or an archive: keeps the files' paths and applies the ignore rules.

Browsers send each file of a folder with its path, of which Django would keep only the last part.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, BinaryIO, cast

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import SkipFile
from django.http import HttpRequest
from django.http.multipartparser import MultiPartParser

from projects.api.parsers import UnnamedFiles
from projects.files.archives import unpack
from projects.files.ignore_rules import IgnoreRules
from projects.files.limits import InvalidUploadError, limit_faults
from projects.files.paths import Fault, NewFile

FOLDER, ARCHIVE = "folder", "archive"
_ARCHIVE_ENDING = re.compile(r"\.(zip|tar|tgz|tar\.gz)$", re.IGNORECASE)


class FolderHandler(UnnamedFiles):
    """Keeps the files of `folder` with their paths; handles all other files as the API does.

    Must be set as the only upload handler of a request before its form is read.
    """

    def __init__(self, request: HttpRequest | None = None) -> None:
        super().__init__(request)
        self.ignore_rules = IgnoreRules()
        self.files: list[NewFile] = []
        self.sizes: list[tuple[str, int]] = []
        self.archive_name = ""
        self._is_reading = False
        self._path = ""
        self._content = bytearray()
        self._total = 0

    def handle_raw_input(
        self, input_data: Any, META: Any, content_length: int, boundary: Any, encoding: str | None = None
    ) -> Any:
        if self._is_reading:
            return None
        self._is_reading = True
        return _ParserOfPaths(META, input_data, [self], encoding).parse()

    def new_file(self, field_name: str, file_name: str, *args: Any, **kwargs: Any) -> None:
        self._path = file_name if field_name == FOLDER else ""
        if self._path and self.ignore_rules.ignores(self._path):
            raise SkipFile
        self._content.clear()
        if not self._path:
            self.archive_name = file_name.rpartition("/")[2]
        super().new_file(field_name, file_name, *args, **kwargs)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if not self._path:
            super().receive_data_chunk(raw_data, start)
        elif self._has_room(len(raw_data)):
            self._content += raw_data

    def _has_room(self, size: int) -> bool:
        """Whether to keep more: past a limit, files are only counted, and the upload is refused at the end."""
        within = len(self._content) + size <= settings.MAX_FILE_BYTES
        return within and self._total + size <= settings.MAX_PROJECT_BYTES and len(self.sizes) < settings.MAX_FILES

    def file_complete(self, file_size: int) -> "UploadedFile[Any]":
        if self._path:
            self.sizes.append((self._path, file_size))
            self._total += file_size
            if len(self._content) == file_size:
                self.files.append(NewFile(self._path, bytes(self._content)))
        return super().file_complete(file_size)


class _ParserOfPaths(MultiPartParser):
    def sanitize_file_name(self, file_name: str) -> str | None:
        return file_name.replace("\\", "/") if "/" not in file_name else file_name


def sent_folder(handler: FolderHandler) -> tuple[list[NewFile], str]:
    """(files with paths relative to the folder, the folder's name); ([], "") if none was sent.

    Raises InvalidUploadError.
    """
    paths = [path for path, _ in handler.sizes]
    top = paths[0].partition("/")[0] if paths else ""
    if not all(path.startswith(f"{top}/") for path in paths):
        top = ""
    start = len(top) + 1 if top else 0
    faults = limit_faults((path[start:], size) for path, size in handler.sizes)
    if faults:
        raise InvalidUploadError(faults)
    return [replace(file, path=file.path[start:]) for file in handler.files], top


def sent_archive(file: "UploadedFile[Any]", handler: FolderHandler) -> tuple[list[NewFile], str]:
    """(files of an archive, its name without the extension). Raises InvalidUploadError."""
    with file:
        return unpack(cast("BinaryIO", file), handler.ignore_rules), _ARCHIVE_ENDING.sub("", handler.archive_name)


def pasted(paths: Sequence[str], contents: Sequence[str]) -> list[NewFile]:
    """Files from the form's (path, text) rows; empty rows are skipped. Raises InvalidUploadError.

    Browsers send every line ending as CRLF; they become LF again.
    """
    rows = [(path.strip(), text.replace("\r\n", "\n")) for path, text in zip(paths, contents, strict=False)]
    rows = [(path, text) for path, text in rows if path or text.strip()]
    nameless = [Fault("invalid_path", "", "A text has no path: say what the file is called.") for p, _ in rows if not p]
    files = [NewFile(path, text.encode("utf-8", "replace")) for path, text in rows if path]
    if faults := nameless + limit_faults((file.path, len(file.content)) for file in files):
        raise InvalidUploadError(faults)
    return files
