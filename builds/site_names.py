"""Host names below SITES_DOMAIN: which site a request is for. Pure functions; knows no database."""

import re
from dataclasses import dataclass
from enum import Enum

from django.conf import settings

MAX_SLUG = 40
# One hyphen at a time: two of them part a slug from what stands before it.
SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
PREVIEW = "preview"
_RELEASE = re.compile(rf"([1-9][0-9]{{0,8}})--({SLUG.pattern})")
_PREVIEW = re.compile(rf"{PREVIEW}--([a-z0-9]{{1,40}})")
# Names that people take for the installation's own.
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
    """What a host name asks for: the live release of a slug, the release of a number, or a preview by its token."""

    kind: Kind
    text: str  # the slug, or the preview's token
    number: int = 0


def slug_fault(slug: str) -> str:
    """Why a site cannot be called so; empty when it can."""
    if len(slug) > MAX_SLUG or not SLUG.fullmatch(slug):
        return f"A site's name has 1 to {MAX_SLUG} letters a-z, digits and single hyphens between them."
    return f"{slug!r} is a name that people take for the server's own: choose another." if slug in RESERVED else ""


def is_ours(host: str) -> bool:
    """Whether a Host header names a site, if perhaps one that there is not."""
    return _bare(host).endswith(f".{_bare(settings.SITES_DOMAIN)}")


def parse(host: str) -> Name | None:
    """What a Host header asks for; None when no site can have the name."""
    label = _bare(host).removesuffix(f".{_bare(settings.SITES_DOMAIN)}")
    if found := _PREVIEW.fullmatch(label):
        return Name(Kind.PREVIEW, found[1])
    if found := _RELEASE.fullmatch(label):
        return Name(Kind.RELEASE, found[2], int(found[1]))
    return Name(Kind.LIVE, label) if SLUG.fullmatch(label) else None


def address(label: str) -> str:
    """Where the site of a label is."""
    return f"{'https' if settings.HTTPS else 'http'}://{label}.{settings.SITES_DOMAIN}"


def release_label(slug: str, number: int) -> str:
    return f"{number}--{slug}"


def preview_label(token: str) -> str:
    return f"{PREVIEW}--{token}"


def _bare(host: str) -> str:
    """Without its port and the dot that a full name may end in."""
    return host.lower().partition(":")[0].removesuffix(".")
