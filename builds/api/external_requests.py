"""Validation of messages from external builders."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from builds.artifacts import MAX_NAME_BYTES, name_fault
from builds.external import LogText
from builds.models import PhaseName
from builds.verdicts.evidence import CATALOGUE, MAX_EVIDENCE_LINES, MAX_LINE_CHARS, VerdictClass
from chef.web.errors import field_errors
from projects.api.described import Described
from projects.api.serializers import CamelSerializer, decoded
from projects.api.typed_fields import Choice, Text, Whole
from projects.files.limits import InvalidUploadError
from projects.files.paths import Fault

# Only owners cancel, and only Chef decides that attempts are exhausted.
REPORTABLE = [
    code for code, entry in CATALOGUE.items() if entry.cls != VerdictClass.CANCELLED and code != "attempts_exhausted"
]
LOG_PHASES = [PhaseName.INSTALLATION.value, PhaseName.BUILD.value]
LOG_STREAMS = ["stdout", "stderr"]
ENCODINGS = ["utf-8", "base64"]


class Id(serializers.UUIDField):
    """A UUID as text: DRF would also accept a number."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid", value=repr(data)[:60])
        return super().to_internal_value(data)


class LogsField(Described, serializers.Field[list[LogText], Any, None, None]):
    """One text, or a list of texts with their phase and stream."""

    def schema(self) -> dict[str, Any]:
        entry = {
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "phase": {"enum": LOG_PHASES, "default": "build"},
                "stream": {"enum": LOG_STREAMS, "default": "stdout"},
            },
            "required": ["text"],
            "additionalProperties": False,
        }
        return {
            "description": "The output of the builder's tools, as one text or by phase and stream.",
            "oneOf": [{"type": "string"}, {"type": "array", "items": entry}],
        }

    def to_internal_value(self, data: Any) -> list[LogText]:
        entries = [{"text": data}] if isinstance(data, str) else data
        if not isinstance(entries, list) or not all(map(_is_log_entry, entries)):
            detail = (
                'Send text, or a list of {"text", "phase", "stream"}: the phase is installation or build, the stream '
                "stdout or stderr."
            )
            raise serializers.ValidationError(detail, code="shape")
        return [LogText(e.get("phase", "build"), e.get("stream", "stdout"), e["text"]) for e in entries]


def _is_log_entry(entry: Any) -> bool:
    return (
        isinstance(entry, Mapping)
        and entry.keys() <= {"text", "phase", "stream"}
        and isinstance(entry.get("text"), str)
        and entry.get("phase", "build") in LOG_PHASES
        and entry.get("stream", "stdout") in LOG_STREAMS
    )


class ArtifactsField(Described, serializers.Field[list[tuple[str, bytes]], Any, None, None]):
    """Output files as (name, bytes), within the limits of a build."""

    def schema(self) -> dict[str, Any]:
        file = {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES, "examples": ["dist/app.js"]},
                "content": {"type": "string"},
                "encoding": {"enum": ENCODINGS, "default": "utf-8"},
            },
            "required": ["name", "content"],
            "additionalProperties": False,
        }
        return {
            "description": "The output files of a completed build, by path.",
            "type": "array",
            "items": file,
            "maxItems": settings.MAX_ARTIFACTS,
        }

    def to_internal_value(self, data: Any) -> list[tuple[str, bytes]]:
        if not isinstance(data, list):
            raise serializers.ValidationError('Send [{"name": "…", "content": "…"}].', code="shape")
        if len(data) > settings.MAX_ARTIFACTS:
            detail = f"{len(data):,} artifacts, more than the {settings.MAX_ARTIFACTS:,} allowed: send fewer."
            raise serializers.ValidationError(detail, code="too_many")
        files: list[tuple[str, bytes]] = []
        faults: list[Fault] = []
        for index, entry in enumerate(data):
            try:
                files.append(_artifact(entry))
            except ValueError as fault:
                name = entry.get("name") if isinstance(entry, Mapping) else None
                faults.append(Fault("invalid_artifact", str(name or index), str(fault)))
        faults += _clashes([name for name, _ in files])
        if (total := sum(len(content) for _, content in files)) > settings.MAX_ARTIFACT_BYTES:
            detail = f"The artifacts have {total:,} bytes, more than the {settings.MAX_ARTIFACT_BYTES:,} allowed."
            faults.append(Fault("artifacts_too_large", "", f"{detail} Send fewer or smaller ones."))
        if faults:
            raise serializers.ValidationError(field_errors(InvalidUploadError(faults)))
        return files


def _artifact(entry: Any) -> tuple[str, bytes]:
    if not isinstance(entry, Mapping) or not isinstance(name := entry.get("name"), str):
        raise ValueError('Each artifact is an object with "name" and "content", both text.')
    if unknown := entry.keys() - {"name", "content", "encoding"}:
        raise ValueError(f"An artifact cannot have {sorted(unknown)[0]!r}: only name, content, encoding.")
    # Local builds take names from a folder, so theirs are valid by construction.
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise ValueError("The name is not a valid path within the outputs: remove '..', '.' and empty parts.")
    if reason := name_fault(name):
        raise ValueError(f"Choose another name: {reason}.")
    if not isinstance(content := entry.get("content"), str):
        raise ValueError('"content" is missing or is not text; send binary files with "encoding": "base64".')
    return name, decoded(content, entry.get("encoding", "utf-8"))


def _clashes(names: list[str]) -> list[Fault]:
    """Names are unique, and none is both a file and a folder."""
    faults, known = [], set(names)
    if len(known) < len(names):
        seen: set[str] = set()
        duplicates = sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
        faults += [
            Fault("duplicate_path", name, "This name occurs more than once: send it once.") for name in duplicates
        ]
    for name in known:
        parts = name.split("/")
        if any("/".join(parts[:depth]) in known for depth in range(1, len(parts))):
            faults.append(Fault("duplicate_path", name, "This needs a folder where a file is: rename one of them."))
    return faults


class WorkerClaim(CamelSerializer):
    """The body of `POST /v1/hooks/worker-claim`."""

    worker = Text(max_length=80, default="external builder", help_text="The builder's name, as shown to people.")


class WorkerHeartbeat(CamelSerializer):
    """The body of `POST /v1/hooks/worker-heartbeat`: a build, and the fence under which it was claimed."""

    job_id = Id()
    fence = Whole(min_value=1, max_value=2**31 - 1)


class ReportedVerdict(CamelSerializer):
    """Why a build failed. All fields are optional; missing texts are those of the code."""

    code = Choice(choices=REPORTABLE, default="build_failed")
    phase = Choice(choices=PhaseName.choices, default="build")
    message = Text(max_length=MAX_LINE_CHARS, required=False)
    hint = Text(max_length=MAX_LINE_CHARS, required=False)
    evidence = serializers.ListField(
        child=Text(max_length=MAX_LINE_CHARS, allow_blank=True),
        max_length=MAX_EVIDENCE_LINES,
        required=False,
        help_text="Log lines, most relevant first.",
    )
    exit_code = Whole(min_value=-(2**31), max_value=2**32 - 1, required=False)


class WorkerResult(WorkerHeartbeat):
    """The body of `POST /v1/hooks/worker-result`: a verdict for failed builds, artifacts for completed ones."""

    status = Choice(choices=["completed", "failed"])
    verdict = ReportedVerdict(required=False)
    logs = LogsField(required=False)
    artifacts = ArtifactsField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        unexpected = "verdict" if attrs["status"] == "completed" else "artifacts"
        if unexpected in attrs:
            detail = f"A {attrs['status']} build cannot have {unexpected}: leave it out."
            raise serializers.ValidationError({unexpected: [ErrorDetail(detail, code="other_status")]})
        return attrs
