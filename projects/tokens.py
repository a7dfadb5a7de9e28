"""Actions on API tokens. A token is shown when it is created; only its hash is stored."""

from datetime import timedelta

from django.contrib.auth.models import User
from django.utils import timezone

from projects.models import ApiToken

MAX_NAME_CHARS = 50


def make_token(*, by: User, name: str, scope: str, days: int) -> tuple[ApiToken, str]:
    """A new token of `by` that expires after `days` days (0: never), and the bearer value to send."""
    expiry = timezone.now() + timedelta(days=days) if days else None
    token, key = ApiToken.objects.create_key(
        name=name[:MAX_NAME_CHARS], owner=by, scope=ApiToken.Scope(scope), expiry_date=expiry
    )
    assert isinstance(token, ApiToken)
    return token, key


def revoke_token(token: ApiToken) -> None:
    """Revoke a token. Idempotent."""
    ApiToken.objects.filter(pk=token.pk).update(revoked=True)
