"""The verbs on API tokens. A token is told when it is made; afterwards only its hash is known."""

from datetime import timedelta

from django.contrib.auth.models import User
from django.utils import timezone

from projects.models import ApiToken

MAX_NAME_CHARS = 50


def make_token(*, by: User, name: str, scope: str, days: int) -> tuple[ApiToken, str]:
    """A new token of `by`, which expires after so many days, or never after 0; and what to send as the bearer."""
    expiry = timezone.now() + timedelta(days=days) if days else None
    token, key = ApiToken.objects.create_key(
        name=name[:MAX_NAME_CHARS], owner=by, scope=ApiToken.Scope(scope), expiry_date=expiry
    )
    assert isinstance(token, ApiToken)
    return token, key


def revoke_token(token: ApiToken) -> None:
    """Refuse a token from now on. Doing it again changes nothing."""
    ApiToken.objects.filter(pk=token.pk).update(revoked=True)
