"""External builders: claiming a build of their queue, renewing the lease, reporting the result.

As for our own workers, a claim increments the fence and takes a lease, and every later write is made under that fence.
Knows neither HTTP nor signatures.
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


# --- Claim and renew ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClaimedBuild:
    """A build claimed by an external builder, with its plain variables: secrets stay here."""

    build: Build
    environment: Mapping[str, str] = field(repr=False)


@transaction.atomic
def claim_build(worker: str) -> ClaimedBuild | None:
    """Claim the next build for external builders; None if none waits. A build with unreadable variables fails."""
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
        return ClaimedBuild(lease.build, plain)
    return None


def _resolve(lease: BuildLease) -> None:
    """Record how this installation would build it, if it can tell; the external builder may do otherwise."""
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
    """Renew a build's lease. Returns the new expiry. Raises UnknownBuildError and NotHeldError."""
    lease = _lease_of(job_id, fence, locked=True)
    expiry = timezone.now() + timedelta(seconds=lease.build.lease_seconds)
    with lease.writing(lease_expires_at=expiry):
        return expiry


def held(job_id: UUID, fence: int) -> Build:
    """The build, if the holder of this fence may still write about it. Raises UnknownBuildError and NotHeldError."""
    return _lease_of(job_id, fence).build


def _lease_of(job_id: UUID, fence: int, *, locked: bool = False) -> BuildLease:
    """With `locked`, the build's row stays locked until the end of the transaction."""
    rows = Build.objects.select_for_update() if locked else Build.objects.select_related("project", "revision")
    build = rows.filter(pk=job_id).first()
    if build is None:
        raise UnknownBuildError
    _check(build, fence)
    return BuildLease(build, Attempt.objects.get(build=build, number=fence))


def _check(build: Build, fence: int) -> None:
    if not build.is_external:
        raise NotHeldError("This build runs on this installation's own workers.", code="not_external")
    if build.fence != fence or build.status == Status.QUEUED:
        raise NotHeldError(
            "This build is not, or no longer, yours: drop it, and claim another one.", code="stale_fence"
        )
    if build.is_terminal:
        raise NotHeldError(f"This build has already ended: it is {build.status}. Drop it.", code="build_ended")
    if not build.lease_expires_at or build.lease_expires_at < timezone.now():
        detail = "Your lease has expired, and another may take this build: drop it, and send heartbeats sooner."
        raise NotHeldError(detail, code="lease_expired")


# --- Report ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogText:
    """The output of one stream of a phase, `installation` or `build`."""

    phase: str
    stream: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class Result:
    """What a builder reports of its attempt. Files are (name, bytes), with names that builds.artifacts accepts.

    For a failure, `verdict` has what is known of its code, phase, message, hint, evidence and exit_code.
    """

    job_id: UUID
    fence: int
    is_completed: bool
    verdict: Mapping[str, Any] = field(default_factory=dict)
    logs: Sequence[LogText] = ()
    files: Sequence[tuple[str, bytes]] = field(default=(), repr=False)


class Report:
    """An incoming result: secrets masked, files stored. `record` writes the rows."""

    def __init__(self, result: Result, lease: BuildLease) -> None:
        self._result = result
        self._log = WholeLog(lease, max_bytes=settings.MAX_LOG_BYTES)
        self._verdict: Verdict | None = None
        self._read(lease.build)
        self._kept = artifacts.keep(result.files, lease)

    @transaction.atomic
    def record(self) -> Build:
        """End the attempt: the build's new status, log and artifacts, in one transaction.

        Raises UnknownBuildError and NotHeldError.
        """
        lease = _lease_of(self._result.job_id, self._result.fence, locked=True)
        self._log.record()
        Artifact.objects.bulk_create(self._kept, batch_size=500)
        status, changes = self._ending(lease.build)
        lease.end(status, **changes)
        return lease.build

    def discard(self) -> None:
        """Remove this report's files from the store, and no others."""
        discard_keys(self._keys())

    def tidy(self) -> None:
        """Remove other files stored for the attempt, such as by a process that died while receiving the report."""
        artifacts.discard_attempt(self._result.job_id, self._result.fence, but=self._keys())

    def _keys(self) -> set[str]:
        return {artifact.storage_key for artifact in self._kept}

    def _ending(self, build: Build) -> tuple[Status, dict[str, Any]]:
        if self._verdict is None:
            return Status.COMPLETED, {"progress": 100, "usage": {"diskBytes": sum(file.size for file in self._kept)}}
        if self._verdict.cls == VerdictClass.INFRA:  # not the project's fault: retried, as with our own workers
            evidence = "; ".join(self._verdict.evidence[:3]) or self._verdict.message
            return after_fault(EXTERNAL_BUILDS, build, Fault(self._verdict.code, evidence))
        return Status.FAILED, {"phase": self._verdict.phase, "verdict": self._verdict.as_json()}

    def _read(self, build: Build) -> None:
        """Read log and verdict with secrets masked; without any texts if the secrets cannot be read."""
        try:
            self._log.set_secrets(environment_for(build.project).secrets)
            logs, given = self._result.logs, self._result.verdict
        except EnvironmentUnreadableError as unreadable:
            names = ", ".join(unreadable.names)
            left_out = f"[chef] The builder's output was left out: {names} cannot be read, and so not masked.\n"
            logs, given = [LogText(PhaseName.BUILD, "stderr", left_out)], _without_texts(self._result.verdict)
        # By phase, because each has its own share of the stored log.
        ordered = sorted(logs, key=lambda piece: piece.phase != PhaseName.INSTALLATION)
        for phase, pieces in groupby(ordered, key=lambda piece: piece.phase):
            self._log.start_phase(phase)
            for piece in pieces:
                self._fill(piece)
            self._log.end_phase()
        if not self._result.is_completed:
            self._verdict = self._judged(given)

    def _fill(self, piece: LogText) -> None:
        """Write in pieces, as a tool would print it, because the log keeps or drops whole pieces."""
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
    """Receive a result. Raises UnknownBuildError and NotHeldError.

    Its files are stored before the transaction that calls `record`, and removed if the block raises.
    """
    try:
        report = Report(result, _lease_of(result.job_id, result.fence))
    except OSError:
        # Of two concurrent reports, the first may have removed files that the second was storing.
        _lease_of(result.job_id, result.fence)
        raise
    try:
        yield report
    except BaseException:
        report.discard()
        raise
    report.tidy()
