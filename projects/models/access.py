"""API tokens, and the answers kept for requests that are sent twice."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from rest_framework_api_key.models import AbstractAPIKey


class IdempotencyKey(models.Model):
    """A POST that may be sent twice: its fingerprint and, once it is done, its answer."""

    # Null for signed messages: the key is the message's id then.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, blank=True, related_name="idempotency_keys"
    )
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)  # of method, path and body
    created_at = models.DateTimeField(default=timezone.now)
    # How long the first request may run; after that its process is taken for dead.
    locked_until = models.DateTimeField(null=True, blank=True)
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    answer = models.BinaryField(default=b"")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "key"], name="idempotency_key_once"),
            models.UniqueConstraint(fields=["key"], condition=Q(owner=None), name="idempotency_message_once"),
            models.CheckConstraint(
                condition=Q(status_code__isnull=True, locked_until__isnull=False)
                | Q(status_code__isnull=False, locked_until__isnull=True),
                name="idempotency_answered_iff_unlocked",
            ),
        ]
        # chef.web.idempotency: expired keys
        indexes = [models.Index(fields=["created_at"], name="idempotency_by_age")]

    def __str__(self) -> str:
        return self.key


class ApiToken(AbstractAPIKey):
    """A bearer token: stored as a hash; has a name, an owner, a scope and an expiry; can be revoked."""

    class Scope(models.TextChoices):
        # Each includes the one before.
        READ = "read"
        WRITE = "write"
        PUBLISH = "publish"

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    scope = models.CharField(max_length=8, choices=Scope, default=Scope.WRITE)

    class Meta(AbstractAPIKey.Meta):
        verbose_name = "API token"
        verbose_name_plural = "API tokens"
        constraints = [
            models.CheckConstraint(condition=Q(scope__in=["read", "write", "publish"]), name="token_scope_known"),
            models.CheckConstraint(
                condition=Q(expiry_date__isnull=True) | Q(expiry_date__gt=F("created")), name="token_expires_later"
            ),
        ]

    def allows(self, scope: "ApiToken.Scope") -> bool:
        order = list(ApiToken.Scope)
        return order.index(ApiToken.Scope(self.scope)) >= order.index(scope)
