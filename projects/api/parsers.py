"""Request parsers: JSON, or a form with an archive of the files and everything else as JSON in `options`.

The size of the body is limited before, see chef.asgi. A form gives the same document as JSON would, with the upload as
`archive` in place of `files`, so that serializers know one structure.
"""

import re
from collections.abc import Mapping
from contextlib import ExitStack
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import orjson
from django.conf import settings
from django.core.exceptions import TooManyFilesSent
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler
from rest_framework.exceptions import ErrorDetail, ParseError, ValidationError
from rest_framework.parsers import BaseParser, MultiPartParser

FORM_FIELDS = {"archive", "options"}
# Limits the memory that parsed values take beyond the document's bytes. No project needs this many.
MAX_TOKENS = 200_000
# A string, or what precedes a value. Possessive, and matching unterminated strings too, so that any input costs one
# pass.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\(?:.|\Z)[^"\\]*+)*+(?:"|\Z)|[,\[{]', re.DOTALL)


class JSONParser(BaseParser):
    """A JSON document according to RFC 8259: no NaN and no invalid UTF-8."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The parsed document; an empty body is an empty object. Raises ParseError."""
        body = stream.read()
        return _read(body) if body else {}


class ArchiveParser(MultiPartParser):
    """`multipart/form-data` with the file `archive`, and `options` with the other fields as a JSON object."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The options plus `archive`. Raises ParseError or ValidationError."""
        request = (parser_context or {})["request"]
        request.upload_handlers = [FileCountLimit(), UnnamedFiles()]
        form: Any = super().parse(stream, media_type, parser_context)
        with ExitStack() as refused:
            for _, files in form.files.lists():
                for file in files:
                    refused.callback(file.close)
            if faults := _form_faults(form.data, form.files):
                raise ValidationError(faults)
            options = _options(form.data.get("options"))
            refused.pop_all()  # the reader of the archive closes it
        return {**options, "archive": form.files["archive"]}


class FileCountLimit(FileUploadHandler):
    """An upload handler that refuses forms with more than a hundred files."""

    remaining = 100

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        self.remaining -= 1
        if self.remaining < 0:
            raise TooManyFilesSent("The form has too many files: pack them into one archive.")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None


class UnnamedFiles(FileUploadHandler):
    """Keeps large files on disk, like Django's own handler, but unnamed: a killed process leaves nothing behind."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        max_size, folder = settings.FILE_UPLOAD_MAX_MEMORY_SIZE, settings.FILE_UPLOAD_TEMP_DIR
        self.file = SpooledTemporaryFile(max_size=max_size, dir=folder)  # noqa: SIM115 - file_complete passes it on

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self.file.write(raw_data)

    def file_complete(self, file_size: int) -> "UploadedFile[Any]":
        self.file.seek(0)
        return UploadedFile(self.file, self.file_name, self.content_type, file_size, self.charset)


def _form_faults(data: Any, files: Any) -> dict[str, list[ErrorDetail]]:
    faults = {}
    for name in sorted((set(data) | set(files)) - FORM_FIELDS):
        detail = "A form takes the file `archive` and the field `options`: put all other fields into `options` as JSON."
        faults[name[:60]] = [ErrorDetail(detail, code="unknown_field")]
    if "archive" not in files:
        detail = "Send a tar, tar.gz or zip as the file `archive`, or the files themselves as JSON."
        faults["archive"] = [ErrorDetail(detail, code="required")]
    for name in (name for name in FORM_FIELDS if len(data.getlist(name)) + len(files.getlist(name)) > 1):
        faults[name] = [ErrorDetail("This field occurs more than once: send it once.", code="invalid")]
    if "options" in files:
        faults["options"] = [ErrorDetail("Send the options as a plain field, not as a file.", code="invalid")]
    return faults


def _options(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        options = _read(text.encode())
    except ParseError as fault:
        raise ValidationError({"options": [ErrorDetail(str(fault.detail), code="invalid")]}) from fault
    if not isinstance(options, dict):
        detail = 'The options must be a JSON object, such as {"name": "todo"}.'
        raise ValidationError({"options": [ErrorDetail(detail, code="not_a_dict")]})
    if "archive" in options:
        detail = "Send the archive as a file of the form, not in the options."
        raise ValidationError({"archive": [ErrorDetail(detail, code="shape")]})
    return options


def _read(text: bytes) -> Any:
    for count, _ in enumerate(_TOKEN.finditer(text)):  # not by islice, which would hold the GIL for the whole loop
        if count >= MAX_TOKENS:
            detail = f"The JSON has more than {MAX_TOKENS:,} values: send files as text, not as lists of numbers."
            raise ParseError(detail)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as fault:
        raise ParseError(f"The body is not JSON: {fault}.") from fault
