"""System checks: report at start a setting that cannot work, with what to do."""

import base64
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from builds.sandbox.chef_init import first_process
from builds.webhooks import guard

# A unix socket's path may have 107 bytes; the egress proxy adds its own folder and name to BUILD_DIR.
MAX_BUILD_DIR_BYTES = 107 - len("/0123456789ab-9999999/proxy.sock")


@register()
def build_dir_is_short(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if len(str(settings.BUILD_DIR).encode()) <= MAX_BUILD_DIR_BYTES:
        return []
    hint = "Set BUILD_DIR to a shorter path, such as /run/chef."
    return [Error(f"BUILD_DIR is longer than {MAX_BUILD_DIR_BYTES} bytes.", hint=hint, id="builds.E001")]


@register()
def ca_bundle_is_there(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not settings.CA_BUNDLE or Path(settings.CA_BUNDLE).is_file():
        return []
    hint = "Set it to a file of certificates in PEM form, or leave it unset."
    return [Error(f"SSL_CERT_FILE={settings.CA_BUNDLE} is not a file.", hint=hint, id="builds.E002")]


@register()
def chef_init_is_compiled(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    warning = first_process().warning
    return [Warning(warning, id="builds.W003")] if warning else []


@register()
def convex_is_usable(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not settings.CONVEX_URL:
        return []
    found: list[CheckMessage] = []
    try:
        guard.parse(settings.CONVEX_URL, is_ours=True)
    except guard.UrlRefusedError as refused:
        found.append(
            Error("CONVEX_URL is not a URL that messages can be sent to.", hint=str(refused), id="builds.E004")
        )
    hint = "Set it to whsec_ and at least 24 bytes in base64: echo whsec_$(openssl rand -base64 32)"
    try:
        Webhook(settings.CONVEX_WEBHOOK_SECRET)
    except (ValueError, EmptyWebhookSecretError):
        found.append(Error("CONVEX_WEBHOOK_SECRET cannot sign messages.", hint=hint, id="builds.E005"))
    else:
        if not _is_long(settings.CONVEX_WEBHOOK_SECRET):
            found.append(Warning("CONVEX_WEBHOOK_SECRET can be guessed.", hint=hint, id="builds.W002"))
    return found


def _is_long(secret: str) -> bool:
    """Whether it has at least 16 bytes in strict base64: the library ignores invalid characters instead."""
    try:
        return len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) >= 16
    except ValueError:
        return False


@register()
def application_is_not_below_the_sites(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    sites = _bare(settings.SITES_DOMAIN)
    covered = [host for host in settings.ALLOWED_HOSTS if _bare(host).endswith(f".{sites}")]
    if not covered:
        return []
    hint = "Choose a domain for sites that does not contain the application's own host."
    return [Error(f"{covered[0]} is below SITES_DOMAIN, so it would be served as a site.", hint=hint, id="builds.E003")]


@register(Tags.security, deploy=True)
def sites_share_no_domain(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Browsers treat hosts of one domain as one site: cookies set for the domain reach all of them."""
    sites = _domain(settings.SITES_DOMAIN)
    shared = [host for host in settings.ALLOWED_HOSTS if _domain(host) == sites and "." in sites]
    if not shared:
        return []
    hint = "Set SITES_DOMAIN to a domain that is used for nothing else."
    return [Warning(f"Published sites share the domain {sites} with {shared[0]}.", hint=hint, id="builds.W001")]


def _bare(host: str) -> str:
    return host.lower().partition(":")[0].strip(".")


def _domain(host: str) -> str:
    return ".".join(_bare(host).split(".")[-2:])
