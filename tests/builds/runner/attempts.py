"""Builds in the fake sandbox: one that succeeds unless a test changes it, and helpers to read the results."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from django.core.files.storage import default_storage
from django.db.models import Model
from django.utils import timezone

from builds.models import Artifact, Attempt, Build, BuildEvent, LogChunk, PhaseName, PhaseRun
from builds.queue.claims import BuildLease, claim
from builds.runner import Run
from chef.jobs.models import Status
from tests.builds.sandbox.fake import FakeSandbox, Process, says

Claimed = Callable[..., BuildLease]  # the fixture `claimed`
Event = Callable[[], object]

IMAGE = f"sha256:{'1' * 64}"
STRATEGY = {"installCommand": "install", "buildCommand": "build", "outputs": ["dist"]}
PAGE = b"<h1>built</h1>"

# The sandbox method or the script that runs in the middle of each phase.
_CALLS = {PhaseName.PREPARATION: "put", PhaseName.ARTIFACTS: "stream", PhaseName.CLEANUP: "remove"}
_SCRIPTS = {PhaseName.INSTALLATION: "install", PhaseName.BUILD: "build"}


def working_sandbox() -> FakeSandbox:
    """A sandbox in which a build with STRATEGY succeeds."""
    return FakeSandbox(
        images={"chef-runtime/static:12": IMAGE},
        programs={"install": says("added 3 packages\n"), "build": build_page},
        registries={"registry.test"},
    )


def build_page(process: Process) -> None:
    process.emit("built in 1 s\n")
    process.write("dist/index.html", PAGE)


def let_happen(sandbox: FakeSandbox, phase: PhaseName, event: Event) -> None:
    """Run `event` in the middle of a phase: the sandbox raises what it raises, otherwise the phase continues."""
    if phase in _CALLS:
        sandbox.before[_CALLS[phase]] = event
        return
    usual = sandbox.programs[_SCRIPTS[phase]]

    def program(process: Process) -> int | None:
        event()
        return usual(process)

    sandbox.programs[_SCRIPTS[phase]] = program


def run(lease: BuildLease, sandbox: FakeSandbox) -> Build:
    """Run an attempt to its end and reload the build. Raises LeaseLostError."""
    Run(lease, lambda: sandbox).execute()
    return Build.objects.get(pk=lease.build.pk)


def raises(fault: Exception) -> Event:
    def event() -> None:
        raise fault

    return event


def once(event: Event) -> Event:
    """The same event, but only the first time."""
    events = [event]
    return lambda: events.pop()() if events else None


def expire_lease() -> None:
    """Expire the lease, as if the worker had been silent for too long."""
    Build.objects.filter(status=Status.RUNNING).update(lease_expires_at=timezone.now() - timedelta(seconds=1))


def claim_again() -> BuildLease:
    """End the back-off."""
    Build.objects.update(available_at=timezone.now())
    lease = claim("another worker")
    assert lease
    return lease


# --- What is there afterwards ------------------------------------------------------------------------------------


def phases(build: Build, *, attempt: int = 1) -> dict[str, str]:
    """How each phase of an attempt ended, in order."""
    return dict(PhaseRun.objects.filter(attempt__build=build, attempt__number=attempt).values_list("name", "status"))


def outcomes(build: Build) -> list[str]:
    """How each attempt ended."""
    return list(build.attempts.values_list("outcome", flat=True))


def events(build: Build) -> list[str]:
    """Statuses and phases in the order in which they were entered."""
    return [event.to_status or event.data["phase"] for event in build.events.all()]


def log(build: Build, stream: str) -> str:
    return "".join(build.log_chunks.filter(stream=stream).values_list("text", flat=True))


def stored() -> dict[str, bytes]:
    """The content of the store, by key."""
    contents = {}
    for key in _keys(""):
        with default_storage.open(key) as file:
            contents[key] = file.read()
    return contents


def _keys(folder: str) -> Iterable[str]:
    if not default_storage.exists(folder):
        return
    folders, files = default_storage.listdir(folder)
    for name in files:
        yield f"{folder}/{name}".lstrip("/")
    for name in folders:
        yield from _keys(f"{folder}/{name}".lstrip("/"))


def verdict_of(build: Build) -> tuple[str, str, str]:
    """The class, code and phase of a failed build's verdict."""
    assert build.status == Status.FAILED
    assert build.verdict
    return build.verdict["class"], build.verdict["code"], build.verdict["phase"]


def all_rows() -> dict[str, list[dict[str, Any]]]:
    """All rows about builds in the database."""
    models: tuple[type[Model], ...] = (Build, Attempt, PhaseRun, BuildEvent, LogChunk, Artifact)
    return {model.__name__: list(model._default_manager.order_by("pk").values()) for model in models}
