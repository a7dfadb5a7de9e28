"""`manage.py create_token USER`: creates an API token and prints it once."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from projects.models import ApiToken
from projects.tokens import make_token


class Command(BaseCommand):
    help = "Creates an API token for a user and prints it. It cannot be shown again: only its hash is stored."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user")
        parser.add_argument("--name", default="command line")
        parser.add_argument("--scope", choices=ApiToken.Scope.values, default=ApiToken.Scope.WRITE)
        parser.add_argument("--days", type=int, default=365, help="until it expires; 0: never")
        parser.add_argument("--create-user", action="store_true", help="create the user if missing")

    def handle(self, *args: Any, user: str, name: str, scope: str, days: int, **options: Any) -> None:
        users = get_user_model().objects
        if options["create_user"]:
            users.get_or_create(username=user)
        owner = users.filter(username=user).first()
        if owner is None:
            raise CommandError(f"There is no user {user!r}: add --create-user, or run `manage.py createsuperuser`.")
        _, key = make_token(by=owner, name=name, scope=scope, days=days)
        self.stdout.write(key)
