"""The sandbox on Docker: one container per phase, one volume per attempt, nothing else shared.

With `images`, the only importer of the Docker SDK. Every flag of a container has its reason beside it.
"""

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import docker
import requests
from django.conf import settings
from docker.errors import DockerException, ImageNotFound, NotFound

from builds.registries import discover
from builds.sandbox import tar
from builds.sandbox.contract import (
    APP_DIR,
    TOOLBOX_DIR,
    WORKSPACE,
    Command,
    Egress,
    EngineFault,
    Identity,
    ImageMissing,
    InputFile,
    Limits,
    Outcome,
    OutputMissing,
    OutputUnsafe,
    Watch,
)
from builds.sandbox.egress import EgressProxy
from builds.sandbox.meter import Meter

logger = logging.getLogger(__name__)

CALL_SECONDS = 60  # the SDK's own time-out on every call
EGRESS_DIR = "/chef/egress"
PROXY_PORT = 3128
UID = 10001  # fixed and unprivileged; nothing on the host has it
STOP_POLL_SECONDS = 0.1
# Beyond the worker's own deadline: it is for the case that the worker is dead.
DEADLINE_SLACK_SECONDS = 10

# Go's os.FileMode bits, as the engine reports them for a path
_MODE_DIR = 1 << 31
_MODE_SPECIAL = (1 << 27) | (1 << 26) | (1 << 25) | (1 << 24) | (1 << 21) | (1 << 19)  # links, devices, pipes, sockets

# The forwarder in whichever language the image speaks. An image with neither has no package manager to serve.
_FORWARDED = f"""
if command -v python3 >/dev/null; then exec python3 -I {TOOLBOX_DIR}/forward.py "$@"; fi
if command -v node >/dev/null; then exec node {TOOLBOX_DIR}/forward.mjs "$@"; fi
shift 3; exec "$@"
"""

P = ParamSpec("P")
R = TypeVar("R")


def guarded(call: Callable[P, R]) -> Callable[P, R]:
    """Turn what the engine or the way to it got wrong into EngineFault."""

    @functools.wraps(call)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except (DockerException, requests.RequestException, OSError) as fault:
            raise EngineFault(f"{type(fault).__name__}: {fault}") from fault

    return wrapper


@functools.cache
def _api_version() -> str:
    # Asked once per process, not once per client. The engine is not cached: clients must not cross a fork.
    client = docker.APIClient(base_url=settings.DOCKER_HOST, version="auto", timeout=10)
    try:
        return str(client.api_version)
    finally:
        client.close()


def new_client() -> docker.APIClient:
    return docker.APIClient(base_url=settings.DOCKER_HOST, version=_api_version(), timeout=CALL_SECONDS)


class DockerSandbox:
    """See builds.sandbox.contract.Sandbox."""

    @guarded
    def __init__(self) -> None:
        self._client = new_client()

    @guarded
    def image_id(self, tag: str) -> str:
        try:
            image = self._client.inspect_image(tag)
        except ImageNotFound:
            raise ImageMissing(f"the image {tag} is not on this engine") from None
        if image["Config"].get("Volumes"):
            # A VOLUME of the image would be a writable place outside of our limits.
            raise ImageMissing(f"the image {tag} declares volumes and cannot be used")
        return str(image["Id"])

    @guarded
    def open(self, identity: Identity, *, image: str, limits: Limits) -> "DockerWorkspace":
        return DockerWorkspace(self._client, identity, image=image, limits=limits)

    @guarded
    def leftovers(self) -> list[Identity]:
        mark = {"label": f"chef.installation={settings.INSTALLATION}"}
        labels = [c["Labels"] for c in self._client.containers(all=True, filters=mark)]
        labels += [v["Labels"] or {} for v in self._client.volumes(filters=mark)["Volumes"] or []]
        labels += [n["Labels"] or {} for n in self._client.networks(filters=mark)]
        return sorted({_identity(each) for each in labels if "chef.build" in each}, key=lambda i: (str(i.build), i.fence))

    @guarded
    def remove(self, identity: Identity) -> None:
        remove_all(self._client, identity)


def labels_of(identity: Identity) -> dict[str, str]:
    return {
        "chef.installation": settings.INSTALLATION,
        "chef.build": str(identity.build),
        "chef.attempt": str(identity.fence),
        "chef.fence": str(identity.fence),
    }


def _identity(labels: Mapping[str, str]) -> Identity:
    return Identity(UUID(labels["chef.build"]), int(labels["chef.fence"]))


def remove_all(client: docker.APIClient, identity: Identity) -> None:
    """Remove what carries the attempt's labels, containers first: a volume in use cannot go."""
    mark = {"label": [f"{name}={value}" for name, value in labels_of(identity).items()]}
    for container in client.containers(all=True, filters=mark):
        _remove_container(client, container["Id"])
    for volume in client.volumes(filters=mark)["Volumes"] or []:
        with contextlib.suppress(NotFound):
            client.remove_volume(volume["Name"], force=True)
    for network in client.networks(filters=mark):
        with contextlib.suppress(NotFound):
            client.remove_network(network["Id"])


def _remove_container(client: docker.APIClient, container: str) -> None:
    try:
        client.remove_container(container, v=True, force=True)
    except NotFound:
        pass
    except docker.errors.APIError as fault:
        # 409: somebody else is removing it already; it is gone in a moment.
        if fault.status_code != 409:
            raise


class DockerWorkspace:
    """See builds.sandbox.contract.Workspace.

    A holder container that never starts mounts the volume: through it files go in and outputs come out.
    """

    def __init__(self, client: docker.APIClient, identity: Identity, *, image: str, limits: Limits) -> None:
        self._client = client
        self._identity = identity
        self._image = image
        self._limits = limits
        self._labels = labels_of(identity)
        self._volume = f"chef-{settings.INSTALLATION}-{identity.build}-{identity.fence}"
        client.create_volume(self._volume, labels=self._labels)
        self._holder = self._create_container(["/bin/true"], environment={}, egress_folder=None)

    @guarded
    def put(self, files: Iterable[InputFile]) -> None:
        self._client.put_archive(self._holder, WORKSPACE, tar.workspace_stream(files, uid=UID))

    @guarded
    def is_folder(self, path: str) -> bool:
        parts = path.split("/") if path not in ("", ".") else []
        mode = _MODE_DIR
        for depth in range(len(parts) + 1):
            mode = self._mode("/".join([APP_DIR, *parts[:depth]]))
            if mode & _MODE_SPECIAL:
                raise OutputUnsafe("/".join(parts[:depth]))
        return bool(mode & _MODE_DIR)

    def _mode(self, path: str) -> int:
        try:
            stream, stat = self._client.get_archive(self._holder, path)
        except NotFound:
            raise OutputMissing(path) from None
        stream.close()
        return int(stat["mode"])

    @contextlib.contextmanager
    def take(self, path: str) -> Iterator[Iterator[bytes]]:
        target = APP_DIR if path in ("", ".") else f"{APP_DIR}/{path}"
        try:
            stream, _ = self._client.get_archive(self._holder, target, chunk_size=256 * 1024)
        except NotFound:
            raise OutputMissing(path) from None
        except (DockerException, requests.RequestException) as fault:
            raise EngineFault(str(fault)) from fault
        try:
            yield _engine_stream(stream)
        finally:
            stream.close()

    @guarded
    def remove(self) -> None:
        remove_all(self._client, self._identity)

    @guarded
    def run(self, command: Command, watch: Watch) -> Outcome:
        if not command.with_registries:
            return self._run(command, watch, egress_folder=None, extra={})
        registries = discover()
        folder = settings.BUILD_DIR / f"{self._identity.build.hex[:12]}-{self._identity.fence}"
        with EgressProxy(folder=folder, allowed=registries.hosts) as proxy:
            outcome = self._run(command, watch, egress_folder=folder, extra=_egress_environment(registries.environment))
            outcome.egress = [Egress(e.host, e.port, e.allowed, e.count) for e in proxy.report()]
        return outcome

    def _run(
        self, command: Command, watch: Watch, *, egress_folder: Path | None, extra: Mapping[str, str]
    ) -> Outcome:
        container = self._create_container(
            self._argv(command, watch.seconds_left(), forwarded=egress_folder is not None),
            environment={**_base_environment(), **extra, **command.environment},
            egress_folder=egress_folder,
            folder=command.folder,
        )
        try:
            return _Execution(self._client, container, self._limits, watch).to_the_end()
        finally:
            _remove_container(self._client, container)

    def _argv(self, command: Command, seconds: float, *, forwarded: bool) -> list[str]:
        # The deadline inside outlives a dead worker: nobody may spin for ever.
        argv = ["timeout", "-s", "KILL", f"{seconds + DEADLINE_SLACK_SECONDS:.1f}", "/bin/sh", "-c", command.script]
        if not forwarded:
            return argv
        return ["/bin/sh", "-c", _FORWARDED, "forward", f"{EGRESS_DIR}/proxy.sock", str(PROXY_PORT), "--", *argv]

    def _create_container(
        self,
        argv: list[str],
        *,
        environment: Mapping[str, str],
        egress_folder: Path | None,
        folder: str = "",
    ) -> str:
        mounts = [docker.types.Mount(WORKSPACE, self._volume, type="volume")]
        if egress_folder:
            # The one way out of a container without a network: a socket whose other end only speaks to registries.
            mounts.append(docker.types.Mount(EGRESS_DIR, str(egress_folder), type="bind", read_only=True))
        created = self._client.create_container(
            self._image,  # by id: a tag could have moved
            # ENTRYPOINT and CMD of the image are replaced, so that nothing but our argv runs.
            entrypoint=argv,
            command=[],
            user=f"{UID}:{UID}",
            environment=dict(environment),
            working_dir=f"{APP_DIR}/{folder}".rstrip("/") if environment else "/",
            labels=self._labels,
            healthcheck={"test": ["NONE"]},  # the image's own would run beside the build
            hostname="build",
            network_disabled=True,
            host_config=self._host_config(mounts),
        )
        container = str(created["Id"])
        try:
            self._verify(container)
        except EngineFault:
            _remove_container(self._client, container)
            raise
        return container

    def _host_config(self, mounts: list[Any]) -> Any:
        limits = self._limits
        return self._client.create_host_config(
            mounts=mounts,
            network_mode="none",  # no interface but loopback: no host, no neighbour, no DNS
            read_only=True,  # nothing outside of the workspace and /tmp can be changed
            tmpfs={"/tmp": "rw,nosuid,nodev,size=64m,mode=1777"},  # small and sized: it counts as memory
            cap_drop=["ALL"],  # root's powers are not even there to be regained
            security_opt=["no-new-privileges"],  # a setuid binary gains nothing
            mem_limit=limits.memory_bytes,
            memswap_limit=limits.memory_bytes,  # the same number: no swap beyond memory
            nano_cpus=int(limits.cpus * 1e9),
            pids_limit=limits.pids,  # a fork bomb ends here
            ulimits=[
                docker.types.Ulimit(name="nofile", soft=8_192, hard=8_192),
                docker.types.Ulimit(name="core", soft=0, hard=0),  # no memory images in the workspace
                docker.types.Ulimit(name="fsize", soft=limits.disk_bytes, hard=limits.disk_bytes),
            ],
            shm_size=16 * 1024**2,
            ipc_mode="private",
            cgroupns="private",  # the host's cgroup paths stay out of sight
            init=True,  # reaps what the build orphans, so that zombies do not eat the PID limit
            oom_score_adj=500,  # when the host is short, builds go before services
            log_config=docker.types.LogConfig(type="none"),  # we read the stream; nothing piles up in the engine
            runtime=settings.DOCKER_RUNTIME or None,
        )

    def _verify(self, container: str) -> None:
        """Fail closed: an engine that ignored a limit (they warn, and start anyway) must not run the build."""
        host = self._client.inspect_container(container)["HostConfig"]
        taken = {
            "Memory": host["Memory"] == self._limits.memory_bytes,
            "MemorySwap": host["MemorySwap"] == self._limits.memory_bytes,
            "NanoCpus": host["NanoCpus"] == int(self._limits.cpus * 1e9),
            "PidsLimit": host["PidsLimit"] == self._limits.pids,
            "ReadonlyRootfs": host["ReadonlyRootfs"] is True,
            "NetworkMode": host["NetworkMode"] == "none",
            "CapDrop": host["CapDrop"] == ["ALL"] and not host["CapAdd"],
            "SecurityOpt": "no-new-privileges" in (host["SecurityOpt"] or []),
            "Privileged": host["Privileged"] is False,
        }
        if ignored := [name for name, held in taken.items() if not held]:
            raise EngineFault(f"the engine did not take these limits: {', '.join(ignored)}")


class _Execution:
    """One started container, watched until it has ended or had to be killed."""

    def __init__(self, client: docker.APIClient, container: str, limits: Limits, watch: Watch) -> None:
        self._client = client
        self._container = container
        self._watch = watch
        self._outcome = Outcome()
        self._meter = Meter(client, container, pids_limit=limits.pids)
        self._output_fault: BaseException | None = None
        self._exited = threading.Event()
        self._exit_code: int | None = None

    def to_the_end(self) -> Outcome:
        # Attached before the start, so that the first line is not missed.
        output = self._client.attach(self._container, stdout=True, stderr=True, stream=True, demux=True)
        reader = threading.Thread(target=self._read, args=(output,), name="output", daemon=True)
        waiter = threading.Thread(target=self._wait, name="exit", daemon=True)
        reader.start()
        self._client.start(self._container)
        waiter.start()
        with self._meter:
            self._until_ended()
        reader.join(timeout=10)
        self._judge()
        if self._output_fault:
            raise self._output_fault
        return self._outcome

    def _until_ended(self) -> None:
        while not self._exited.wait(STOP_POLL_SECONDS):
            if self._watch.must_stop() or self._output_fault:
                self._outcome.stopped = True
            elif self._watch.seconds_left() <= 0:
                self._outcome.timed_out = True
            elif self._meter.is_out_of_processes:
                self._outcome.processes_exhausted = True
            else:
                continue
            self._kill()
            return

    def _kill(self) -> None:
        # No SIGTERM first: what runs here is not trusted to end by itself.
        with contextlib.suppress(docker.errors.APIError):
            self._client.kill(self._container, "SIGKILL")
        if not self._exited.wait(CALL_SECONDS):
            raise EngineFault("the engine did not end a killed container")

    def _read(self, output: Iterator[tuple[bytes | None, bytes | None]]) -> None:
        try:
            for stdout, stderr in output:
                if stdout:
                    self._watch.on_output("stdout", stdout)
                if stderr:
                    self._watch.on_output("stderr", stderr)
        except BaseException as fault:  # kept for the runner's thread: a lost lease or a database fault
            self._output_fault = fault

    def _wait(self) -> None:
        while not self._exited.is_set():
            try:
                self._exit_code = self._client.wait(self._container, timeout=3600)["StatusCode"]
                self._exited.set()
            except requests.exceptions.ReadTimeout:
                continue
            except (DockerException, requests.RequestException) as fault:
                self._output_fault = self._output_fault or EngineFault(str(fault))
                self._exited.set()

    def _judge(self) -> None:
        state = self._client.inspect_container(self._container)["State"]
        outcome = self._outcome
        outcome.out_of_memory = bool(state["OOMKilled"]) and not (outcome.timed_out or outcome.stopped)
        outcome.peak_memory_bytes = self._meter.peak_memory_bytes
        outcome.cpu_seconds = self._meter.cpu_seconds
        if not (outcome.timed_out or outcome.stopped or outcome.processes_exhausted):
            outcome.exit_code = self._exit_code


def _engine_stream(stream: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from stream
    except (DockerException, requests.RequestException, OSError) as fault:
        raise EngineFault(str(fault)) from fault


def _base_environment() -> dict[str, str]:
    tools = f"{WORKSPACE}/tools"
    return {
        "HOME": f"{WORKSPACE}/home",
        "TMPDIR": f"{WORKSPACE}/tmp",  # on disk: what is in /tmp counts as memory
        "PATH": f"{tools}/node_modules/.bin:{tools}/python/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "CI": "true",  # tools neither ask nor draw
        "npm_config_update_notifier": "false",
        "npm_config_fund": "false",
        "npm_config_audit": "false",
        "PYTHONUSERBASE": f"{tools}/python",
        "PIP_USER": "1",
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _egress_environment(registries: Mapping[str, str]) -> dict[str, str]:
    proxy = f"http://127.0.0.1:{PROXY_PORT}"
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    environment = {**registries, **dict.fromkeys(names, proxy), "no_proxy": "", "NO_PROXY": ""}
    if settings.CA_BUNDLE:
        bundle = f"{TOOLBOX_DIR}/ca.pem"
        names = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "PIP_CERT", "REQUESTS_CA_BUNDLE", "npm_config_cafile")
        environment |= dict.fromkeys(names, bundle)
    return environment


def wait_for_engine(seconds: float) -> bool:
    """Whether the engine answers within that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(DockerException, requests.RequestException):
            client = docker.APIClient(base_url=settings.DOCKER_HOST, version="auto", timeout=3)
            try:
                return bool(client.ping())
            finally:
                client.close()
        time.sleep(0.3)
    return False
