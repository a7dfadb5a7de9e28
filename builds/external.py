"""What an external builder may do with a build of its queue: take it, keep it, report what came of it.

The verbs are those of our own workers: a claim raises the fence and takes a lease, and whatever is written later is
written under that fence. Knows neither HTTP nor signatures.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from builds import artifacts
from builds.logs.writer import WholeLog
from builds.models import Artifact, Attempt, Build, PhaseName
from builds.queue.claims import EXTERNAL_BUILDS, BuildLease, claim
from builds.runner import resolved_strategy, strategy_request
from builds.runtimes.detection import DetectionError, detect
from builds.verdicts.evidence import Verdict, VerdictClass, clean, verdict
from chef.jobs.models import Status
from chef.jobs.queues import Fault
from chef.jobs.reaping import after_fault
from chef.refusals import RefusalError
from chef.storage.deletion import discard_keys
from projects.environment import EnvironmentUnreadableError, environment_for

PIECE_BYTES = 16 * 1024


class UnknownBuildError(RefusalError):
    """There is no such build."""

    code, status = "not_found", 404

    def __init__(self) -> None:
        super().__init__("There is no such build.")


class NotHeldError(RefusalError):
    """The sender may not write about this build."""


# --- Taking and keeping ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """A build that an external builder has claimed, and the plain variables it is built with: secrets stay here."""

    build: Build
    environment: Mapping[str, str] = field(repr=False)


@transaction.atomic
def take(worker: str) -> Taken | None:
    """Claim the next build that is for others; None when nothing waits. One whose variables cannot be read fails."""
    while lease := claim(worker, is_external=True):
        try:
            environment = environment_for(lease.build.project)
        except EnvironmentUnreadableError as unreadable:
            names = ", ".join(unreadable.names)
            reason = verdict("environment_unreadable", phase=PhaseName.PREPARATION, names=names)
            lease.end(Status.FAILED, verdict=reason.as_json())
            continue
        _resolve(lease)
        secret = {name for name, _ in environment.secrets}
        plain = {name: value for name, value in environment.build.items() if name not in secret}
        return Taken(lease.build, plain)
    return None


def _resolve(lease: BuildLease) -> None:
    """Note how this installation would build it. It may not know: an external builder may know more."""
    build, revision = lease.build, lease.build.revision
    files = {file.path: bytes(file.content) for file in revision.files.all()}
    try:
        plan = detect(files, dependencies=revision.dependencies, strategy=strategy_request(revision.strategy))
    except DetectionError:
        return
    build.plan, build.runtime = resolved_strategy(plan, revision.strategy), plan.runtime
    with lease.writing(plan=build.plan, runtime=build.runtime):
        pass


@transaction.atomic
def renew(job_id: UUID, fence: int) -> datetime:
    """Keep a build for another lease. Returns until when. Raises UnknownBuildError and NotHeldError."""
    lease = _lease_of(job_id, fence, locked=True)
    expiry = timezone.now() + timedelta(seconds=lease.build.lease_seconds)
    with lease.writing(lease_expires_at=expiry):
        return expiry


def held(job_id: UUID, fence: int) -> Build:
    """The build, if whoever has this fence may still write about it. Raises UnknownBuildError and NotHeldError."""
    return _lease_of(job_id, fence).build


def _lease_of(job_id: UUID, fence: int, *, locked: bool = False) -> BuildLease:
    """With `locked`, in a transaction: nobody changes the build until its end."""
    rows = Build.objects.select_for_update() if locked else Build.objects.select_related("project", "revision")
    build = rows.filter(pk=job_id).first()
    if build is None:
        raise UnknownBuildError
    _check(build, fence)
    return BuildLease(build, Attempt.objects.get(build=build, number=fence))


def _check(build: Build, fence: int) -> None:
    if not build.is_external:
        raise NotHeldError("This build runs here: nobody outside has a part in it.", code="not_external")
    if build.fence != fence or build.status == Status.QUEUED:
        raise NotHeldError(
            "This build is not, or no longer, yours: drop it, and claim another one.", code="stale_fence"
        )
    if build.is_terminal:
        raise NotHeldError(f"This build has ended before: it is {build.status}. Drop it.", code="build_ended")
    if not build.lease_expires_at or build.lease_expires_at < timezone.now():
        detail = "Your lease has run out, and another may take this build: drop it, and send heartbeats earlier."
        raise NotHeldError(detail, code="lease_expired")


# --- Reporting ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogText:
    """What one stream of a phase, `installation` or `build`, has put out."""

    phase: str
    stream: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class Result:
    """What a builder says of its attempt. Files are (name, bytes), with names that builds.artifacts keeps.

    Of a failure, `verdict` has what is known of a verdict's code, phase, message, hint, evidence and exit_code.
    """

    job_id: UUID
    fence: int
    is_completed: bool
    verdict: Mapping[str, Any] = field(default_factory=dict)
    logs: Sequence[LogText] = ()
    files: Sequence[tuple[str, bytes]] = field(default=(), repr=False)


class Report:
    """A result on its way in: masked, and its files in the store. `record` writes the rows."""

    def __init__(self, result: Result, lease: BuildLease) -> None:
        self._result = result
        self._log = WholeLog(lease, max_bytes=settings.MAX_LOG_BYTES)
        self._verdict: Verdict | None = None
        self._read(lease.build)
        self._kept = artifacts.keep(result.files, lease)

    @transaction.atomic
    def record(self) -> Build:
        """End the attempt: one change of the build with all that belongs to it.

        Raises UnknownBuildError and NotHeldError.
        """
        lease = _lease_of(self._result.job_id, self._result.fence, locked=True)
        self._log.record()
        Artifact.objects.bulk_create(self._kept, batch_size=500)
        status, changes = self._ending(lease.build)
        lease.end(status, **changes)
        return lease.build

    def discard(self) -> None:
        """Take its files out of the store again, and nobody else's."""
        discard_keys(self._keys())

    def tidy(self) -> None:
        """Remove what else was stored for the attempt, such as by a process that died while it took the report."""
        artifacts.discard_attempt(self._result.job_id, self._result.fence, but=self._keys())

    def _keys(self) -> set[str]:
        return {artifact.storage_key for artifact in self._kept}

    def _ending(self, build: Build) -> tuple[Status, dict[str, Any]]:
        if self._verdict is None:
            return Status.COMPLETED, {"progress": 100, "usage": {"diskBytes": sum(file.size for file in self._kept)}}
        if self._verdict.cls == VerdictClass.INFRA:  # no fault of the project: tried again, as with our own workers
            evidence = "; ".join(self._verdict.evidence[:3]) or self._verdict.message
            return after_fault(EXTERNAL_BUILDS, build, Fault(self._verdict.code, evidence))
        return Status.FAILED, {"phase": self._verdict.phase, "verdict": self._verdict.as_json()}

    def _read(self, build: Build) -> None:
        """The log and the verdict, without the project's secrets; without the texts when those are unknown."""
        try:
            self._log.set_secrets(environment_for(build.project).secrets)
            logs, given = self._result.logs, self._result.verdict
        except EnvironmentUnreadableError as unreadable:
            names = ", ".join(unreadable.names)
            left_out = f"[chef] What the builder reported was left out: {names} cannot be read, and so not be masked.\n"
            logs, given = [LogText(PhaseName.BUILD, "stderr", left_out)], _without_texts(self._result.verdict)
        # By phases, because each has its own share of what is kept.
        ordered = sorted(logs, key=lambda piece: piece.phase != PhaseName.INSTALLATION)
        for phase, pieces in groupby(ordered, key=lambda piece: piece.phase):
            self._log.start_phase(phase)
            for piece in pieces:
                self._fill(piece)
            self._log.end_phase()
        if not self._result.is_completed:
            self._verdict = self._judged(given)

    def _fill(self, piece: LogText) -> None:
        """As a tool would print it: what is kept of a log is chosen by the piece."""
        data = piece.text.encode()
        for start in range(0, len(data), PIECE_BYTES):
            self._log.write(piece.stream, data[start : start + PIECE_BYTES])

    def _judged(self, given: Mapping[str, Any]) -> Verdict:
        judged = verdict(
            given.get("code", "build_failed"),
            phase=given.get("phase", PhaseName.BUILD),
            evidence=[self._log.masked(line) for line in given.get("evidence", ())],
            exit_code=given.get("exit_code"),
        )
        message, hint = given.get("message", judged.message), given.get("hint", judged.hint)
        return replace(judged, message=clean(self._log.masked(message)), hint=clean(self._log.masked(hint)))


def _without_texts(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in ("message", "hint", "evidence")}


@contextmanager
def reported(result: Result) -> Iterator[Report]:
    """The result on its way in. Raises UnknownBuildError and NotHeldError.

    Its files are in the store before the transaction that `record` is part of, and gone when the block raises.
    """
    try:
        report = Report(result, _lease_of(result.job_id, result.fence))
    except OSError:
        # Of two reports at once, the first may have tidied away what the second was just storing.
        _lease_of(result.job_id, result.fence)
        raise
    try:
        yield report
    except BaseException:
        report.discard()
        raise
    report.tidy()
