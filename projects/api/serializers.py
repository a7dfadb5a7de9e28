"""Validation of requests. Names are camelCase in the API and snake_case inside; they are converted here."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.fields import Field

from chef.text.units import parse_bytes
from chef.web.errors import field_errors, refusals_as_invalid
from projects.api.described import Described
from projects.api.typed_fields import Real, Text, Whole
from projects.files.archives import unpack
from projects.files.limits import InvalidUploadError, limit_faults
from projects.files.paths import Fault, NewFile, path_fault, too_many_files

MAX_COMMAND_CHARS = 4000
LEAST_MEMORY = 16 * 1024**2
MAX_DEPENDENCIES = 500
MAX_DEPENDENCY_CHARS = 214
MAX_UNKNOWN_REPORTED = 20
# npm's rule for names, with scopes; PyPI's names are a subset.
_DEPENDENCY_NAME = re.compile(r"(@[a-z0-9~-][a-z0-9._~-]*/)?[A-Za-z0-9~_-][A-Za-z0-9._~-]*")


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def wire_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """The validated data of a CamelSerializer by its camelCase names."""
    return {camel(name): value for name, value in data.items()}


class CamelSerializer(serializers.Serializer[Any]):
    """A serializer whose declared names are camelCase in the API. Keys that are data are never changed.

    Unknown names are refused: an ignored typing error in an option would be hard to find.
    """

    def get_fields(self) -> dict[str, Field[Any, Any, Any, Any]]:
        renamed: dict[str, Field[Any, Any, Any, Any]] = {}
        for name, field in super().get_fields().items():
            if camel(name) != name:
                field.source = field.source or name
                if isinstance(field, serializers.SerializerMethodField):
                    field.method_name = field.method_name or f"get_{name}"
            renamed[camel(name)] = field
        return renamed

    def to_internal_value(self, data: Any) -> Any:
        faults: dict[str, Any] = {}
        if isinstance(data, Mapping):
            known = ", ".join(self.fields)
            unknown = sorted(str(name)[:60] for name in data.keys() - self.fields.keys())
            for name in unknown[:MAX_UNKNOWN_REPORTED]:
                faults[name] = [ErrorDetail(f"Unknown field {name!r}. Known fields: {known}.", code="unknown_field")]
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            raise serializers.ValidationError({**faults, **error.detail}) from error  # type: ignore[dict-item]
        if faults:
            raise serializers.ValidationError(faults)
        return value


class SafePathField(Text):
    """A relative path inside the project; "." is the project's folder itself."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=240, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        path = super().to_internal_value(data).removesuffix("/")
        if path not in ("", ".") and (reason := path_fault(path)):
            raise serializers.ValidationError(reason, code="invalid_path")
        return "" if path == "." else path


class OutputField(SafePathField):
    def to_internal_value(self, data: Any) -> str:
        return super().to_internal_value(data) or "."


class OutputsField(serializers.ListField):
    """1 to 50 outputs; their number is checked first."""

    max_items = 50

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(child=OutputField(), min_length=1, max_length=self.max_items, **kwargs)

    def to_internal_value(self, data: Any) -> list[Any]:
        if isinstance(data, list) and len(data) > self.max_items:
            raise serializers.ValidationError(f"Send at most {self.max_items} outputs.", code="too_many")
        return super().to_internal_value(data)


class CommandField(Text):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_COMMAND_CHARS, allow_blank=True, **kwargs)


class MemoryField(Described, serializers.Field[int, Any, int, int]):
    """Bytes, as a number or in Docker's notation ("256m"); from 16m to the installation's limit."""

    def schema(self) -> dict[str, Any]:
        least, most = LEAST_MEMORY, settings.DOCKER_MEMORY_LIMIT
        return {
            "description": "Bytes, as a number, or as text with a unit.",
            "oneOf": [
                {"type": "integer", "minimum": least, "maximum": most},
                {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?[kmgKMG]?[bB]?$", "examples": ["256m"]},
            ],
        }

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int | float | str):
            raise serializers.ValidationError('Send bytes as a number, or text such as "256m".', code="invalid")
        try:
            amount = parse_bytes(str(data))
        except ValueError as fault:
            raise serializers.ValidationError(str(fault), code="invalid") from fault
        least, most = LEAST_MEMORY, settings.DOCKER_MEMORY_LIMIT
        if not least <= amount <= most:
            detail = f"Ask for {least:,} to {most:,} bytes of memory: this installation allows no more."
            raise serializers.ValidationError(detail, code="out_of_range")
        return amount

    def to_representation(self, value: int) -> int:
        return value


class FilesField(Described, serializers.Field[list[NewFile], Any, None, None]):
    """`{"path": "text"}` or `[{"path", "content", "encoding", "executable"}]`."""

    def schema(self) -> dict[str, Any]:
        path = {"type": "string", "minLength": 1, "maxLength": settings.MAX_PATH_BYTES}
        file = {
            "type": "object",
            "properties": {
                "path": path,
                "content": {"type": "string"},
                "encoding": {"enum": ["utf-8", "base64"], "default": "utf-8"},
                "executable": {"type": "boolean", "default": False},
            },
            "required": ["path", "content"],
            "additionalProperties": False,
        }
        texts = {"type": "object", "propertyNames": path, "additionalProperties": {"type": "string"}}
        return {
            "description": "The files as an object from path to text, or as a list if some are binary or executable.",
            "oneOf": [
                {**texts, "maxProperties": settings.MAX_FILES, "examples": [{"index.html": "<h1>Hello</h1>"}]},
                {"type": "array", "items": file, "maxItems": settings.MAX_FILES},
            ],
        }

    def to_internal_value(self, data: Any) -> list[NewFile]:
        if isinstance(data, Mapping):
            data = [{"path": path, "content": content} for path, content in data.items()]
        if not isinstance(data, list):
            detail = 'Send {"path": "text"} or [{"path": "…", "content": "…"}].'
            raise serializers.ValidationError(detail, code="shape")
        files: list[NewFile] = []
        faults: list[Fault] = []
        for index, entry in enumerate(data[: settings.MAX_FILES]):  # the rest is only counted
            try:
                files.append(_file(entry))
            except ValueError as fault:
                name = entry.get("path") if isinstance(entry, Mapping) else None
                faults.append(Fault("invalid_file", str(name or index), str(fault)))
        faults += limit_faults((file.path, len(file.content)) for file in files)
        if len(data) > settings.MAX_FILES:
            faults.append(too_many_files(len(data), settings.MAX_FILES))
        if faults:
            raise serializers.ValidationError(field_errors(InvalidUploadError(faults)))
        return files


def _file(entry: Any) -> NewFile:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        raise ValueError('Each file is an object with "path" and "content", both text.')
    if unknown := entry.keys() - {"path", "content", "encoding", "executable"}:
        raise ValueError(f"No {sorted(map(str, unknown))[0]!r} in a file: only path, content, encoding, executable.")
    content, encoding, executable = entry.get("content"), entry.get("encoding", "utf-8"), entry.get("executable", False)
    if not isinstance(content, str):
        raise ValueError('"content" is missing or is not text; send binary files with "encoding": "base64".')
    if not isinstance(executable, bool):
        raise ValueError('"executable" must be true or false.')
    return NewFile(entry["path"], decoded(content, encoding), executable)


def decoded(content: str, encoding: Any) -> bytes:
    """The bytes of a text in "utf-8" or "base64". Raises ValueError with what to do."""
    if encoding == "base64":
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError) as fault:
            raise ValueError(f"The content is not valid base64: {fault}.") from fault
    if encoding != "utf-8":
        raise ValueError('"encoding" must be "utf-8" or "base64".')
    try:
        return content.encode()
    except UnicodeEncodeError as fault:
        raise ValueError("The text contains invalid UTF-8: send the file as base64.") from fault


class ArchiveField(Described, serializers.Field[list[NewFile], Any, None, None]):
    """The file of a form: a tar, tar.gz or zip."""

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "contentMediaType": "application/octet-stream"}

    def to_internal_value(self, data: Any) -> list[NewFile]:
        if not isinstance(data, UploadedFile):
            detail = "Send an archive as a file of a form (multipart/form-data); in JSON, send `files`."
            raise serializers.ValidationError(detail, code="shape")
        with refusals_as_invalid(), data:
            return unpack(cast("BinaryIO", data))


class DependenciesField(Described, serializers.DictField):
    """`{"react": "^18"}`: package names and version ranges."""

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "description": "Packages to install in addition to those of the manifest, with version ranges.",
            "propertyNames": {"pattern": f"^{_DEPENDENCY_NAME.pattern}$", "maxLength": MAX_DEPENDENCY_CHARS},
            "additionalProperties": {"type": "string", "maxLength": 200, "pattern": "^[^\\u0000]*$"},
            "maxProperties": MAX_DEPENDENCIES,
            "examples": [{"react": "^18"}],
        }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(child=Text(max_length=200, allow_blank=True), **kwargs)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if isinstance(data, Mapping) and len(data) > MAX_DEPENDENCIES:
            raise serializers.ValidationError(f"Send at most {MAX_DEPENDENCIES} dependencies.", code="too_many")
        value = super().to_internal_value(data)
        not_a_name = "This is not a valid package name: write it as the registry does, such as react or @types/node."
        faults = {
            name[:MAX_DEPENDENCY_CHARS]: [ErrorDetail(not_a_name, code="invalid_dependency")]
            for name in value
            if len(name) > MAX_DEPENDENCY_CHARS or not _DEPENDENCY_NAME.fullmatch(name)
        }
        if faults:
            raise serializers.ValidationError(faults)
        return value


class StrategySerializer(CamelSerializer):
    """The strategy request; all fields are optional. `runtimes` in the context: name → versions."""

    runtime = Text(max_length=20, required=False)
    version = Text(max_length=40, required=False)
    install_command = CommandField(required=False)
    build_command = CommandField(required=False)
    outputs = OutputsField(required=False)
    root_dir = SafePathField(allow_blank=True, required=False)
    timeout = Whole(min_value=1000, required=False, help_text="Milliseconds.")
    memory = MemoryField(required=False)
    cpus = Real(min_value=0.05, required=False)

    def validate_timeout(self, value: int) -> int:
        if value > (most := int(settings.WORKER_TIMEOUT * 1000)):
            detail = f"Ask for at most {most:,} ms: this installation allows no more."
            raise serializers.ValidationError(detail, code="out_of_range")
        return value

    def validate_cpus(self, value: float) -> float:
        if not value <= settings.DOCKER_CPU_LIMIT:
            detail = f"Ask for at most {settings.DOCKER_CPU_LIMIT:g} CPUs: this installation allows no more."
            raise serializers.ValidationError(detail, code="out_of_range")
        return value


class UploadSerializer(CamelSerializer):
    """Source files as JSON or as an archive, their dependencies, and how to build them.

    In both cases, `validated_data["files"]` has the files.
    """

    files = FilesField(required=False)
    archive = ArchiveField(required=False)
    dependencies = DependenciesField(default=dict)
    strategy = StrategySerializer(default=dict)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "files" in attrs and "archive" in attrs:
            detail = "Send either `files` or an archive, not both."
            raise serializers.ValidationError({"files": [ErrorDetail(detail, code="files_and_archive")]})
        attrs["files"] = attrs.pop("archive", None) or attrs.get("files", [])
        if not attrs["files"] and not attrs["dependencies"]:
            detail = "There is nothing to build: send at least one file."
            raise serializers.ValidationError({"files": [ErrorDetail(detail, code="no_files")]})
        return attrs
