"""The database's part of a start: tables, static files, the local user and the token, all in one Django process.

Runs in the virtual environment: `python -m scripts.prepare URL`. Writes `quickstart.env` in the data folder, for its
owner's eyes, because a token cannot be shown again: the database keeps only its hash.
"""

import os
import secrets
import socket
import sys
from io import StringIO
from pathlib import Path

import django
from django.core.management import call_command

from scripts.place import Place, read_env_file
from scripts.processes import write_secret

USER = "chef"
FILE = "quickstart.env"


def main(url: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chef.settings")
    django.setup()
    call_command("check")
    call_command("migrate", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)
    _forget_last_workers()
    file = Place.from_environment().data / FILE
    known = read_env_file(file)
    found = {"CHEF_URL": url, "CHEF_TOKEN": _token(known.get("CHEF_TOKEN", ""))}
    found |= {"CHEF_USER": USER, "CHEF_PASSWORD": _password(known.get("CHEF_PASSWORD", ""))}
    _write(file, found)


def _forget_last_workers() -> None:
    """Those of the last start are counted as alive for half a minute, and /health would say "ok" before ours are."""
    from builds.models import WorkerHost

    WorkerHost.objects.filter(name=socket.gethostname()).delete()


def _token(known: str) -> str:
    """The token of the last start as long as it is good, else a new one."""
    from projects.models import ApiToken

    if known and ApiToken.objects.is_valid(known):
        ApiToken.objects.filter(prefix=known.partition(".")[0]).update(scope=ApiToken.Scope.PUBLISH)
        return known
    said = StringIO()
    call_command("create_token", USER, "--create-user", "--name", "quickstart", "--scope", "publish", stdout=said)
    return said.getvalue().split()[-1]


def _password(known: str) -> str:
    """The web login's password. One that the user has changed since is left alone, and is not ours to write down."""
    from django.contrib.auth.models import User

    user = User.objects.get(username=USER)
    if known:
        return known
    password = secrets.token_urlsafe(12)
    user.set_password(password)
    user.save(update_fields=["password"])
    return password


def _write(file: Path, found: dict[str, str]) -> None:
    """Whole or not at all: a client may be reading it."""
    new = file.with_suffix(".new")
    write_secret(new, "".join(f"{name}={value}\n" for name, value in found.items()))
    new.replace(file)


if __name__ == "__main__":
    main(sys.argv[1])
