"""Host names below SITES_DOMAIN, and which site each names. Pure functions without a database."""

import re
from dataclasses import dataclass
from enum import Enum

from django.conf import settings

MAX_SLUG = 40
# No double hyphens: they separate a slug from a prefix.
SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
PREVIEW = "preview"
_RELEASE = re.compile(rf"([1-9][0-9]{{0,8}})--({SLUG.pattern})")
_PREVIEW = re.compile(rf"{PREVIEW}--([a-z0-9]{{1,40}})")
# Names that people would take for the installation itself.
RESERVED = frozenset(
    [
        "admin",
        "api",
        "app",
        "assets",
        "auth",
        "autoconfig",
        "blog",
        "cdn",
        "chef",
        "docs",
        "ftp",
        "help",
        "imap",
        "localhost",
        "login",
        "mail",
        "ns",
        "ns1",
        "ns2",
        "pop",
        "preview",
        "root",
        "server",
        "smtp",
        "static",
        "status",
        "support",
        "webmail",
        "www",
        "wpad",
    ]
)


class Kind(Enum):
    LIVE = "live"
    RELEASE = "release"
    PREVIEW = "preview"


@dataclass(frozen=True)
class Name:
    """What a host name refers to: a slug's live release, a release by number, or a preview by token."""

    kind: Kind
    text: str  # the slug, or the preview's token
    number: int = 0


def slug_fault(slug: str) -> str:
    """Why a slug is invalid; empty when it is valid."""
    if len(slug) > MAX_SLUG or not SLUG.fullmatch(slug):
        return f"A site's name has 1 to {MAX_SLUG} letters a-z, digits and single hyphens between them."
    return f"{slug!r} is reserved: choose another name." if slug in RESERVED else ""


def is_ours(host: str) -> bool:
    """Whether a Host header names a site, existing or not."""
    return _bare(host).endswith(f".{_bare(settings.SITES_DOMAIN)}")


def parse(host: str) -> Name | None:
    """What a Host header refers to; None when no site can have the name."""
    label = _bare(host).removesuffix(f".{_bare(settings.SITES_DOMAIN)}")
    if found := _PREVIEW.fullmatch(label):
        return Name(Kind.PREVIEW, found[1])
    if found := _RELEASE.fullmatch(label):
        return Name(Kind.RELEASE, found[2], int(found[1]))
    return Name(Kind.LIVE, label) if SLUG.fullmatch(label) else None


def address(label: str) -> str:
    """The URL of the site with this label."""
    return f"{'https' if settings.HTTPS else 'http'}://{label}.{settings.SITES_DOMAIN}"


def release_label(slug: str, number: int) -> str:
    return f"{number}--{slug}"


def preview_label(token: str) -> str:
    return f"{PREVIEW}--{token}"


def _bare(host: str) -> str:
    """The host name without its port and a trailing dot."""
    return host.lower().partition(":")[0].removesuffix(".")
