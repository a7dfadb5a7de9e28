"""The five phases of a build, in order. Knows no Docker, no HTTP and no RQ.

A phase that ends the build raises BuildFailedError with a verdict. An engine or storage fault is an infra fault: the
build is requeued until its attempts are used up.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone

from builds import artifacts
from builds.logs.writer import LogWriter
from builds.models import PROGRESS, BuildEvent, PhaseName, PhaseRun
from builds.queue.claims import LOCAL_BUILDS, BuildLease
from builds.runtimes.catalogue import find_runtime, runtime_tag
from builds.runtimes.detection import DetectionError, Plan, StrategyRequest, detect
from builds.sandbox.contract import (
    Command,
    Identity,
    ImageMissingError,
    InputFile,
    Limits,
    Outcome,
    Sandbox,
    SandboxError,
    Watch,
    Workspace,
)
from builds.verdicts.evidence import EvidenceCollector, Verdict, verdict
from chef.jobs.leases import LeaseLostError
from chef.jobs.models import Status
from chef.jobs.pubsub import publish_change
from chef.jobs.queues import Fault
from chef.jobs.reaping import after_fault
from projects.environment import BuildEnvironment, EnvironmentUnreadableError, environment_for

logger = logging.getLogger(__name__)


class BuildFailedError(Exception):
    """The build has failed for good, with this verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


class Run:
    """One attempt of a build, under its lease, in a sandbox."""

    def __init__(self, lease: BuildLease, open_sandbox: Callable[[], Sandbox]) -> None:
        self.lease = lease
        self.build = lease.build
        self.open_sandbox = open_sandbox
        self.strategy: dict[str, Any] = self.build.revision.strategy
        self.limits = limits_of(self.strategy)
        self.deadline = time.monotonic() + timeout_of(self.strategy)
        self.log = LogWriter(lease, max_bytes=settings.MAX_LOG_BYTES)
        self.usage: dict[str, Any] = {}
        self.egress: list[dict[str, Any]] = []
        self.workspace: Workspace | None = None
        self.environment = BuildEnvironment()

    def execute(self) -> None:
        """Run the phases to a terminal status, or hand the build back.

        Raises LeaseLostError when the lease is lost.
        """
        try:
            with self.log:
                try:
                    plan = self.prepare()
                    self.install(plan)
                    self.compile(plan)
                    self.collect(plan)
                finally:
                    self.clean_up()
            self.finish(Status.COMPLETED)
        except BuildFailedError as end:
            self.finish(Status.FAILED, verdict=end.verdict.as_json())
        except WorkerStoppingError:
            self.hand_back()
        except LeaseLostError:
            artifacts.discard_attempt(
                self.build.pk, self.lease.fence
            )  # such as when the build is cancelled at the very end
            raise
        except Exception as fault:
            self.retry_later(fault)

    # --- The five phases ----------------------------------------------------------------------------------------

    def prepare(self) -> Plan:
        """Resolve the strategy, open the sandbox and put the files in."""
        with self.phase(PhaseName.PREPARATION):
            self.environment = self.read_environment()
            self.log.set_secrets(self.environment.secrets)
            files = [InputFile(f.path, bytes(f.content), f.executable) for f in self.build.revision.files.all()]
            plan = self.resolve({file.path: file.content for file in files})
            sandbox = self.open_sandbox()
            image = sandbox.image_id(runtime_tag(plan.runtime, plan.version))
            with self.lease.writing(plan=resolved_strategy(plan, self.strategy), runtime=plan.runtime, image=image):
                pass
            for reason in plan.reasons:
                self.log.system_line(reason)
            for fence in range(1, self.lease.fence):
                sandbox.remove(Identity(self.build.pk, fence))  # left behind by a killed attempt
            self.workspace = sandbox.open(Identity(self.build.pk, self.lease.fence), image=image, limits=self.limits)
            self.workspace.put(with_generated(files, plan), find_runtime(plan.runtime).toolbox)
            return plan

    def install(self, plan: Plan) -> None:
        """Install dependencies; the network reaches only the package registries."""
        self.run_command(PhaseName.INSTALLATION, plan.install_command, plan, with_registries=True)

    def compile(self, plan: Plan) -> None:
        """Run the build command, without any network."""
        self.run_command(PhaseName.BUILD, plan.build_command, plan, with_registries=False)

    def collect(self, plan: Plan) -> None:
        """Collect the outputs, after the last process has ended."""
        assert self.workspace is not None
        with self.phase(PhaseName.ARTIFACTS):
            try:
                taken = artifacts.collect(
                    self.workspace,
                    plan,
                    self.lease,
                    max_files=settings.MAX_ARTIFACTS,
                    max_bytes=settings.MAX_ARTIFACT_BYTES,
                    check=self.check_interrupts,
                )
            except artifacts.OutputRefusedError as refused:
                raise BuildFailedError(refused.verdict) from refused
            for skipped in taken.skipped[:100]:
                self.log.system_line(f"not kept: {skipped}")
            artifacts.record(taken, self.lease)
            self.usage |= artifacts.usage_of(taken)
            self.log.system_line(f"Artifacts: {len(taken.artifacts):,} files, {taken.total_bytes:,} bytes.")

    def clean_up(self) -> None:
        """Remove containers and volume in any case. If this fails, the sweeper does it."""
        try:
            with self.phase(PhaseName.CLEANUP):
                self.remove_workspace()
        except (LeaseLostError, DatabaseError):
            self.remove_workspace()  # no longer ours to write about, but still ours to remove

    # --- What the phases lean on --------------------------------------------------------------------------------

    def remove_workspace(self) -> None:
        try:
            if self.workspace:
                self.workspace.remove()
        except SandboxError as fault:
            logger.warning("build %s: clean-up failed; the sweeper will do it: %s", self.build.pk, fault)

    def read_environment(self) -> BuildEnvironment:
        try:
            return environment_for(self.build.project)
        except EnvironmentUnreadableError as unreadable:
            # A missing key does not come back by itself: further attempts would end here too.
            names = ", ".join(unreadable.names)
            raise BuildFailedError(
                verdict("environment_unreadable", phase=PhaseName.PREPARATION, names=names)
            ) from unreadable

    def resolve(self, files: dict[str, bytes]) -> Plan:
        try:
            return detect(
                files, dependencies=self.build.revision.dependencies, strategy=strategy_request(self.strategy)
            )
        except DetectionError as error:
            raise BuildFailedError(error.verdict) from error

    def run_command(self, name: PhaseName, script: str | None, plan: Plan, *, with_registries: bool) -> None:
        if not script:
            self.skip(name)
            return
        assert self.workspace is not None
        runtime = find_runtime(plan.runtime)
        evidence = EvidenceCollector(runtime.patterns)
        with self.phase(name, on_line=evidence.feed) as run:
            self.log.system_line(f"$ {script}")
            command = Command(
                phase=name,
                script=script,
                folder=plan.root_dir,
                environment={**runtime.environment, **self.environment.for_phase(name)},
                with_registries=with_registries,
            )
            watch = Watch(
                on_output=self.log.write,
                seconds_left=lambda: self.deadline - time.monotonic(),
                must_stop=lambda: self.lease.must_stop,
            )
            outcome = self.workspace.run(command, watch)
            self.log.end_phase()
            run.exit_code = outcome.exit_code
            self.account(outcome)
            self.check_interrupts()
            if not outcome.succeeded:
                raise BuildFailedError(self.judge(name, outcome, evidence))

    def judge(self, name: PhaseName, outcome: Outcome, evidence: EvidenceCollector) -> Verdict:
        return evidence.judge(
            phase=name,
            exit_code=outcome.exit_code,
            oom_killed=outcome.out_of_memory,
            timed_out=outcome.timed_out,
            process_limit_hit=outcome.processes_exhausted,
            blocked_hosts=[entry.host for entry in outcome.egress if not entry.allowed],
            memory_bytes=self.limits.memory_bytes,
            timeout_seconds=timeout_of(self.strategy),
            pids=self.limits.pids,
        )

    def account(self, outcome: Outcome) -> None:
        if outcome.peak_memory_bytes:  # otherwise it ended before it could be measured
            peak, cpu = self.usage.get("peakMemoryBytes", 0), self.usage.get("cpuSeconds", 0.0)
            self.usage["peakMemoryBytes"] = max(peak, outcome.peak_memory_bytes)
            self.usage["cpuSeconds"] = round(cpu + outcome.cpu_seconds, 3)
        self.egress += [asdict(entry) for entry in outcome.egress]

    @contextmanager
    def phase(self, name: PhaseName, on_line: Callable[[str, str], None] | None = None) -> Iterator[PhaseRun]:
        """Record one phase: its start, its end, and how it ended."""
        self.check_interrupts(ignore_shutdown=name == PhaseName.CLEANUP)
        run = PhaseRun(attempt=self.lease.attempt, name=name)
        with self.lease.writing(phase=name, progress=PROGRESS[name]):
            run.save()
            self.event(name)
        if name != PhaseName.CLEANUP:  # clean-up follows every failure: the verdict must name the phase that failed
            self.build.phase = name
        self.log.start_phase(name, on_line)
        try:
            yield run
        except Exception as end:
            interrupted = isinstance(end, WorkerStoppingError)
            self.close(run, PhaseRun.Status.INTERRUPTED if interrupted else PhaseRun.Status.FAILED)
            raise
        self.close(run, PhaseRun.Status.COMPLETED)

    def skip(self, name: PhaseName) -> None:
        now = timezone.now()
        with self.lease.writing(phase=name, progress=PROGRESS[name]):
            PhaseRun.objects.create(
                attempt=self.lease.attempt, name=name, status=PhaseRun.Status.SKIPPED, started_at=now, finished_at=now
            )
            self.event(name)

    def close(self, run: PhaseRun, status: PhaseRun.Status) -> None:
        if self.lease.lost.is_set():
            return  # the process that took the build has closed our phases
        self.log.end_phase()
        run.status, run.finished_at = status, timezone.now()
        with self.lease.writing():
            run.save(update_fields=["status", "finished_at", "exit_code"])

    def event(self, name: PhaseName) -> None:
        BuildEvent.objects.create(
            build=self.build,
            kind=BuildEvent.Kind.PHASE,
            fence=self.lease.fence,
            data={"phase": name, "progress": PROGRESS[name]},
        )
        transaction.on_commit(partial(publish_change, self.build.pk))

    def check_interrupts(self, *, ignore_shutdown: bool = False) -> None:
        """Raises LeaseLostError, and WorkerStoppingError unless a shutdown is ignored."""
        if self.lease.lost.is_set():
            raise LeaseLostError(f"build {self.build.pk} is no longer held by this worker")
        if self.lease.interrupted.is_set() and not ignore_shutdown:
            raise WorkerStoppingError

    # --- The end ------------------------------------------------------------------------------------------------

    def finish(self, status: Status, **changes: Any) -> None:
        self.lease.end(status, usage=self.usage, egress=self.egress, **changes)

    def hand_back(self) -> None:
        """This worker is stopping: requeue the build without counting an attempt."""
        self.lease.end(Status.QUEUED, outcome="handed_back", available_at=timezone.now(), phase="", progress=0)
        LOCAL_BUILDS.wake_up()

    def retry_later(self, fault: Exception) -> None:
        """After an infra fault, requeue the build until its attempts are used up."""
        logger.warning("build %s: attempt %s ended by an infra fault", self.build.pk, self.lease.fence, exc_info=fault)
        seen = Fault(fault_code(fault), self.log.masked(str(fault))[:400])
        status, changes = after_fault(LOCAL_BUILDS, self.build, seen)
        self.lease.end(status, **changes)
        artifacts.discard_attempt(self.build.pk, self.lease.fence)


class WorkerStoppingError(Exception):
    """The worker is shutting down."""


def fault_code(fault: Exception) -> str:
    """The catalogue's code for an infra fault."""
    codes: list[tuple[type[Exception] | tuple[type[Exception], ...], str]] = [
        (ImageMissingError, "image_missing"),
        (SandboxError, "engine_unavailable"),
        ((DatabaseError, OSError), "storage_unavailable"),
    ]
    return next((code for kind, code in codes if isinstance(fault, kind)), "internal_error")


def strategy_request(strategy: dict[str, Any]) -> StrategyRequest:
    """The API's strategy as detection takes it."""
    return StrategyRequest(
        runtime=strategy.get("runtime"),
        version=strategy.get("version"),
        install_command=strategy.get("installCommand"),
        build_command=strategy.get("buildCommand"),
        outputs=tuple(strategy.get("outputs") or ()),
        root_dir=strategy.get("rootDir"),
    )


def resolved_strategy(plan: Plan, strategy: dict[str, Any]) -> dict[str, Any]:
    """The plan and limits of a build for the API: timeout in milliseconds, memory in bytes."""
    limits = limits_of(strategy)
    timeout = round(timeout_of(strategy) * 1000)
    return plan.as_json() | {"timeout": timeout, "memory": limits.memory_bytes, "cpus": limits.cpus}


def timeout_of(strategy: dict[str, Any]) -> float:
    """Seconds that the whole build may take: the strategy's, up to the installation's maximum."""
    return min(float(strategy.get("timeout", float("inf"))) / 1000, float(settings.WORKER_TIMEOUT))


def limits_of(strategy: dict[str, Any]) -> Limits:
    return Limits(
        memory_bytes=min(strategy.get("memory") or settings.DOCKER_MEMORY_LIMIT, settings.DOCKER_MEMORY_LIMIT),
        cpus=min(strategy.get("cpus") or settings.DOCKER_CPU_LIMIT, settings.DOCKER_CPU_LIMIT),
        pids=settings.PIDS_LIMIT,
        disk_bytes=settings.DISK_LIMIT,
    )


def with_generated(files: list[InputFile], plan: Plan) -> list[InputFile]:
    """The project's files, plus those that preparation adds or replaces."""
    root = f"{plan.root_dir}/" if plan.root_dir else ""
    added = {root + path: text.encode() for path, text in plan.generated.items()}
    kept = [file for file in files if file.path not in added]
    return kept + [InputFile(path, content) for path, content in added.items()]
