"""`./scripts/start.sh`: set up this machine, start Chef in the foreground, and build the examples as a client would."""

import argparse
import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from scripts import docker_engine, redis_server
from scripts.packages import VENV_PYTHON, set_up
from scripts.place import ROOT, Place, read_env_file
from scripts.processes import Service, SetupError, free_port, is_free, tie_to_parent, write_secret
from scripts.steps import Step, print_seconds, run_together
from scripts.supervisor import StopSignalError, Supervisor

EXAMPLES = ("react-ts-vite", "python-package")
PROMPT = "Build a simple todo app with React"
_PREPARED_FILE = "quickstart.env"
_READY_SECONDS = 60.0
_PORTS_TRIED = 50
# What the workers need after their grace period to hand back, clean up and exit.
_AFTER_GRACE_SECONDS = 15.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="start.sh", description=__doc__)
    parser.add_argument("--once", action="store_true", help="build the examples, then stop everything and exit")
    parser.add_argument("--no-example", action="store_true", help="start without building anything")
    options = parser.parse_args()
    began = time.monotonic()
    try:
        place = _without_stale_url(Place.from_environment())
        with _only_one(place), Supervisor(_print) as supervisor:
            return run(place, supervisor, began, once=options.once, example=not options.no_example)
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except StopSignalError as interrupted:
        return 0 if interrupted.args == ("ready",) else 130


def run(place: Place, supervisor: Supervisor, began: float, *, once: bool, example: bool) -> int:
    """All steps in order; returns the exit code. The supervisor stops everything."""
    set_up("start", place)
    _make_secret_key(place)
    place = _with_services(place, supervisor)
    port = _choose_port(place)
    place = place.with_environment(PORT=str(port))
    url = f"http://127.0.0.1:{port}"
    is_new = "CHEF_PASSWORD" not in read_env_file(place.data / _PREPARED_FILE)
    run_together(*_preparations(place, url))
    _start_chef(place, supervisor, port)
    is_paused = _wait_until_ready(supervisor, url)
    _welcome(place, time.monotonic() - began, with_password=is_new)
    if is_paused:
        _print(f"\nThe queue is paused, so nothing is built. Staff resume it at {url}/admin/operations/.")
        code = int(example)
    else:
        code = _build_examples(place, supervisor) if example else 0
    if not once:
        _print(f"\nChef keeps running at {url}. Ctrl-C stops it.")
        try:
            supervisor.watch()
        except StopSignalError:
            raise StopSignalError("ready") from None
    return code


# --- Before it starts ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _only_one(place: Place) -> Iterator[None]:
    """Lock the data folder: two installations in it would write the same files."""
    place.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (place.data / "start.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            hint = "Stop it, or set CHEF_DATA_DIR to another folder."
            raise SetupError(f"Chef already runs from {place.data} (process {holder}). {hint}") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _without_stale_url(place: Place) -> Place:
    """A shell that has read quickstart.env has the last start's CHEF_URL, which would end up in new links."""
    known = read_env_file(place.data / _PREPARED_FILE)
    stale = known.get("CHEF_URL") and known["CHEF_URL"] == place.environment.get("CHEF_URL")
    kept = {name: value for name, value in place.environment.items() if not (stale and name == "CHEF_URL")}
    return replace(place, environment=kept)


def _make_secret_key(place: Place) -> None:
    """The secret key, in the data folder, so that sessions survive the next start; chef.settings reads it there."""
    file = place.data / "secret-key"
    if not file.exists():
        write_secret(file, secrets.token_urlsafe(60))


def _with_services(place: Place, supervisor: Supervisor) -> Place:
    """Docker Engine and Redis: used if they answer, otherwise started, and stopped with Chef."""
    started = time.monotonic()
    if not docker_engine.answers(place.docker_host):
        supervisor.adopt(docker_engine.start(place))
        print_seconds(time.monotonic() - started, "Docker Engine started")
    if redis_server.answers(place.redis_url):
        return place
    if not redis_server.is_on_this_machine(place.redis_url):
        raise SetupError(
            f"No Redis answers at {place.redis_address}. Start it there, or unset REDIS_URL and REDIS_HOST."
        )
    started = time.monotonic()
    redis, url = redis_server.start(place)
    supervisor.adopt(redis)
    print_seconds(time.monotonic() - started, "Redis started")
    return place.with_environment(REDIS_URL=url)


def _choose_port(place: Place) -> int:
    if is_free(place.port):
        return place.port
    following = range(place.port + 1, min(place.port + _PORTS_TRIED, 65536))
    port = next((port for port in following if is_free(port)), None) or free_port()
    _print(f"Port {place.port} is taken: using {port}. Set PORT to choose another.")
    return port


def _is_shown(line: str) -> bool:
    """Lines of prepare_runtimes to show: new images, why it takes long, and warnings."""
    shown = (": built", ": pulled", ": found", "No registry can be reached", "chef-init was not compiled")
    return any(words in line for words in shown)


def _preparations(place: Place, url: str) -> list[Step]:
    """The database and the images are independent, so prepare them at the same time."""
    python = str(VENV_PYTHON)
    database = [python, "-m", "scripts.prepare", url]
    images = [python, "manage.py", "prepare_runtimes"]
    return [
        Step("database, static files, user and token", database, place.log("prepare"), place.environment),
        Step("the runtimes' images", images, place.log("images"), place.environment, shows=_is_shown),
    ]


# --- The processes -------------------------------------------------------------------------------------------------


def _start_chef(place: Place, supervisor: Supervisor, port: int) -> None:
    grace = float(place.environment.get("CHEF_SHUTDOWN_GRACE_SECONDS") or 20) + _AFTER_GRACE_SECONDS
    timeout = float(place.environment.get("CHEF_WEBHOOK_TIMEOUT") or 15)
    uvicorn = ["-m", "uvicorn", "chef.asgi:application", "--host", "127.0.0.1", "--port", str(port)]
    uvicorn += ["--http", "builds.sites.ready_answers:ReadyProtocol", "--no-access-log"]
    uvicorn += ["--lifespan", "off", "--timeout-graceful-shutdown", "5"]
    commands: dict[str, tuple[list[str], float]] = {
        "web": (uvicorn, 10),
        "workers": (["manage.py", "run_workers"], grace),
        "generators": (["manage.py", "run_generators"], grace),
        "sender": (["manage.py", "run_deliveries"], timeout + 5),
        "reaper": (["manage.py", "run_reaper"], 10),
    }
    for name, (arguments, seconds) in commands.items():
        # Only the web process may pool connections: workers fork.
        environment = {**place.environment, "CHEF_DB_POOL": "1" if name == "web" else "0"}
        argv = [str(VENV_PYTHON), *arguments]
        supervisor.start(Service(name, argv, log=place.log(name), environment=environment, folder=ROOT, grace=seconds))


def _wait_until_ready(supervisor: Supervisor, url: str) -> bool:
    """Wait until /health reports no problem except a paused queue. Returns whether the queue is paused.

    Raises SetupError with the problem if it persists.
    """
    health: dict[str, Any] = {}

    def is_ready() -> bool:
        nonlocal health
        supervisor.give_up_after(3)
        health = _health(url) or health
        return health.get("status") == "ok" or _is_only_paused(health)

    started = time.monotonic()
    if not supervisor.watch(is_ready, seconds=_READY_SECONDS):
        complaint = json.dumps(health, indent=1)
        raise SetupError(f"Chef did not become ready in {_READY_SECONDS:.0f} s. /health says: {complaint}")
    print_seconds(time.monotonic() - started, "web, workers, generators, sender and reaper")
    return bool(health["checks"]["queue"]["paused"])


def _is_only_paused(health: dict[str, Any]) -> bool:
    checks = health.get("checks") or {}
    works = checks.get("redis") == checks.get("docker") == checks.get("storage") == "ok" and checks["workers"]["alive"]
    return bool(works and checks["queue"]["paused"])


def _health(url: str) -> dict[str, Any] | None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=3) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as unwell:
        with contextlib.suppress(ValueError):
            complaint: dict[str, Any] = json.load(unwell)
            return complaint
    except (OSError, ValueError):
        pass
    return None


# --- What the user sees --------------------------------------------------------------------------------------------


def _print(text: str) -> None:
    print(text, flush=True)


def _welcome(place: Place, seconds: float, *, with_password: bool) -> None:
    file = place.data / _PREPARED_FILE
    known = read_env_file(file)
    password = known["CHEF_PASSWORD"] if with_password else f"in {file}"
    _print(
        f"\nChef is ready after {seconds:.1f} s: {known['CHEF_URL']}\n"
        f"  web login  {known['CHEF_USER']}, password {password}\n"
        f"  API token  in {file}; read it into your shell:  . {quote(str(file))}\n"
        f"  logs       {place.data / 'log'}"
    )


def _build_examples(place: Place, supervisor: Supervisor) -> int:
    """Run the example client on the examples while supervising the services. Returns its exit code."""
    known = read_env_file(place.data / _PREPARED_FILE)
    environment = {**place.environment, "CHEF_URL": known["CHEF_URL"], "CHEF_TOKEN": known["CHEF_TOKEN"]}
    argv = [str(VENV_PYTHON), "-m", "scripts.example", "--prompt", PROMPT]
    argv += [str(Path("examples") / name) for name in EXAMPLES]
    client = subprocess.Popen(argv, env=environment, cwd=ROOT, preexec_fn=tie_to_parent(signal.SIGTERM))
    try:
        supervisor.watch(lambda: client.poll() is not None)
    finally:
        client.terminate()
        client.wait()
    if client.returncode != 0:
        _print("Not all examples were built: the reason is above; the workers' log may have more.")
    return client.returncode


if __name__ == "__main__":
    sys.exit(main())
