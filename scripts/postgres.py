"""PostgreSQL for the tests: a private cluster."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from scripts.processes import FIRST_STAGE, Service, SetupError, bring_up, free_port, write_secret


def programs_folder() -> Path | None:
    """The folder with initdb and postgres: Debian's newest, else from PATH."""
    debians = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = str(debians[-1]) if debians else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def start(folder: Path, *, log: Path) -> tuple[Service, str]:
    """Start a new cluster in a new `folder` on a free port; with the URL of a database in it. Raises SetupError.

    The cluster is for tests: it does not survive a power cut.
    """
    programs = programs_folder()
    if programs is None:
        raise SetupError("PostgreSQL is missing: there is no initdb on PATH or in Debian's folder.")
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
        environment=_environment(),
        folder=folder,
        user=user,
        stage=FIRST_STAGE,
        stop_signal=signal.SIGINT,  # PostgreSQL's "fast" shutdown: it does not wait for clients to disconnect
    )
    bring_up(service, lambda: _accepts_connections(programs, port), seconds=30)
    return service, f"postgres://postgres:{password}@127.0.0.1:{port}/postgres"


def _create_cluster(programs: Path, folder: Path, user: str | None, password: str) -> None:
    secret = folder / "password"
    write_secret(secret, password)
    if user:
        shutil.chown(secret, user)
    argv = [str(programs / "initdb"), "--pgdata", str(folder / "data"), "--username=postgres", "--no-sync"]
    argv += ["--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--locale=C"]
    done = subprocess.run(
        argv,
        cwd=folder,
        env=_environment(),
        user=user,
        group=user,
        extra_groups=[] if user else None,
        capture_output=True,
        text=True,
    )
    secret.unlink()
    if done.returncode != 0:
        raise SetupError(f"initdb could not make a cluster in {folder}: {done.stderr.strip()}")


def _other_user() -> str | None:
    """PostgreSQL refuses to run as root; its package creates a user."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise SetupError("PostgreSQL does not run as root, and this machine has no user `postgres`.") from None


def _environment() -> Mapping[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}


def _accepts_connections(programs: Path, port: int) -> bool:
    """It listens before it is ready: until then it reports that it is starting up."""
    argv = [str(programs / "pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}"]
    return subprocess.run(argv, env=_environment(), check=False).returncode == 0
