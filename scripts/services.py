"""Redis, Docker Engine and PostgreSQL: whether one answers, and one of our own where none does."""

import contextlib
import http.client
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scripts.place import DEFAULT_DOCKER_HOST, Place
from scripts.processes import Fault, Service, free_port, until

_ANSWER_SECONDS = 2.0
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_SYSTEMD = Path("/run/systemd/system")
# Services that all others need end last.
STAGE = 0


# --- Redis -----------------------------------------------------------------------------------------------------------


def redis_answers(url: str) -> bool:
    """Whether a Redis, whatever its password, is at the URL."""
    try:
        with _connect_redis(url) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            if urlsplit(url).scheme == "rediss":
                return True  # somebody listens; whether it speaks TLS as it should, /health tells
            connection.sendall(b"PING\r\n")
            return connection.recv(64)[:1] in (b"+", b"-")  # PONG, or that a password is missing
    except OSError:
        return False


def _connect_redis(url: str) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_ANSWER_SECONDS)
        connection.connect(unquote(parts.path))
        return connection
    return socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=_ANSWER_SECONDS)


def start_redis(place: Place, *, keep: bool = True) -> tuple[Service, str]:
    """A Redis of our own on a free port, and its URL. `keep`: its data survives. Raises Fault."""
    folder = place.data / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    password, port = secrets.token_hex(24), free_port()
    # Jobs are pickles: whoever could add one would run code as us. So a password, and not on the command line.
    lines = ["bind 127.0.0.1", f"port {port}", f"requirepass {password}", 'save ""', f"appendonly {_yes(keep)}"]
    settings = folder / "redis.conf"
    _write_secret(settings, "\n".join(lines) + "\n")
    service = Service(
        "redis",
        [shutil.which("redis-server") or "redis-server", settings.name],
        folder=folder,
        log=place.log("redis"),
        environment=os.environ,
        stage=STAGE,
    )
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    _start(service, lambda: redis_answers(url), seconds=20)
    return service, url


def is_on_this_machine(redis_url: str) -> bool:
    parts = urlsplit(redis_url)
    return parts.scheme == "redis" and (parts.hostname or "127.0.0.1") in _LOOPBACK


# --- Docker Engine ---------------------------------------------------------------------------------------------------


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def docker_answers(host: str) -> bool:
    """Whether an engine answers at DOCKER_HOST. Raises Fault when it is there and we may not speak to it."""
    parts = urlsplit(host)
    try:
        if parts.scheme != "unix":
            # Over TCP or SSH, the settings of the client decide; that somebody listens must do here.
            socket.create_connection((parts.hostname or "", parts.port or 2375), timeout=_ANSWER_SECONDS).close()
            return True
        with contextlib.closing(_UnixConnection(parts.path)) as engine:
            engine.request("GET", "/_ping")
            return engine.getresponse().status == http.client.OK
    except PermissionError as fault:
        hint = "Run this as root, or have your user added to the group docker and sign in again."
        raise Fault(f"You may not use the Docker Engine at {host}. {hint}") from fault
    except (OSError, http.client.HTTPException):
        return False


def start_docker(place: Place) -> Service:
    """The machine's engine for the default address, one of our own for another. Raises Fault."""
    host = place.docker_host
    if os.geteuid() != 0 or urlsplit(host).scheme != "unix":
        raise Fault(f"No Docker Engine answers at {host}. Start it there, or set DOCKER_HOST to where it is.")
    if host == DEFAULT_DOCKER_HOST and _SYSTEMD.exists():
        return _start_unit(place)
    options = [] if host == DEFAULT_DOCKER_HOST else _apart(place)
    plain = _dockerd(place, host, options)
    try:
        _start(plain, lambda: docker_answers(host), seconds=40)
        return plain
    except Fault:
        # Some machines let nobody set up a bridge. Builds need none: they have no network of Docker's.
        bare = _dockerd(place, host, [*options, "--bridge=none", "--iptables=false", "--ip6tables=false"])
        _start(bare, lambda: docker_answers(host), seconds=40)
        return bare


def _dockerd(place: Place, host: str, options: list[str]) -> Service:
    # Debian's, and not another one that is first on PATH: it has to fit the containerd and runc beside it.
    debians = "/usr/sbin/dockerd"
    argv = [debians if os.access(debians, os.X_OK) else shutil.which("dockerd") or debians, f"--host={host}", *options]
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    environment.pop("DOCKER_HOST", None)
    return Service("docker", argv, log=place.log("docker"), environment=environment, stage=STAGE, grace=30)


def _apart(place: Place) -> list[str]:
    """Options that keep a second engine out of the way of the machine's own."""
    folder = place.data / "docker"
    folder.mkdir(parents=True, exist_ok=True)
    run = Path("/run") / f"{place.environment['CHEF_INSTALLATION']}-docker"  # sockets again: a short path
    return [f"--data-root={folder}", f"--exec-root={run}", f"--pidfile={run}.pid", "--bridge=none", "--iptables=false"]


class _Unit(Service):
    """The engine as a unit of systemd, which we start and stop and nothing else."""

    def start(self) -> None:
        self._systemctl("start", "docker.service")

    @property
    def is_running(self) -> bool:
        return False  # systemd restarts what dies, and stopping takes as long as it takes

    @property
    def exit_code(self) -> int | None:
        return None

    def ask_to_stop(self) -> None:
        self._systemctl("stop", "docker.socket", "docker.service")

    def _systemctl(self, verb: str, *units: str) -> None:
        subprocess.run(["systemctl", verb, *units], check=False, stdin=subprocess.DEVNULL)


def _start_unit(place: Place) -> Service:
    unit = _Unit("docker", [], log=place.log("docker"), environment=os.environ, stage=STAGE)
    unit.start()
    if not until(lambda: docker_answers(place.docker_host), seconds=40):
        unit.ask_to_stop()
        raise Fault("systemd started docker.service, and no engine answers. See `journalctl --unit docker`.")
    return unit


# --- PostgreSQL, for the tests ---------------------------------------------------------------------------------------


def postgres_programs() -> Path | None:
    """The folder with initdb and postgres: Debian's newest, else where PATH has them."""
    debians = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = str(debians[-1]) if debians else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def start_postgres(folder: Path, *, log: Path) -> tuple[Service, str]:
    """A new cluster in `folder`, which must not exist, on a free port; and the URL of a database in it. Raises Fault.

    The cluster is for tests: it does not survive a power cut.
    """
    programs = postgres_programs()
    if programs is None:
        raise Fault("PostgreSQL is missing: no initdb is on PATH or in Debian's place.")
    user = _other_user()
    password, port = secrets.token_hex(16), free_port()
    folder.mkdir(parents=True)
    if user:
        shutil.chown(folder, user)
    _create_cluster(programs, folder, user, password)
    fast = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300"]
    here = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"]
    argv = [str(programs / "postgres"), "-D", str(folder / "data")]
    argv += [part for setting in fast + here for part in ("-c", setting)]
    service = Service(
        "postgres",
        argv,
        log=log,
        environment=_postgres_environment(),
        folder=folder,
        user=user,
        stage=STAGE,
        stop_signal=signal.SIGINT,  # PostgreSQL's "fast": it does not wait for its clients to leave
    )
    _start(service, lambda: _listens(port), seconds=30)
    return service, f"postgres://postgres:{password}@127.0.0.1:{port}/postgres"


def _create_cluster(programs: Path, folder: Path, user: str | None, password: str) -> None:
    secret = folder / "password"
    _write_secret(secret, password)
    if user:
        shutil.chown(secret, user)
    argv = [str(programs / "initdb"), "--pgdata", str(folder / "data"), "--username=postgres", "--no-sync"]
    argv += ["--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--locale=C"]
    done = subprocess.run(
        argv,
        cwd=folder,
        env=_postgres_environment(),
        user=user,
        group=user,
        extra_groups=[] if user else None,
        capture_output=True,
        text=True,
    )
    secret.unlink()
    if done.returncode != 0:
        raise Fault(f"initdb could not make a cluster in {folder}: {done.stderr.strip()}")


def _other_user() -> str | None:
    """PostgreSQL refuses to run as root; its package brings a user."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise Fault("PostgreSQL does not run as root, and this machine has no user `postgres`.") from None


def _postgres_environment() -> Mapping[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS):
        return True
    return False


# --- What they share -------------------------------------------------------------------------------------------------


def _start(service: Service, answers: Callable[[], bool], *, seconds: float) -> None:
    """Start a service and wait until it answers. Raises Fault, with its last words, when it does not."""
    try:
        service.start()
    except OSError as fault:
        raise Fault(f"{service.name} cannot be started: {fault}.") from fault
    until(lambda: answers() or not service.is_running, seconds=seconds)
    if service.is_running and answers():
        return
    service.stop()
    raise Fault(f"{service.name} was started and does not answer. {service.log} ends:\n{service.last_words()}")


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)


def _yes(wish: bool) -> str:
    return "yes" if wish else "no"
