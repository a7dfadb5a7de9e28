"""Django settings for pytest: chef.settings with their own secret key, data folder and SQLite database.

Nothing has to be set by hand, and this machine's configuration of Chef is ignored: only the variables in `KEPT` are
read, which say how to reach services and where `./scripts/test.sh` has started them. Processes that tests start use
chef.settings with their own environment: see tests.installation.
"""

import atexit
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from scripts.place import ROOT, read_env_file
from tests.ports import free_port

KEPT = frozenset(
    {
        *("DOCKER_HOST", "SSL_CERT_FILE", "RUNTIME_REGISTRY"),
        *("CHEF_DATA_DIR", "CHEF_INSTALLATION", "SECRET_KEY", "DATABASE_URL", "REDIS_URL"),
    }
)
REDIS_DATABASES = 16  # Redis's default
# Set if REDIS_URL is the address at which tests.services starts a server once a test needs one.
OWN_REDIS = "CHEF_TESTS_OWN_REDIS"


def _prepare_environment() -> None:
    """Set the variables that chef.settings reads; processes started by tests inherit them."""
    for name in set(read_env_file(ROOT / ".env.example", commented=True)) - KEPT:
        os.environ.pop(name, None)
    os.environ.setdefault("SECRET_KEY", secrets.token_urlsafe(60))
    os.environ.setdefault("CHEF_INSTALLATION", f"test-{secrets.token_hex(4)}")
    if "CHEF_DATA_DIR" not in os.environ:
        os.environ["CHEF_DATA_DIR"] = _temporary_folder()
    if "REDIS_URL" not in os.environ:
        os.environ[OWN_REDIS] = "1"
    if worker := os.environ.get("PYTEST_XDIST_WORKER", ""):
        _part_from_other_workers(worker)
    if OWN_REDIS in os.environ:
        os.environ["REDIS_URL"] = f"redis://127.0.0.1:{free_port()}/0"
    data = os.environ["CHEF_DATA_DIR"]
    os.environ.setdefault("DATABASE_URL", f"sqlite:///{data}/chef.sqlite3")
    os.environ["DJANGO_SETTINGS_MODULE"] = "chef.settings"  # for processes that tests start


def _temporary_folder() -> str:
    """A folder that is removed when this process ends. Its path is short, as Unix sockets need one."""
    folder, ours = tempfile.mkdtemp(prefix="chef-tests-", dir="/tmp"), os.getpid()

    def remove() -> None:
        if os.getpid() == ours:  # not in a fork of it
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def _part_from_other_workers(worker: str) -> None:
    """Separate pytest-xdist's workers, which inherit one environment: own data folder, name and Redis database."""
    base = Path(os.environ["CHEF_DATA_DIR"])
    folder = base / worker
    folder.mkdir(exist_ok=True)
    if (base / "static").is_dir() and not (folder / "static").exists():
        (folder / "static").symlink_to(base / "static")
    os.environ["CHEF_DATA_DIR"] = str(folder)
    os.environ["CHEF_INSTALLATION"] += f"-{worker}"
    if OWN_REDIS not in os.environ:
        server, _, database = os.environ["REDIS_URL"].rpartition("/")
        if database.isdigit():
            number = (int(database) + 1 + int(worker.removeprefix("gw"))) % REDIS_DATABASES
            os.environ["REDIS_URL"] = f"{server}/{number}"
    if os.environ.get("DATABASE_URL", "").startswith("sqlite"):
        # A new file in the worker's folder. On a server, pytest-django adds the worker to the database's name.
        del os.environ["DATABASE_URL"]


_prepare_environment()

from chef.settings import *  # noqa: E402, F403  (reads the environment)
from chef.settings import STORAGES  # noqa: E402

# Straight from the repository, without collectstatic. Installations use Chef's own storage.
STORAGES = {**STORAGES, "staticfiles": {"BACKEND": "tests.static_files.PlainStaticFiles"}}
# Fast: the production hasher takes a third of a second per password, on purpose.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
