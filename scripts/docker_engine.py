"""Docker Engine: whether one answers, and starting the machine's or a private one if none does."""

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from scripts.place import DEFAULT_DOCKER_HOST, Place
from scripts.processes import FIRST_STAGE, Service, SetupError, bring_up, until

_ANSWER_SECONDS = 2.0
_SYSTEMD = Path("/run/systemd/system")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def answers(host: str) -> bool:
    """Whether an engine answers at DOCKER_HOST. Raises SetupError if it runs but access is denied."""
    parts = urlsplit(host)
    try:
        if parts.scheme != "unix":
            # Over TCP or SSH, access depends on the client's settings: only check that a server listens.
            socket.create_connection((parts.hostname or "", parts.port or 2375), timeout=_ANSWER_SECONDS).close()
            return True
        with contextlib.closing(_UnixConnection(parts.path)) as engine:
            engine.request("GET", "/_ping")
            return engine.getresponse().status == http.client.OK
    except PermissionError as error:
        hint = "Run this as root, or add your user to the group docker and sign in again."
        raise SetupError(f"You may not use the Docker Engine at {host}. {hint}") from error
    except (OSError, http.client.HTTPException):
        return False


def start(place: Place) -> Service:
    """Start the machine's engine for the default address, a private one for another. Raises SetupError."""
    host = place.docker_host
    if os.geteuid() != 0 or urlsplit(host).scheme != "unix":
        raise SetupError(f"No Docker Engine answers at {host}. Start it there, or set DOCKER_HOST to where it is.")
    if host == DEFAULT_DOCKER_HOST and _SYSTEMD.exists():
        return _start_unit(place)
    options = [] if host == DEFAULT_DOCKER_HOST else _private_options(place)
    plain = _dockerd(place, host, options)
    try:
        bring_up(plain, lambda: answers(host), seconds=40)
        return plain
    except SetupError:
        # Some machines do not allow setting up a bridge. Builds need none: they do not use Docker's networks.
        bare = _dockerd(place, host, [*options, "--bridge=none", "--iptables=false", "--ip6tables=false"])
        bring_up(bare, lambda: answers(host), seconds=40)
        return bare


def _dockerd(place: Place, host: str, options: list[str]) -> Service:
    # Debian's, not another one that comes first on PATH: it must match the containerd and runc beside it.
    debians = "/usr/sbin/dockerd"
    argv = [debians if os.access(debians, os.X_OK) else shutil.which("dockerd") or debians, f"--host={host}", *options]
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    environment.pop("DOCKER_HOST", None)
    return Service("docker", argv, log=place.log("docker"), environment=environment, stage=FIRST_STAGE, grace=30)


def _private_options(place: Place) -> list[str]:
    """Options that keep a second engine separate from the machine's own."""
    folder = place.data / "docker"
    folder.mkdir(parents=True, exist_ok=True)
    run = Path("/run") / f"{place.environment['CHEF_INSTALLATION']}-docker"  # for sockets: a short path
    return [f"--data-root={folder}", f"--exec-root={run}", f"--pidfile={run}.pid", "--bridge=none", "--iptables=false"]


class _Unit(Service):
    """The engine as a systemd unit, which is only started and stopped here."""

    def start(self) -> None:
        self._systemctl("start", "docker.service")

    @property
    def is_running(self) -> bool:
        return False  # systemd restarts it, and stopping has no time limit

    @property
    def exit_code(self) -> int | None:
        return None

    def ask_to_stop(self) -> None:
        self._systemctl("stop", "docker.socket", "docker.service")

    def _systemctl(self, verb: str, *units: str) -> None:
        subprocess.run(["systemctl", verb, *units], check=False, stdin=subprocess.DEVNULL)


def _start_unit(place: Place) -> Service:
    unit = _Unit("docker", [], log=place.log("docker"), environment=os.environ, stage=FIRST_STAGE)
    unit.start()
    if not until(lambda: answers(place.docker_host), seconds=40):
        unit.ask_to_stop()
        raise SetupError("systemd started docker.service, but no engine answers. See `journalctl --unit docker`.")
    return unit
