"""Resolves a host name and a path from the database, in threads, with a cache.

A release never changes, so resolved paths are cached. Which release is live may change at any moment: that is read
again after LIVE_SECONDS, and at once in the process that changes it.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote
from uuid import UUID

from django.utils import timezone
from whitenoise.media_types import MediaTypes

from builds.models import Artifact, Preview, Release, SiteName
from builds.site_names import Kind, Name
from builds.sites import ready_answers, rules

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

LIVE_SECONDS = 1.0
MAX_SITES, MAX_ANSWERS = 2_000, 8_000
INDEX, NOT_FOUND = "index.html", "404.html"
_media_types = MediaTypes()


@dataclass(frozen=True)
class Served:
    """What is served under a name."""

    name: Name
    id: UUID
    build: UUID
    attempt: int
    root: str
    single_page: bool
    rules: rules.Rules
    until: float  # monotonic clock: when to read it again


@dataclass(frozen=True)
class Form:
    """Stored bytes that can be sent for a file; `encoding` is the HTTP content coding, empty for the file itself."""

    encoding: str
    key: str
    size: int


@dataclass(frozen=True)
class File:
    name: str  # within the site
    media_type: str
    sha256: str
    forms: tuple[Form, ...]  # the uncompressed file comes last


@dataclass(frozen=True)
class Answer:
    """What a path resolves to: a file or a redirect. Neither: not found, and the site has no 404 page."""

    status: int
    file: File | None = None
    location: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class _Kept(Generic[K, V]):
    """A cache of the most recently used look-ups."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
            return self._found.get(key)

    def keep(self, key: K, value: V) -> None:
        with self._lock:
            self._found[key] = value
            self._found.move_to_end(key)
            if len(self._found) > self._most:
                self._found.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._found.clear()


_sites: _Kept[Name, Served] = _Kept(MAX_SITES)
_changes = 0  # in this process: a result read before a change is not cached after it
_answers: _Kept[tuple[UUID, str, bool], Answer] = _Kept(MAX_ANSWERS)


def forget_sites() -> None:
    """Note that names resolve differently now. Other processes see it within LIVE_SECONDS."""
    global _changes
    _changes += 1
    _sites.clear()
    ready_answers.forget()


def known_site(name: Name) -> Served | None:
    """What is served under a name, from the cache only."""
    found = _sites.get(name)
    return found if found and time.monotonic() < found.until else None


def known_answer(site: Served, path: str, *, is_page: bool) -> Answer | None:
    return _answers.get((site.id, path, is_page))


def find_site(name: Name) -> Served | None:
    """What is served under a name now; None: nothing."""
    asked_at, changes = time.monotonic(), _changes
    row = _row_of(name)
    if row is None:
        return None
    until = asked_at + LIVE_SECONDS
    site = Served(name, row.id, row.build_id, row.build.fence, row.root, row.single_page, row.rules, until)
    if changes == _changes:
        _sites.keep(name, site)
    return site


def _row_of(name: Name) -> Any:
    if name.kind == Kind.PREVIEW:
        rows: Any = Preview.objects.filter(token=name.text, expires_at__gt=timezone.now())
        return rows.select_related("build").first()
    releases = Release.objects.select_related("build")
    if name.kind == Kind.RELEASE:
        return releases.filter(project__site_names=name.text, number=name.number).first()
    live = SiteName.objects.filter(pk=name.text).values("project__site__live")
    return releases.filter(pk__in=live).first()


def find_answer(site: Served, path: str, *, is_page: bool) -> Answer:
    """What a path resolves to by _redirects, files and _headers; `is_page`: the client accepts HTML."""
    answer = _answer(site, path, is_page=is_page)
    headers = rules.headers_of(site.rules, path)
    answer = Answer(answer.status, answer.file, answer.location, tuple(headers))
    _answers.keep((site.id, path, is_page), answer)
    return answer


def _answer(site: Served, path: str, *, is_page: bool) -> Answer:
    redirect = rules.redirect_of(site.rules, path)
    if redirect and redirect.is_forced:
        return _redirected(site, redirect)
    if found := _at(site, path):
        return found
    if redirect:
        return _redirected(site, redirect)
    fallback = INDEX if site.single_page and is_page else NOT_FOUND
    return Answer(200 if fallback == INDEX else 404, _file(site, [fallback]))


def _redirected(site: Served, redirect: rules.Redirect) -> Answer:
    if redirect.status in (200, 404):
        found = _at(site, redirect.target)
        file = found.file if found else None
        return Answer(redirect.status if file else 404, file)
    return Answer(redirect.status, location=_address(redirect.target))


def _at(site: Served, path: str) -> Answer | None:
    """A file, a folder's page, or a page without its `.html`."""
    name = path.lstrip("/")
    if path.endswith("/"):
        file = _file(site, [name + INDEX])
        return Answer(200, file) if file else None
    file = _file(site, [name, f"{name}.html", f"{name}/{INDEX}"])
    if file and file.name == f"{name}/{INDEX}":
        return Answer(301, location=_address(f"{path}/"))  # otherwise the page's relative links would break
    return Answer(200, file) if file else None


def _file(site: Served, names: Sequence[str]) -> File | None:
    """The first name that is a file: one query."""
    wanted = [f"{site.root}/{name}" if site.root else name for name in names if name not in _OWN]
    rows = Artifact.objects.filter(build=site.build, attempt=site.attempt, name__in=wanted)
    found = {row.name: row for row in rows.prefetch_related("encoded")}
    row = next((found[name] for name in wanted if name in found), None)
    if row is None:
        return None
    encoded = sorted(row.encoded.all(), key=lambda one: one.size)
    forms = [Form(one.encoding, one.storage_key, one.size) for one in encoded]
    name = row.name.removeprefix(f"{site.root}/") if site.root else row.name
    return File(name, _media_type(row), row.sha256, (*forms, Form("", row.storage_key, row.size)))


_OWN = frozenset({rules.HEADERS_FILE, rules.REDIRECTS_FILE})


def _media_type(row: Artifact) -> str:
    kind = _media_types.get_type(row.name)
    kind = row.content_type if kind == "application/octet-stream" else kind
    is_text = kind.startswith("text/") or kind in ("application/json", "application/manifest+json", "image/svg+xml")
    return f"{kind}; charset=utf-8" if is_text else kind


def _address(target: str) -> str:
    """The value for a Location header. A path always stays on this host, for any values of its placeholders."""
    if target.startswith("/"):
        target = "/" + target.lstrip("/\\")
    return quote(target, safe="/:?#[]@!$&'()*+,;=%~-._")
