"""The yardstick: the Docker calls of one build, made by hand, without a database, Redis or a web server.

It makes the same requests to the engine as Chef: one container per phase under the same limits, files in and outputs
out as tar streams. It keeps no log, checks nothing and retries nothing. Of Chef's code it uses only the egress proxy
to the registries, which is part of the build and not of the overhead.
"""

import contextlib
import hashlib
import io
import multiprocessing
import os
import tarfile
import time
import uuid
from collections.abc import Iterator, Mapping
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import IO, Any, cast

import docker

from builds.sandbox.egress import EgressProxy
from builds.sandbox.workspace_tar import StreamFile
from tests.benchmarks.recipes import Limits, Recipe, Step

LABEL = "chef.benchmark"
WORKSPACE = "/workspace"
EGRESS_DIR = "/chef/egress"
UID = 10001
_HOLD = Step(argv=["/bin/true"], folder="/", environment={})


class YardstickError(Exception):
    """A command of the yardstick failed, so its time means nothing."""


class Yardstick:
    """Makes builds by hand on one engine. `mark` labels containers and volumes; `scratch` holds outputs and sockets."""

    def __init__(self, *, base_url: str, mark: str, scratch: Path) -> None:
        self._base_url, self._mark, self._scratch = base_url, mark, scratch
        self._client = docker.APIClient(base_url=base_url, version="auto", timeout=60)

    def again(self) -> "Yardstick":
        """The same with a new connection, for another process."""
        return Yardstick(base_url=self._base_url, mark=self._mark, scratch=self._scratch)

    def close(self) -> None:
        self._client.close()

    def remove_leftovers(self) -> None:
        """Remove what an interrupted run has left. Containers first: a volume in use cannot be removed."""
        mark = {"label": f"{LABEL}={self._mark}"}
        for container in self._client.containers(all=True, filters=mark):
            self._client.remove_container(container["Id"], v=True, force=True)
        for volume in self._client.volumes(filters=mark)["Volumes"] or []:
            self._client.remove_volume(volume["Name"], force=True)

    def build(self, recipe: Recipe) -> float:
        """Make one build; returns seconds. Raises YardstickError, or the SDK's own errors."""
        started = time.monotonic()
        name = f"chef-benchmark-{uuid.uuid4().hex}"
        self._client.create_volume(name, labels={LABEL: self._mark})
        holder = self._create(recipe, _HOLD, volume=name)
        self._client.put_archive(holder, WORKSPACE, _workspace(recipe))
        self._install(recipe, volume=name)
        self._run(recipe, recipe.build, volume=name)
        self._take(holder, recipe.output, self._scratch / name)
        self._client.remove_container(holder, v=True, force=True)
        self._client.remove_volume(name, force=True)
        return time.monotonic() - started

    def _install(self, recipe: Recipe, *, volume: str) -> None:
        if not recipe.reachable:
            self._run(recipe, recipe.install, volume=volume)
            return
        folder = self._scratch / volume[-12:]
        with EgressProxy(folder=folder, allowed=recipe.reachable):
            self._run(recipe, recipe.install, volume=volume, egress_folder=folder)

    def _run(self, recipe: Recipe, step: Step, *, volume: str, egress_folder: Path | None = None) -> None:
        container = self._create(recipe, step, volume=volume, egress_folder=egress_folder)
        output = self._client.attach(container, stdout=True, stderr=True, stream=True, demux=True)
        self._client.start(container)
        printed = [part for pair in output for part in pair if part]
        code = self._client.wait(container)["StatusCode"]
        self._client.inspect_container(container)
        self._client.remove_container(container, v=True, force=True)
        if code:
            tail = b"".join(printed)[-2000:].decode(errors="replace")
            raise YardstickError(f"{step.argv[-1]!r} ended with {code}: {tail}")

    def _create(self, recipe: Recipe, step: Step, *, volume: str, egress_folder: Path | None = None) -> str:
        mounts = [docker.types.Mount(WORKSPACE, volume, type="volume")]
        if egress_folder:
            mounts.append(docker.types.Mount(EGRESS_DIR, str(egress_folder), type="bind", read_only=True))
        created = self._client.create_container(
            recipe.image,
            entrypoint=step.argv,
            command=[],
            user=f"{UID}:{UID}",
            environment=dict(step.environment),
            working_dir=step.folder,
            labels={LABEL: self._mark},
            healthcheck={"test": ["NONE"]},
            hostname="build",
            host_config=self._host_config(recipe.limits, mounts),
        )
        return str(created["Id"])

    def _host_config(self, limits: Limits, mounts: list[Any]) -> Any:
        return self._client.create_host_config(
            mounts=mounts,
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": "rw,nosuid,nodev,size=64m,mode=1777"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=limits.memory_bytes,
            memswap_limit=limits.memory_bytes,
            nano_cpus=int(limits.cpus * 1e9),
            pids_limit=limits.pids,
            ulimits=[
                docker.types.Ulimit(name="nofile", soft=8_192, hard=8_192),
                docker.types.Ulimit(name="core", soft=0, hard=0),
                docker.types.Ulimit(name="fsize", soft=limits.disk_bytes, hard=limits.disk_bytes),
            ],
            shm_size=16 * 1024**2,
            ipc_mode="private",
            cgroupns="private",
            oom_score_adj=500,
            log_config=docker.types.LogConfig(type="none"),
        )

    def _take(self, holder: str, output: str, folder: Path) -> None:
        """Write every regular file of the output under a number, and compute its SHA-256."""
        folder.mkdir()
        stream, _ = self._client.get_archive(holder, output, chunk_size=256 * 1024)
        with contextlib.closing(stream):
            taken = [_keep(source, folder / str(index)) for index, source in enumerate(_members(stream))]
        if not taken:
            raise YardstickError(f"there is no file in {output}")


def _workspace(recipe: Recipe) -> bytes:
    """The tar that fills the volume: the project's files and the program that runs its commands."""
    files = {f"app/{path}": content for path, content in recipe.files.items()}
    files |= {f".chef/{name}": content for name, content in recipe.tools.items()}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for folder in ("app", "home", "tmp", "tools", *_folders(files)):
            archive.addfile(_entry(folder, kind=tarfile.DIRTYPE, mode=0o755))
        for path, content in files.items():
            archive.addfile(_entry(path, size=len(content), mode=0o755), io.BytesIO(content))
    return stream.getvalue()


def _folders(files: Mapping[str, bytes]) -> list[str]:
    return sorted({str(parent) for path in files for parent in Path(path).parents} - {".", "app"})


def _entry(name: str, *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid, info.size, info.mtime = kind, mode, UID, UID, size, int(time.time())
    return info


def _members(stream: Iterator[bytes]) -> Iterator[IO[bytes]]:
    with tarfile.open(fileobj=cast("IO[bytes]", StreamFile(stream)), mode="r|", bufsize=256 * 1024) as archive:
        for member in archive:
            if source := archive.extractfile(member) if member.isreg() else None:
                yield source


def _keep(source: IO[bytes], path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        while data := source.read(256 * 1024):
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def many(yardstick: Yardstick, recipe: Recipe, *, builds: int, processes: int) -> float:
    """Make `builds` builds in `processes` processes that each take the next one when free; returns seconds.

    Uses processes instead of threads, started before the clock: that is the fastest possible in Python.
    """
    context = multiprocessing.get_context("fork")
    ready, left = context.Barrier(processes + 1), context.Value("i", builds)
    done: Any = context.SimpleQueue()
    workers = [
        context.Process(target=_work, args=(yardstick, recipe, ready, left, done), daemon=True)
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    ready.wait(timeout=60)
    started = time.monotonic()
    faults = [fault for _ in workers if (fault := done.get())]
    seconds = time.monotonic() - started
    for worker in workers:
        worker.join(timeout=60)
    if faults:
        raise YardstickError(faults[0])
    return seconds


def _work(yardstick: Yardstick, recipe: Recipe, ready: Barrier, left: Any, done: Any) -> None:
    fault = f"process {os.getpid()} did not end"
    try:
        mine = yardstick.again()
        ready.wait(timeout=60)
        while _is_one_left(left):
            mine.build(recipe)
        fault = ""
    except Exception as caught:
        fault = str(caught)
    finally:
        done.put(fault)


def _is_one_left(left: Any) -> bool:
    """Take one of the remaining builds, if there is one."""
    with left.get_lock():
        left.value -= 1
        return bool(left.value >= 0)
