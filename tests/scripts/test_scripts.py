"""Parts of the start and test scripts, with real processes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from scripts import docker_engine, packages, postgres, redis_server
from scripts.packages import missing_packages
from scripts.place import ROOT, Place, read_env_file
from scripts.processes import Service, SetupError, free_port, is_free, stop_together, until
from scripts.supervisor import Supervisor

pytestmark = [pytest.mark.once, pytest.mark.slow]

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
# Prints that it is ready, then ignores SIGTERM.
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)",
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place whose environment names no Redis, Docker or installation."""
    services_settings = ("REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "DOCKER_HOST")
    for name in (*services_settings, "BUILD_DIR", "CHEF_INSTALLATION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CHEF_DATA_DIR", str(tmp_path))
    return Place.from_environment()


@pytest.fixture
def restored_signals() -> Iterator[None]:
    """Restore the signal handlers that a supervisor replaces in the tests' process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def service(place: Place, argv: list[str], name: str = "sleeper", **options: float) -> Service:
    return Service(name, argv, log=place.log(name), environment=os.environ, grace=options.get("grace", 10.0))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # a zombie has ended and waits for its parent


def test_env_example_lists_every_setting() -> None:
    settings = set(re.findall(r'\benv(?:_\w+)?\(\s*"([A-Z_0-9]+)"', (ROOT / "chef/settings.py").read_text()))
    compose = set(re.findall(r"\$\{([A-Z_0-9]+)", (ROOT / "docker-compose.yml").read_text()))

    listed = set(read_env_file(ROOT / ".env.example", commented=True))

    assert settings <= listed
    assert listed <= settings | compose


def test_env_file_yields_only_assignments(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# PORT=1\nPORT=2\nexport NAME='a b'\nQUERY=a=b\nnot an assignment\n")

    found = read_env_file(file)

    assert found == {"PORT": "2", "NAME": "a b", "QUERY": "a=b"}


def test_deep_data_folder_gets_a_short_build_folder(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHEF_DATA_DIR", f"/{'deep/' * 30}")

    deep = Place.from_environment()

    assert len(deep.environment["BUILD_DIR"]) < 75
    assert deep.environment["CHEF_INSTALLATION"] != place.environment["CHEF_INSTALLATION"]


def test_certificates_are_passed_to_each_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    for name in ("PIP_CERT", "NODE_EXTRA_CA_CERTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", os.path.relpath(bundle))

    environment = Place.from_environment().environment

    assert {environment[name] for name in ("SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS")} == {str(bundle)}


def test_missing_certificates_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")

    with pytest.raises(SetupError, match=r"SSL_CERT_FILE=/nowhere/ca\.pem is not a file"):
        Place.from_environment()


@pytest.mark.docker
@pytest.mark.redis
@pytest.mark.postgres
@pytest.mark.browser
def test_no_package_is_missing_while_tests_run(place: Place) -> None:
    missing = missing_packages("tests", place.with_environment(DOCKER_HOST=os.environ.get("DOCKER_HOST", "")))

    assert missing == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("purpose", "is_root", "is_missing"), [("tests", False, True), ("start", True, True), ("start", False, False)]
)
def test_compiler_is_required_only_if_it_can_be_installed(
    place: Place, monkeypatch: pytest.MonkeyPatch, purpose: str, is_root: bool, is_missing: bool
) -> None:
    monkeypatch.setattr(packages, "program", lambda name: None if name == "gcc" else f"/usr/bin/{name}")
    monkeypatch.setattr(packages, "_is_root_on_debian", lambda: is_root)

    assert ("gcc" in missing_packages(purpose, place)) == is_missing


@pytest.mark.parametrize(
    ("body", "code"), [("pass", 0), ("pytest.skip('no Docker')", 1), ("pytest.xfail('some day')", 1)]
)
def test_run_with_a_skipped_test_fails(tmp_path: Path, body: str, code: int) -> None:
    (tmp_path / "test_it.py").write_text(f"import pytest\ndef test_it(): {body}\n")
    argv = [sys.executable, "-m", "pytest", "-p", "scripts.no_skips", "-p", "no:django", f"--rootdir={tmp_path}"]

    done = subprocess.run([*argv, "-c", os.devnull, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == code, done.stdout
    assert ("every test has to run" in done.stdout) == (code == 1)


def test_dead_service_is_restarted(place: Place, restored_signals: None) -> None:
    messages: list[str] = []
    sleeper = service(place, SLEEP)

    with Supervisor(messages.append) as supervisor:
        supervisor.start(sleeper)
        first = sleeper.pid
        os.kill(first or 0, signal.SIGKILL)
        is_restarted = supervisor.watch(lambda: sleeper.is_running and sleeper.pid != first, seconds=10)

    assert is_restarted
    assert len(messages) == 1
    assert "sleeper ended (by signal 9) and will be restarted in 1 s" in messages[0]
    assert not sleeper.is_running


def test_service_that_keeps_failing_is_given_up_with_its_last_output(place: Place, restored_signals: None) -> None:
    messages: list[str] = []
    broken = service(place, [sys.executable, "-c", "raise SystemExit('no such setting')"])

    with Supervisor(messages.append) as supervisor:
        supervisor.start(broken)
        assert supervisor.watch(lambda: bool(messages), seconds=10)

        with pytest.raises(SetupError, match="no such setting"):
            supervisor.give_up_after(1)


def test_stubborn_service_is_killed_after_its_grace_period(place: Place) -> None:
    stubborn = service(place, STUBBORN, grace=0.5)
    stubborn.start()
    assert until(lambda: "ready" in stubborn.last_output(), seconds=10)

    stop_together([stubborn])

    assert stubborn.exit_code == -signal.SIGKILL


def test_services_end_when_their_supervisor_is_killed(place: Place) -> None:
    program = (
        "import sys, time; from pathlib import Path; from scripts.processes import Service\n"
        f"service = Service('sleeper', {SLEEP!r}, log=Path({str(place.log('sleeper'))!r}), environment={{}})\n"
        "service.start(); print(service.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        sleeper = int(parent.stdout.readline())

        parent.kill()

    assert until(lambda: not is_alive(sleeper), seconds=10)


@pytest.mark.redis
def test_own_redis_requires_its_password_and_ends_when_stopped(place: Place) -> None:
    server, url = redis_server.start(place)
    try:
        with redis.Redis.from_url(url) as client, redis.Redis.from_url(re.sub(r"//.*@", "//", url)) as anonymous:
            assert client.ping()
            with pytest.raises(redis.exceptions.AuthenticationError):
                anonymous.ping()
    finally:
        server.stop()

    assert not redis_server.answers(url)
    assert (place.data / "redis/redis.conf").stat().st_mode & 0o077 == 0


@pytest.mark.redis
def test_own_redis_keeps_its_data_for_the_next_start(place: Place) -> None:
    server, url = redis_server.start(place)
    with redis.Redis.from_url(url) as client:
        client.set("key", "value")
    server.stop()

    server, url = redis_server.start(place)
    try:
        with redis.Redis.from_url(url) as client:
            kept = client.get("key")
    finally:
        server.stop()

    assert kept == b"value"


@pytest.mark.postgres
def test_own_postgres_answers_and_ends_when_stopped(place: Place, short_folder: Path) -> None:
    short_folder.chmod(0o711)
    server, url = postgres.start(short_folder / "postgres", log=place.log("postgres"))
    try:
        with psycopg.connect(url) as connection:
            answer = connection.execute("SELECT current_user").fetchone()
    finally:
        server.stop()

    assert answer == ("postgres",)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url).close()


def test_silent_port_is_neither_redis_nor_docker(place: Place) -> None:
    port = free_port()

    assert is_free(port)
    assert not redis_server.answers(f"redis://127.0.0.1:{port}/0")
    assert not docker_engine.answers(f"tcp://127.0.0.1:{port}")
    assert not docker_engine.answers(f"unix://{place.data}/docker.sock")


def test_silent_remote_engine_is_not_replaced(place: Place) -> None:
    with pytest.raises(SetupError, match=r"No Docker Engine answers at tcp://127\.0\.0\.1:1\."):
        docker_engine.start(place.with_environment(DOCKER_HOST="tcp://127.0.0.1:1"))
