"""Outputs of a build: read from the sandbox as a tar stream, checked member by member, and stored.

Nothing is ever extracted by path: each member's bytes go to the store under a name that Chef chooses.
"""

import contextlib
import hashlib
import mimetypes
import re
import tarfile
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, Any, cast
from uuid import UUID

from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db.models import QuerySet

from builds.models import Artifact, Build, PhaseName
from builds.queue.claims import BuildLease
from builds.runtimes.detection import Plan
from builds.sandbox.contract import Output, OutputMissingError, OutputUnsafeError, Workspace
from builds.sandbox.workspace_tar import StreamFile
from builds.verdicts.evidence import Verdict, verdict
from chef.jobs.models import Status
from chef.storage.deletion import discard_keys

MAX_NAME_BYTES = 1024
_UNSAFE_NAME = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffe\uffff]")


class OutputRefusedError(Exception):
    """The outputs cannot be kept; `verdict` says why and what to do."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


def artifacts_of(build: Build) -> QuerySet[Artifact]:
    """The outputs of the attempt that completed it, if one has."""
    rows = Artifact.objects.filter(build=build, attempt=build.fence)
    return rows if build.status == Status.COMPLETED else rows.none()


@dataclass
class Collected:
    """What has been stored so far, and what was skipped and why."""

    artifacts: list[Artifact] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    total_bytes: int = 0


class _Hashing(File[bytes]):
    """A stream that is hashed while the store reads it; `check` may raise to stop it."""

    def __init__(self, source: IO[bytes], size: int, check: Callable[[], None]) -> None:
        super().__init__(source)
        self._size = size
        self._check = check
        self.digest = hashlib.sha256()

    @property
    def size(self) -> int:
        return self._size

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        source = cast("IO[bytes]", self.file)
        while data := source.read(chunk_size or 256 * 1024):
            self._check()  # one file may take many seconds: check between chunks
            self.digest.update(data)
            yield data


def collect(
    workspace: Workspace,
    plan: Plan,
    lease: BuildLease,
    *,
    max_files: int,
    max_bytes: int,
    check: Callable[[], None],
) -> Collected:
    """Store the plan's outputs under the attempt's prefix. Rows are not written here: see `record`.

    All outputs that the user named are collected; of detected candidates, the first that is a folder.
    Raises OutputRefusedError with the verdict `no_output`, `unsafe_output`, `too_many_artifacts` or
    `artifacts_too_large`, and what `check` raises; nothing of the attempt stays in the store then.
    """
    collected = Collected()
    try:
        for path in plan.outputs:
            with _taken(workspace, plan, path) as output:
                if output is None or not (plan.outputs_chosen or output.is_folder):
                    continue
                for member, source in _members(output.stream):
                    check()
                    _store_member(member, source, path, plan, lease, collected, max_files, max_bytes, check)
            if not plan.outputs_chosen:
                break
        if not collected.artifacts:
            raise OutputRefusedError(verdict("no_output", phase=PhaseName.ARTIFACTS, evidence=[_looked_for(plan)]))
    except BaseException:
        discard_attempt(lease.build.pk, lease.fence)
        raise
    return collected


def record(collected: Collected, lease: BuildLease) -> None:
    """Write the rows, if the attempt still holds its build. Raises LeaseLostError after removing the stored bytes."""
    try:
        with lease.writing():
            Artifact.objects.bulk_create(collected.artifacts, batch_size=500)
    except BaseException:
        discard_attempt(lease.build.pk, lease.fence)
        raise


def discard_attempt(build_id: UUID, fence: int, *, but: Collection[str] = ()) -> None:
    """Remove the bytes that an unfinished attempt stored, partial files included, except the keys in `but`.

    Rows are not touched: those of an unfinished attempt are not part of the build.
    """
    folder = f"{build_id}/{fence}"
    with contextlib.suppress(OSError):
        found = [f"{folder}/{name}" for name in default_storage.listdir(folder)[1]]
        discard_keys(key for key in found if key not in but)


@contextlib.contextmanager
def _taken(workspace: Workspace, plan: Plan, path: str) -> Iterator[Output | None]:
    """One output of the plan; None when nothing is at its path."""
    try:
        with workspace.take(_join(plan.root_dir, path)) as output:
            yield output
    except OutputMissingError:
        yield None
    except OutputUnsafeError as unsafe:
        evidence = [f"{unsafe} is a link or a special file"]
        raise OutputRefusedError(verdict("unsafe_output", phase=PhaseName.ARTIFACTS, evidence=evidence)) from unsafe


def _members(stream: Iterator[bytes]) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    with tarfile.open(fileobj=cast("IO[bytes]", StreamFile(stream)), mode="r|", bufsize=256 * 1024) as archive:
        for member in archive:
            yield member, archive.extractfile(member) if member.isreg() else None
            archive.members.clear()  # type: ignore[attr-defined]  # else tarfile remembers every header of a large output


def _store_member(
    member: tarfile.TarInfo,
    source: IO[bytes] | None,
    output: str,
    plan: Plan,
    lease: BuildLease,
    collected: Collected,
    max_files: int,
    max_bytes: int,
    check: Callable[[], None],
) -> None:
    name = _artifact_name(member.name, output)
    if member.isdir() or _is_excluded(name, output, plan):
        return
    if source is None or member.islnk():
        collected.skipped.append(f"{name!r}: not a regular file")
        return
    if reason := name_fault(name):
        collected.skipped.append(f"{name!r}: {reason}")
        return
    if len(collected.artifacts) >= max_files:
        raise OutputRefusedError(verdict("too_many_artifacts", phase=PhaseName.ARTIFACTS, limit=max_files))
    collected.total_bytes += member.size
    if collected.total_bytes > max_bytes:
        raise OutputRefusedError(verdict("artifacts_too_large", phase=PhaseName.ARTIFACTS, limit=max_bytes))
    collected.artifacts.append(_store(name, _Hashing(source, member.size, check), lease, len(collected.artifacts)))


def keep(files: Iterable[tuple[str, bytes]], lease: BuildLease) -> list[Artifact]:
    """Store files given as (name, bytes) under the attempt's prefix. Rows are not written here.

    Another request may store for the same attempt concurrently, so on failure only these rows' keys are removed.
    """
    kept: list[Artifact] = []
    try:
        for name, data in files:
            kept.append(_store(name, _Hashing(BytesIO(data), len(data), lambda: None), lease, len(kept)))
    except BaseException:
        discard_keys(artifact.storage_key for artifact in kept)
        raise
    return kept


def _store(name: str, content: _Hashing, lease: BuildLease, index: int) -> Artifact:
    # Never the user's name, so that it does not matter how a store handles '..', ':' or a trailing dot.
    key = default_storage.save(f"{lease.build.pk}/{lease.fence}/{index}", content)
    return Artifact(
        build=lease.build,
        attempt=lease.fence,
        name=name,
        size=content.size,
        sha256=content.digest.hexdigest(),
        content_type=media_type(name),
        storage_key=key,
    )


def media_type(name: str) -> str:
    kind, encoding = mimetypes.guess_type(name)
    return "application/octet-stream" if encoding or not kind else kind


def _artifact_name(member: str, output: str) -> str:
    """The member's name with the full output path: the engine uses only the last part of it."""
    rest = member.partition("/")[2]
    if output in ("", "."):
        return rest
    return f"{output}/{rest}" if rest else output


def _is_excluded(name: str, output: str, plan: Plan) -> bool:
    return not name or (output in ("", ".") and name.partition("/")[0] in plan.exclude)


def name_fault(name: str) -> str:
    """Why a file with this name is not kept, as the end of a sentence; empty if it is kept."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "the name is not valid UTF-8"
    if size > MAX_NAME_BYTES:
        return f"the name is longer than {MAX_NAME_BYTES} bytes"
    if "\\" in name or _UNSAFE_NAME.search(name) or any(unicodedata.category(char) == "Cc" for char in name):
        return "the name contains control or invisible characters, or a backslash"
    return ""


def _join(root: str, output: str) -> str:
    parts = [part for part in (root, output) if part not in ("", ".")]
    return "/".join(parts) or "."


def _looked_for(plan: Plan) -> str:
    return f"looked for: {', '.join(plan.outputs) or 'nothing'}" + (f" in {plan.root_dir}" if plan.root_dir else "")


def usage_of(collected: Collected) -> dict[str, Any]:
    return {"diskBytes": collected.total_bytes}
