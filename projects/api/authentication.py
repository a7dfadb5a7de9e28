"""API authentication: bearer tokens with scopes. Sessions are Django's."""

from django.contrib.auth.models import AbstractBaseUser, User
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from projects.models import ApiToken


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer <token>`; request.auth is the ApiToken."""

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, ApiToken] | None:
        scheme, _, key = get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = _usable_token(key.strip())
        if token is None or not token.owner.is_active:
            raise AuthenticationFailed(
                "The token is unknown, expired or revoked: create a new one.", code="invalid_token"
            )
        return token.owner, token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="chef"'


class LocalUserAuthentication(BaseAuthentication):
    """One local user for all requests without a token, to try Chef out locally: `CHEF_ALLOW_ANONYMOUS`.

    Cross-site requests are excluded, because a browser lets any site send forms to this machine.
    """

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, None] | None:
        if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            return None
        user, is_new = User.objects.get_or_create(username="local")
        if is_new:
            user.set_unusable_password()
            user.save(update_fields=["password"])
        return user, None


def _usable_token(key: str) -> ApiToken | None:
    try:
        token = ApiToken.objects.select_related("owner").get(prefix=key.partition(".")[0], revoked=False)
    except ApiToken.DoesNotExist:
        return None
    return token if token.is_valid(key) and not token.has_expired else None


class HasScope(BasePermission):
    """Authenticated, and a token needs the scope: `read` for safe methods, else `write`.

    A view can require other scopes by action name in `needed_scopes`.
    """

    code = "insufficient_scope"

    def has_permission(self, request: Request, view: object) -> bool:
        if not request.user or not request.user.is_authenticated:
            raise NotAuthenticated("Send `Authorization: Bearer <token>`; `manage.py create_token` creates a token.")
        needed = ApiToken.Scope.READ if request.method in SAFE_METHODS else ApiToken.Scope.WRITE
        needed = getattr(view, "needed_scopes", {}).get(getattr(view, "action", ""), needed)
        self.message = f"This token's scope does not allow this: use a token with the scope '{needed}'."
        return not isinstance(request.auth, ApiToken) or request.auth.allows(needed)
