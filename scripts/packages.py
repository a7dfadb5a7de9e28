"""Installs what this machine lacks: Debian packages and the virtual environment.

python -m scripts.packages set-up start|tests
python -m scripts.packages system PACKAGE...
python -m scripts.packages python requirements.lock|requirements-dev.lock
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scripts import docker_engine, postgres, redis_server
from scripts.place import ROOT, Place
from scripts.processes import SetupError
from scripts.steps import Step, run_together

VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
LOCKS = {"start": "requirements.lock", "tests": "requirements-dev.lock"}
_STAMP = VENV / "installed-locks"

# Folders with root's programs, which may not be on PATH.
_PROGRAM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
_POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_TEXT = "#!/bin/sh\n# While Chef's set-up installs packages; removed afterwards. 101: start nothing.\nexit 101\n"
_APT = ("apt-get", "--yes", "--quiet", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0")


def program(name: str) -> str | None:
    """The full path of a program, also in folders that are only on root's PATH."""
    return shutil.which(name, path=_PROGRAM_PATH)


def missing_packages(purpose: str, place: Place) -> dict[str, str]:
    """Debian's packages that are missing for `start` or `tests`, each with what it is needed for."""
    testing = purpose == "tests"
    missing = {}
    if not VENV_PYTHON.exists() and importlib.util.find_spec("ensurepip") is None:
        missing["python3-venv"] = "the virtual environment"
    if not docker_engine.answers(place.docker_host):
        programs = {"dockerd": "docker.io", "iptables": "iptables", "tini": "tini"}
        wanted = {package for name, package in programs.items() if program(name) is None}
        missing |= dict.fromkeys(sorted(wanted), f"Docker Engine, which does not answer at {place.docker_host}")
    if program("redis-server") is None and (testing or not redis_server.answers(place.redis_url)):
        missing["redis-server"] = "Redis" if testing else f"Redis, which does not answer at {place.redis_address}"
    if program("mmdebstrap") is None and _is_root_on_debian():
        missing["mmdebstrap"] = "the runtimes' images, where no image registry can be reached"
    if testing or _is_root_on_debian():  # otherwise a shell script replaces it, with a warning
        there = {"gcc": program("gcc"), "libc6-dev": next(Path("/usr/lib").glob("*/libc.a"), None)}
        missing |= {package: "chef-init, which runs first in each container" for package in there if not there[package]}
    if testing and postgres.programs_folder() is None:
        missing["postgresql"] = "the tests on PostgreSQL"
    if testing and program("docker-registry") is None:
        missing["docker-registry"] = "the tests of pulling images"
    if testing and program("curl") is None:
        missing["curl"] = "the tests of the commands in the docs"
    if testing:
        browser = {"chromium": "chromium", "chromedriver": "chromium-driver"}
        missing |= {package: "the tests in a browser" for name, package in browser.items() if program(name) is None}
    return missing


def set_up(purpose: str, place: Place) -> None:
    """Install what is missing. Raises SetupError with a list of it if that is not possible on this machine."""
    missing = missing_packages(purpose, place)
    if missing and not _is_root_on_debian():
        raise SetupError(_missing_text(missing))
    if missing:
        print(f"Installing {', '.join(missing)} with apt-get.", flush=True)
    if missing.pop("python3-venv", None):
        run_together(_step(place, "python3-venv", "system", "python3-venv"))  # needed for the environment
    steps = []
    if missing:
        steps.append(_step(place, "system packages", "system", *missing))
    if not _is_installed(LOCKS[purpose]):
        steps.append(_step(place, "Python packages into .venv", "python", LOCKS[purpose]))
    run_together(*steps)


def _step(place: Place, name: str, *arguments: str) -> Step:
    argv = [sys.executable, "-m", "scripts.packages", *arguments]
    return Step(name, argv, place.log("setup-" + arguments[0]), place.environment)


def _is_root_on_debian() -> bool:
    return os.geteuid() == 0 and program("apt-get") is not None and Path("/etc/debian_version").exists()


def _missing_text(missing: dict[str, str]) -> str:
    lines = [f"  {package}: for {reason}" for package, reason in missing.items()]
    how = f"apt-get install --no-install-recommends {' '.join(missing)}"
    first, last = "This machine lacks (by Debian's package names):", "Install and start these, then run this again."
    return "\n".join([first, *lines, f"{last} On Debian, as root: {how}"])


# --- Debian's packages ---------------------------------------------------------------------------------------------


def install_system(packages: Sequence[str]) -> None:
    """Install Debian packages; fetch package lists only if that fails without. Raises SetupError."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = [*_APT, *_certificate_option()]
    install = [*apt, "install", "--no-install-recommends", *packages]
    with _no_services_started():
        if subprocess.run(install, env=environment).returncode == 0:
            return
        subprocess.run([*apt, "update"], env=environment)
        if subprocess.run(install, env=environment).returncode != 0:
            raise SetupError(f"apt-get could not install {' '.join(packages)}: see its output above.")


def _certificate_option() -> list[str]:
    bundle = os.environ.get("SSL_CERT_FILE")
    return ["-o", f"Acquire::https::CAInfo={bundle}"] if bundle else []


@contextmanager
def _no_services_started() -> Iterator[None]:
    """Keep Debian from starting services on installation: the scripts start and stop what they need."""
    ours = not _POLICY.exists()
    if ours:
        _POLICY.write_text(_POLICY_TEXT)
        _POLICY.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    try:
        yield
    finally:
        if ours:
            _POLICY.unlink(missing_ok=True)


# --- The virtual environment ---------------------------------------------------------------------------------------


def install_python(lock: str) -> None:
    """Fill .venv with what a lock file lists, hashes checked. Raises SetupError."""
    with (ROOT / lock).open() as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # test.sh and start.sh may run at the same time
        if _is_installed(lock):
            return
        if not _venv_works():
            _run([sys.executable, "-m", "venv", "--clear", str(VENV)])
        # The lock file is complete, so there is nothing to resolve.
        options = ["--require-hashes", "--no-deps", "--no-input", "--quiet", "--disable-pip-version-check"]
        _run([str(VENV_PYTHON), "-m", "pip", "install", *options, "--requirement", str(ROOT / lock)])
        _STAMP.write_text("\n".join(_stamps(lock)))


def _is_installed(lock: str) -> bool:
    known = _STAMP.read_text().split("\n") if _STAMP.exists() else []
    return _stamp(lock) in known and _venv_works()


def _venv_works() -> bool:
    """Whether the environment's Python still runs: the one it was created from may be gone."""
    argv = [str(VENV_PYTHON), "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    return VENV_PYTHON.exists() and subprocess.run(argv, stderr=subprocess.DEVNULL).returncode == 0


def _stamp(lock: str) -> str:
    return f"{lock} {hashlib.sha256((ROOT / lock).read_bytes()).hexdigest()}"


def _stamps(lock: str) -> list[str]:
    """The locks that an installation from this one satisfies: itself, and every lock whose pins it contains."""
    pins = _pins(lock)
    return [_stamp(other) for other in LOCKS.values() if _pins(other) <= pins]


def _pins(lock: str) -> set[str]:
    lines = (ROOT / lock).read_text().splitlines()
    return {line.split()[0] for line in lines if line[:1].isalnum() and "==" in line}


def _run(argv: Sequence[str]) -> None:
    if subprocess.run(argv).returncode != 0:
        raise SetupError(f"{' '.join(argv[:4])} … failed: see its output above.")


def main(arguments: Sequence[str]) -> int:
    # A plain SIGTERM would leave the file that keeps services from starting.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    match list(arguments):
        case ["set-up", ("start" | "tests") as purpose]:
            set_up(purpose, Place.from_environment())
        case ["system", *packages] if packages:
            install_system(packages)
        case ["python", lock] if lock in LOCKS.values():
            install_python(lock)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SetupError as error:
        sys.exit(str(error))
