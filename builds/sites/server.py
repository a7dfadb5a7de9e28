"""Serves published sites over HTTP: a separate ASGI application beside Django, without its cookies, users and views.

Small files are cached in memory; the rest is streamed as it is read.
"""

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from django.conf import settings
from django.core.files.storage import default_storage
from django.db import connection

from builds import site_names as names
from builds.sites import ready_answers
from builds.sites.lookup import (
    LIVE_SECONDS,
    Answer,
    File,
    Form,
    Served,
    find_answer,
    find_site,
    known_answer,
    known_site,
)
from chef.storage.errors import StorageError
from chef.web.downloads import RangeNotSatisfiableError, part_of
from chef.web.reading import file_pieces, in_threads
from chef.web.streaming import send_body

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

KEPT_BYTES, KEPT_FILE_BYTES = 32 * 1024**2, 256 * 1024
# A file name with a hash, as bundlers write them: its content never changes.
_HASHED = re.compile(r"[.\-_](?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{8,}\.[a-z0-9.]{1,12}$")
_FOR_EVER, _ASK_AGAIN = b"public, max-age=31536000, immutable", b"public, max-age=0, must-revalidate"
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem;color:#222}}
@media(prefers-color-scheme:dark){{body{{background:#111;color:#ddd}}}}</style>
<h1>{title}</h1><p>{text}</p></html>
"""
# A small pool apart from Django's: a hanging store or database must not block the application's threads.
_threads = ThreadPoolExecutor(max_workers=3, thread_name_prefix="sites")
_streams = 0


async def serve(scope: Message, receive: Receive, send: Send) -> None:
    """Answer one HTTP request whose Host is below SITES_DOMAIN."""
    asked = _Request(scope)
    if scope["method"] not in ("GET", "HEAD"):
        await _say(
            asked,
            send,
            405,
            "Method not allowed",
            "A published site answers only GET and HEAD requests.",
            [(b"allow", b"GET, HEAD")],
        )
        return
    if settings.HTTPS and not asked.is_secure:
        await _say(asked, send, 301, "Moved", "This site is served over HTTPS.", [(b"location", asked.secure_address)])
        return
    site = await _site_of(asked.host)
    if site is None:
        await _say(asked, send, 404, "Site not found", "The site does not exist, or has been taken down.")
        return
    answer = known_answer(site, asked.path, is_page=asked.is_page)
    if answer is None:
        answer = await _in_database(find_answer, site, asked.path, is_page=asked.is_page)
    headers = _own_headers(site, answer)
    if answer.location:
        headers.append((b"location", answer.location.encode()))
        await _say(asked, send, answer.status, "Moved", "This page has moved.", headers)
    elif answer.file is None:
        await _say(asked, send, 404, "Page not found", "This site has no such page.", headers)
    else:
        await _File(asked, site, answer.status, answer.file, headers).send(receive, send)


class _Request:
    """The parts of a request that matter here."""

    def __init__(self, scope: Message) -> None:
        self._scope = scope
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.host = self.headers.get(b"host", b"").decode("latin-1")
        self.path: str = "" if "\0" in scope["path"] else scope["path"]
        self.is_head = scope["method"] == "HEAD"

    def get(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def is_page(self) -> bool:
        """Whether the client accepts HTML, so that a page may answer a missing path; false for a missing script."""
        return b"text/html" in self.headers.get(b"accept", b"") or "." not in self.path.rpartition("/")[2]

    @property
    def key(self) -> ready_answers.Key | None:
        """The cache key of the answer; URLs with a query are not cached, since there are too many."""
        if self._scope["query_string"]:
            return None
        return ready_answers.key_of(self._scope["headers"], self._scope["raw_path"])

    @property
    def is_secure(self) -> bool:
        forwarded = self.get(b"x-forwarded-proto") if settings.BEHIND_PROXY else ""
        return (forwarded or self._scope["scheme"]) == "https"

    @property
    def secure_address(self) -> bytes:
        query = self._scope["query_string"]
        path: bytes = self._scope["raw_path"] + (b"?" + query if query else b"")
        return b"https://" + self.headers[b"host"] + path


async def _site_of(host: str) -> Served | None:
    name = names.parse(host)
    if name is None:
        return None
    return known_site(name) or await _in_database(find_site, name)


def _own_headers(site: Served, answer: Answer) -> Headers:
    """Headers of every answer of a site; its own `_headers` come first."""
    headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
    said = {name for name, _ in headers}
    ours = [(b"x-content-type-options", b"nosniff"), (b"origin-agent-cluster", b"?1")]
    if site.name.kind == names.Kind.PREVIEW:  # the URL contains the secret: it must not leak as a referrer
        ours += [(b"referrer-policy", b"no-referrer"), (b"x-robots-tag", b"noindex")]
    return headers + [one for one in ours if one[0] not in said]


class _File:
    """One file as the answer to a request: complete, partial, or not modified."""

    def __init__(self, asked: _Request, site: Served, status: int, file: File, headers: Headers) -> None:
        self._asked, self._site, self._status, self._file, self._headers = asked, site, status, file, headers
        self._form = self._form_to_send()

    def _form_to_send(self) -> Form:
        """The smallest form that the client accepts; ranges always refer to the uncompressed file."""
        if self._asked.get(b"range"):
            return self._file.forms[-1]
        taken = _encodings(self._asked.get(b"accept-encoding"))
        return next(form for form in self._file.forms if not form.encoding or form.encoding in taken)

    async def send(self, receive: Receive, send: Send) -> None:
        etag = f'"{self._file.sha256[:32]}{"-" if self._form.encoding else ""}{self._form.encoding}"'
        headers = [*self._headers, *self._described(etag)]
        if self._status == 200 and _names(self._asked.get(b"if-none-match"), etag):
            await _head(send, 304, headers)
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            start, length, status = self._part(etag)
        except RangeNotSatisfiableError as beyond:
            extra = [(b"content-range", beyond.headers["Content-Range"].encode())]
            await _say(
                self._asked, send, 416, "No such part", "The requested range is beyond the end of the file.", extra
            )
            return
        if status == 206:
            whole = f"bytes {start}-{start + length - 1}/{self._form.size}"
            headers.append((b"content-range", whole.encode()))
        headers.append((b"content-length", str(length).encode()))
        if self._asked.is_head:
            await _head(send, status, headers)
            await send({"type": "http.response.body", "body": b""})
        elif self._form.size <= KEPT_FILE_BYTES:
            await self._at_once(send, status, headers, start, length)
        elif settings.SITES_ACCEL_PREFIX:
            await self._by_proxy(send, headers)
        else:
            await self._stream(receive, send, status, headers, start, length)

    async def _at_once(self, send: Send, status: int, headers: Headers, start: int, length: int) -> None:
        try:
            data = await _bytes_of(self._form)
        except StorageError as fault:
            await self._without_store(send, fault)
            return
        if settings.SITES_ACCEL_PREFIX and status == 200 and self._is_for_all:
            headers.append((b"x-accel-expires", str(int(LIVE_SECONDS)).encode()))  # nginx may send the header again
        self._keep_ready(status, headers, data)
        await _head(send, status, headers)
        await send({"type": "http.response.body", "body": data[start : start + length]})

    async def _without_store(self, send: Send, fault: StorageError) -> None:
        logger.error("%s of %s cannot be read", self._form.key, self._asked.host, exc_info=fault)
        await _say(self._asked, send, 503, "Not now", "Try again in a moment.", [(b"retry-after", b"10")])

    def _described(self, etag: str) -> Headers:
        said = {name for name, _ in self._headers}
        headers = [(b"etag", etag.encode()), (b"accept-ranges", b"bytes")]
        if b"content-type" not in said:
            headers.append((b"content-type", self._file.media_type.encode()))
        if b"cache-control" not in said:
            is_hashed = self._status == 200 and _HASHED.search(self._file.name)
            headers.append((b"cache-control", _FOR_EVER if is_hashed else _ASK_AGAIN))
        if self._form.encoding:
            headers.append((b"content-encoding", self._form.encoding.encode()))
        if len(self._file.forms) > 1:
            headers.append((b"vary", b"accept-encoding"))
        return headers

    def _part(self, etag: str) -> tuple[int, int, int]:
        """(start, length, status). Raises RangeNotSatisfiableError."""
        wanted = "" if self._asked.is_head or self._status != 200 else self._asked.get(b"range")
        part = part_of(wanted, self._asked.get(b"if-range"), self._form.size, etag)
        return (*part, 206) if part else (0, self._form.size, self._status)

    def _keep_ready(self, status: int, headers: Headers, data: bytes) -> None:
        is_still_so = known_site(self._site.name) is self._site
        if status == 200 and is_still_so and (key := self._asked.key):
            ready_answers.keep(key, headers, data, until=self._site.until)

    @property
    def _is_for_all(self) -> bool:
        """Whether the answer is the same for all clients; it is not where a page replaces a missing file."""
        path = self._asked.path
        return "." not in path.rpartition("/")[2] or path.lstrip("/") == self._file.name

    async def _by_proxy(self, send: Send, headers: Headers) -> None:
        """Have nginx send a large file; it handles ranges itself."""
        kept = [one for one in headers if one[0] not in (b"content-length", b"content-range")]
        inside = f"{settings.SITES_ACCEL_PREFIX}/{self._form.key}".encode()
        headers = [*kept, (b"x-accel-redirect", inside), (b"content-length", b"0")]
        self._keep_ready(self._status, headers, b"")
        await _head(send, self._status, headers)
        await send({"type": "http.response.body", "body": b""})

    async def _stream(
        self, receive: Receive, send: Send, status: int, headers: Headers, start: int, length: int
    ) -> None:
        global _streams
        if _streams >= settings.MAX_LIVE_READERS:
            await _say(self._asked, send, 503, "Busy", "Try again in a moment.", [(b"retry-after", b"5")])
            return
        _streams += 1
        try:
            try:
                file = await in_threads(default_storage.open, self._form.key)
            except StorageError as fault:
                await self._without_store(send, fault)
                return
            await _head(send, status, headers)
            await send_body(file_pieces(file, start, length), receive, send)
        finally:
            _streams -= 1


# --- What is kept in memory --------------------------------------------------------------------------------------

_kept: OrderedDict[str, bytes] = OrderedDict()
_kept_bytes = 0


async def _bytes_of(form: Form) -> bytes:
    """A small file's bytes. The bytes of a key never change."""
    global _kept_bytes
    if (data := _kept.get(form.key)) is not None:
        _kept.move_to_end(form.key)
        return data
    data = await in_threads(_read, form.key)
    if form.key not in _kept:
        _kept[form.key] = data
        _kept_bytes += len(data)
    while _kept_bytes > KEPT_BYTES:
        _kept_bytes -= len(_kept.popitem(last=False)[1])
    return data


def _read(key: str) -> bytes:
    with default_storage.open(key) as file:
        return bytes(file.read())


async def _in_database(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    def run() -> T:
        try:
            return read(*args, **kwargs)
        finally:
            connection.close()

    return await asyncio.get_running_loop().run_in_executor(_threads, run)


# --- HTTP --------------------------------------------------------------------------------------------------------


def _encodings(accepted: str) -> set[str]:
    """The content codings that a client accepts: RFC 9110, section 12.5.3."""
    taken = set()
    for part in accepted.lower().split(","):
        coding, _, weight = part.partition(";")
        if weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            taken.add(coding.strip())
    return taken


def _names(known: str, etag: str) -> bool:
    return bool(known) and (
        known.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in known.split(","))
    )


async def _head(send: Send, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _say(asked: _Request, send: Send, status: int, title: str, text: str, headers: Headers | None = None) -> None:
    """An error page of the server."""
    page = _PAGE.format(title=title, text=text).encode()
    about = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")]
    mine = [*about, (b"content-length", str(len(page)).encode()), (b"content-security-policy", _POLICY)]
    said = {name for name, _ in mine}
    await _head(send, status, [*(one for one in headers or [] if one[0] not in said), *mine])
    await send({"type": "http.response.body", "body": b"" if asked.is_head else page})


_POLICY = b"default-src 'none'; style-src 'unsafe-inline'"
