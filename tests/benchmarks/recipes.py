"""What the yardstick needs to repeat a build of Chef: the same image, files, commands and environments.

Everything is taken from Chef before measuring starts, so that the two sides differ only in the overhead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from builds.runtimes.catalogue import find_runtime
from builds.runtimes.registries import discover
from builds.sandbox import container, workspace_tar
from builds.sandbox.contract import APP_DIR, Command
from tests.benchmarks.workloads import Workload


@dataclass(frozen=True)
class Limits:
    """Limits of one container: bytes, CPUs, processes, bytes of one file."""

    memory_bytes: int
    cpus: float
    pids: int
    disk_bytes: int


@dataclass(frozen=True)
class Step:
    """One container: its command, folder and environment."""

    argv: list[str]
    folder: str
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Recipe:
    """One build. `reachable` has the (host, port) pairs that the installation may connect to; empty: no network."""

    image: str
    limits: Limits
    files: Mapping[str, bytes]
    tools: Mapping[str, bytes]
    install: Step
    build: Step
    output: str  # below the project's folder
    reachable: frozenset[tuple[str, int]]


def recipe_of(workload: Workload, build: Mapping[str, Any]) -> Recipe:
    """The recipe of a completed build of `workload`; `build` is its document.

    If no registries are needed, the installation runs like the build: without network, and without a proxy.
    """
    strategy, out = build["strategy"], workload.reaches_registries
    registries = discover()
    extra = container.egress_environment(registries) if out else {}
    runtime = find_runtime(strategy["runtime"])
    root = strategy["rootDir"]
    return Recipe(
        image=build["image"],
        limits=_limits(),
        files=workload.files,
        tools={**runtime.toolbox, **dict(workspace_tar.toolbox())} if out else {},
        install=_step(strategy["installCommand"], root, forwarded=out, environment={**runtime.environment, **extra}),
        build=_step(strategy["buildCommand"], root, forwarded=False, environment=runtime.environment),
        output="/".join(part for part in (APP_DIR, root, strategy["outputs"][0]) if part),
        reachable=registries.hosts if out else frozenset(),
    )


def _step(script: str, root: str, *, forwarded: bool, environment: Mapping[str, str]) -> Step:
    command = Command(phase="", script=script, folder=root)
    argv = container.argv_of(command, settings.WORKER_TIMEOUT, forwarded=forwarded)
    return Step(argv, container.folder_of(command), {**container.base_environment(), **environment})


def _limits() -> Limits:
    return Limits(
        memory_bytes=settings.DOCKER_MEMORY_LIMIT,
        cpus=settings.DOCKER_CPU_LIMIT,
        pids=settings.PIDS_LIMIT,
        disk_bytes=settings.DISK_LIMIT,
    )
