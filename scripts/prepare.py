"""The Django part of a start: tables, static files, the local user and token, in one process.

Runs in the virtual environment: `python -m scripts.prepare URL`. Writes `quickstart.env` in the data folder, readable
only by its owner, because a token cannot be shown again: the database stores only its hash.
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
    """Forget the last start's hosts: they count as alive for half a minute, so /health would be "ok" too early."""
    from builds.models import WorkerHost

    WorkerHost.objects.filter(name=socket.gethostname()).delete()


def _token(known: str) -> str:
    """The token of the last start if it is still valid, else a new one."""
    from projects.models import ApiToken

    if known and ApiToken.objects.is_valid(known):
        ApiToken.objects.filter(prefix=known.partition(".")[0]).update(scope=ApiToken.Scope.PUBLISH)
        return known
    output = StringIO()
    call_command("create_token", USER, "--create-user", "--name", "quickstart", "--scope", "publish", stdout=output)
    return output.getvalue().split()[-1]


def _password(known: str) -> str:
    """The web login's password. One that the user has changed is kept, and not written to the file."""
    from django.contrib.auth.models import User

    user = User.objects.get(username=USER)
    if known:
        return known
    password = secrets.token_urlsafe(12)
    user.set_password(password)
    user.save(update_fields=["password"])
    return password


def _write(file: Path, found: dict[str, str]) -> None:
    """Write the file atomically: a client may be reading it."""
    new = file.with_suffix(".new")
    write_secret(new, "".join(f"{name}={value}\n" for name, value in found.items()))
    new.replace(file)


if __name__ == "__main__":
    main(sys.argv[1])
