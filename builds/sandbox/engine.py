"""Access to the Docker engine: the only module that imports its SDK, for the rest of the sandbox."""

import contextlib
import functools
import shutil
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import requests
from django.conf import settings
from docker import APIClient
from docker.auth import get_config_header, resolve_repository_name
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import LogConfig, Mount, Ulimit
from docker.utils import parse_repository_tag

from builds.sandbox.contract import SandboxError

__all__ = [
    "FAULTS",
    "APIClient",
    "APIError",
    "ImageNotFound",
    "LogConfig",
    "Mount",
    "NotFound",
    "Ulimit",
    "api_version",
    "architecture",
    "engine_status",
    "get_config_header",
    "guarded",
    "new_client",
    "parse_repository_tag",
    "resolve_repository_name",
    "wait_for_engine",
]

CALL_SECONDS = 60  # the SDK's time-out for every call

# What the engine, or the connection to it, may raise.
FAULTS = (DockerException, requests.RequestException, OSError)

P = ParamSpec("P")
R = TypeVar("R")


def guarded(call: Callable[P, R]) -> Callable[P, R]:
    """Turn errors of the engine or the connection to it into SandboxError."""

    @functools.wraps(call)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except FAULTS as fault:
            raise SandboxError(f"{type(fault).__name__}: {fault}") from fault

    return wrapper


def api_version() -> str:
    """The engine's API version. Raises one of FAULTS."""
    return _facts()[0]


def architecture() -> str:
    """The engine's processor by Debian's name: `amd64`, `arm64`. Raises one of FAULTS."""
    return _facts()[1]


@functools.cache
def _facts() -> tuple[str, str]:
    # Once per process, not once per client. Clients are not cached, because they must not cross a fork.
    client = APIClient(base_url=settings.DOCKER_HOST, timeout=10)
    try:
        answer = client.version(api_version=False)
    finally:
        client.close()
    return str(answer["ApiVersion"]), str(answer["Arch"])


def new_client() -> APIClient:
    """A client of the engine at DOCKER_HOST. Raises one of FAULTS if it does not respond."""
    client = APIClient(base_url=settings.DOCKER_HOST, version=api_version(), timeout=CALL_SECONDS)
    # Otherwise requests searches the whole environment for a proxy on every call.
    client.trust_env = False
    return client


def engine_status() -> dict[str, Any]:
    """The engine's `version` and running `containers`; `diskFree` and `diskTotal` in bytes of the disk that holds its
    data, where this process can see it. Raises one of FAULTS."""
    client = new_client()
    try:
        info = client.info()
    finally:
        client.close()
    status = {"version": str(info.get("ServerVersion", "")), "containers": int(info.get("ContainersRunning", 0))}
    with contextlib.suppress(OSError):
        disk = shutil.disk_usage(str(info.get("DockerRootDir", "")))
        return status | {"diskFree": disk.free, "diskTotal": disk.total}
    return status


def wait_for_engine(seconds: float) -> bool:
    """Whether the engine responds within that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(*FAULTS):
            client = APIClient(base_url=settings.DOCKER_HOST, version="auto", timeout=3)
            try:
                return bool(client.ping())
            finally:
                client.close()
        time.sleep(0.3)
    return False
