"""What the yardstick needs to make a build that Chef has made: the same image, files, commands and environments.

All of it is taken from Chef, and before any clock runs, so that the two sides can differ in nothing but the overhead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from builds.runtimes.catalogue import find_runtime
from builds.runtimes.registries import discover
from builds.sandbox import container, tar
from builds.sandbox.contract import APP_DIR, Command
from tests.benchmarks.workloads import Workload


@dataclass(frozen=True)
class Limits:
    """What one container may use: bytes, CPUs, processes, bytes of one file."""

    memory_bytes: int
    cpus: float
    pids: int
    disk_bytes: int


@dataclass(frozen=True)
class Step:
    """One container: what it runs, where, and with which environment."""

    argv: list[str]
    folder: str
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Recipe:
    """One build. `reachable` has the pairs of host and port that the installation may speak to; empty: it is sealed."""

    image: str
    limits: Limits
    files: Mapping[str, bytes]
    tools: Mapping[str, bytes]
    install: Step
    build: Step
    output: str  # below the project's folder
    reachable: frozenset[tuple[str, int]]


def recipe_of(workload: Workload, build: Mapping[str, Any]) -> Recipe:
    """The recipe of a build of `workload` that Chef has completed; `build` is its document.

    Without a need for registries the installation runs as the build does: sealed, with no proxy to start.
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
        tools={**runtime.toolbox, **dict(tar.toolbox())} if out else {},
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
