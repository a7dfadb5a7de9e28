"""Creates containers: the flags with a reason for each, the environment, and a check that limits took effect."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from builds.sandbox.chef_init import NAME, first_process
from builds.sandbox.contract import (
    APP_DIR,
    SYSTEM_PATH,
    TOOLBOX_DIR,
    WORKSPACE,
    Command,
    Limits,
    Registries,
    SandboxError,
)
from builds.sandbox.engine import APIClient, APIError, LogConfig, Mount, NotFound, Ulimit

EGRESS_DIR = "/chef/egress"
PROXY_PORT = 3128
UID = 10001  # fixed and unprivileged; not used by anything on the host
# Added to the worker's own deadline: this one counts only if the worker is dead.
DEADLINE_SLACK_SECONDS = 10


@dataclass(frozen=True)
class Blueprint:
    """What the containers of one attempt have in common."""

    image: str  # by id: a tag may have moved
    volume: str
    labels: Mapping[str, str]
    limits: Limits


def create(
    client: APIClient,
    blueprint: Blueprint,
    argv: list[str],
    *,
    environment: Mapping[str, str],
    folder: str = "/",
    egress_folder: Path | None = None,
) -> str:
    """Create a container without starting it, and return its id. Raises SandboxError if a limit is not in effect."""
    created = client.create_container(
        blueprint.image,
        # The image's ENTRYPOINT and CMD are replaced, so that only our argv runs.
        entrypoint=argv,
        command=[],
        user=f"{UID}:{UID}",
        environment=dict(environment),
        working_dir=folder,
        labels=dict(blueprint.labels),
        healthcheck={"test": ["NONE"]},  # the image's own would run during the build
        hostname="build",
        host_config=_host_config(client, blueprint.limits, _mounts(blueprint.volume, egress_folder)),
    )
    container = str(created["Id"])
    try:
        _verify(client, container, blueprint.limits)
    except SandboxError:
        remove(client, container)
        raise
    return container


def remove(client: APIClient, container: str) -> None:
    """Kill and remove a container. Idempotent."""
    with contextlib.suppress(NotFound):
        try:
            client.remove_container(container, v=True, force=True)
        except APIError as fault:
            # 409: it is already being removed.
            if fault.status_code != 409:
                raise


def argv_of(command: Command, seconds: float, *, forwarded: bool) -> list[str]:
    """The argv of a command with its own deadline, and with the forwarder if it may reach registries."""
    # The deadline inside also applies if the worker is dead, so that no command runs forever.
    return shell_argv(command.script, max(seconds, 0) + DEADLINE_SLACK_SECONDS, forwarded=forwarded)


def shell_argv(script: str, seconds: float, *, forwarded: bool = False) -> list[str]:
    """The argv of a shell script as the first process's command. Needs the toolbox in the workspace."""
    forward = ["--forward", f"{EGRESS_DIR}/proxy.sock:{PROXY_PORT}"] if forwarded else []
    # Absolute paths: programs that an installation put on the PATH must not be run by Chef itself.
    return [f"{TOOLBOX_DIR}/{NAME}", "--deadline", f"{seconds:.1f}", *forward, "--", "/bin/sh", "-c", script]


def folder_of(command: Command) -> str:
    return f"{APP_DIR}/{command.folder}".rstrip("/")


def _mounts(volume: str, egress_folder: Path | None) -> list[Any]:
    mounts = [Mount(WORKSPACE, volume, type="volume")]
    if egress_folder:
        # The only way out of a container without a network: a socket to a proxy that only reaches registries.
        mounts.append(Mount(EGRESS_DIR, str(egress_folder), type="bind", read_only=True))
    return mounts


def _host_config(client: APIClient, limits: Limits, mounts: list[Any]) -> Any:
    return client.create_host_config(
        mounts=mounts,
        network_mode="none",  # only loopback: no host, no neighbours, no DNS
        read_only=True,  # only the workspace and /tmp are writable
        tmpfs={"/tmp": "rw,nosuid,nodev,size=64m,mode=1777"},  # noqa: S108  (inside; small and sized: it counts as memory)
        cap_drop=["ALL"],  # there are no root privileges to regain
        security_opt=["no-new-privileges"],  # a setuid binary gains nothing
        mem_limit=limits.memory_bytes,
        memswap_limit=limits.memory_bytes,  # the same value: no swap on top of memory
        nano_cpus=int(limits.cpus * 1e9),
        pids_limit=limits.pids,  # a fork bomb ends here
        ulimits=[
            Ulimit(name="nofile", soft=8_192, hard=8_192),
            Ulimit(name="core", soft=0, hard=0),  # no core dumps in the workspace
            Ulimit(name="fsize", soft=limits.disk_bytes, hard=limits.disk_bytes),
        ],
        shm_size=16 * 1024**2,
        ipc_mode="private",
        cgroupns="private",  # hides the host's cgroup paths
        init=not first_process().reaps,  # orphans must be reaped, or zombies use up the PID limit
        oom_score_adj=500,  # if the host runs out of memory, builds are killed before services
        log_config=LogConfig(type="none"),  # we read the stream; the engine stores nothing
        runtime=settings.DOCKER_RUNTIME or None,
    )


def _verify(client: APIClient, container: str, limits: Limits) -> None:
    """Fail closed: an engine that ignored a limit (it only warns and starts anyway) must not run the build."""
    host = client.inspect_container(container)["HostConfig"]
    taken = {
        "Memory": host["Memory"] == limits.memory_bytes,
        "MemorySwap": host["MemorySwap"] == limits.memory_bytes,
        "NanoCpus": host["NanoCpus"] == int(limits.cpus * 1e9),
        "PidsLimit": host["PidsLimit"] == limits.pids,
        "ReadonlyRootfs": host["ReadonlyRootfs"] is True,
        "NetworkMode": host["NetworkMode"] == "none",
        "CapDrop": host["CapDrop"] == ["ALL"] and not host["CapAdd"],
        "SecurityOpt": "no-new-privileges" in (host["SecurityOpt"] or []),
        "Privileged": host["Privileged"] is False,
    }
    if ignored := [name for name, held in taken.items() if not held]:
        raise SandboxError(f"the engine ignored these limits: {', '.join(ignored)}")


def base_environment() -> dict[str, str]:
    """The environment of every phase, to which the runtime adds its own."""
    return {
        "HOME": f"{WORKSPACE}/home",
        "TMPDIR": f"{WORKSPACE}/tmp",  # noqa: S108  on disk: what is in /tmp counts as memory
        "PATH": SYSTEM_PATH,
        "LANG": "C.UTF-8",
        "CI": "true",  # tools do not prompt or draw progress bars
    }


def egress_environment(registries: Registries) -> dict[str, str]:
    """The additional environment with which an installation finds and trusts the registries."""
    proxy = f"http://127.0.0.1:{PROXY_PORT}"
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", *registries.proxy_variables)
    environment = {**registries.environment, **dict.fromkeys(names, proxy), "no_proxy": "", "NO_PROXY": ""}
    if settings.CA_BUNDLE:
        environment |= dict.fromkeys(("SSL_CERT_FILE", *registries.ca_variables), f"{TOOLBOX_DIR}/ca.pem")
    return environment
