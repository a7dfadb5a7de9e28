"""The web process: `uvicorn chef.asgi:application`."""

import asyncio
import json
import os
from typing import Any

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.urls import get_resolver

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chef.settings")
django.setup(set_prefix=False)

# These import models, which needs Django to be set up.
from builds import site_names  # noqa: E402
from builds.sites import server  # noqa: E402
from chef.web import memory, streaming  # noqa: E402


class _Handler(ASGIHandler):
    """Django's handler, also for bodies without a Content-Length, such as `tar cz . | curl -F archive=@-` sends."""

    def create_request(self, scope: Any, body_file: Any) -> Any:
        # Django has read the whole body by now; REST framework treats one without a length as empty.
        if all(name != b"content-length" for name, _ in scope["headers"]):
            length = str(body_file.seek(0, os.SEEK_END)).encode()
            body_file.seek(0)
            scope = {**scope, "headers": [*scope["headers"], (b"content-length", length)]}
        return super().create_request(scope, body_file)


django_application: Any = _Handler()
get_resolver().url_patterns  # noqa: B018 - loads all views before settle() below
memory.settle()


# For browsers. Not a template, because such a request is refused before Django sees it.
_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Too large · Chef</title>
  <link rel="stylesheet" href="/static/css/chef.css">
</head>
<body>
  <main>
    <div class="empty">
      <h1>Too large</h1>
      <p>{detail} Leave out installed packages and what builds have made.</p>
      <p class="actions"><a class="button" href="/new">Try again</a></p>
    </div>
  </main>
</body>
</html>
"""


class BodyTooLargeError(Exception):
    """The body is larger than any request may be."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Django behind a limit on the request body: Django alone would first write any body to disk in full."""
    if scope["type"] != "http":
        await django_application(scope, receive, send)
        return
    headers = dict(scope["headers"])
    if site_names.is_ours(headers.get(b"host", b"").decode("latin-1")):
        await server.serve(scope, receive, send)
        return
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    declared = headers.get(b"content-length", b"0")
    received = 0

    async def bounded_receive() -> Any:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise BodyTooLargeError
        return message

    try:
        if declared.isdigit() and int(declared) > most:
            raise BodyTooLargeError
        await streaming.serve(django_application, scope, receive, send, body_of=bounded_receive)
    except BodyTooLargeError:
        is_for_programs = scope["path"].startswith("/v1/")
        await _refuse(send, f"The request has more than {most:,} bytes: send less, or fewer files.", is_for_programs)
    finally:
        if received > settings.FILE_UPLOAD_MAX_MEMORY_SIZE:
            await asyncio.to_thread(memory.give_back)


async def _refuse(send: Any, detail: str, is_for_programs: bool) -> None:
    document = {"type": "client_error", "errors": [{"code": "request_too_large", "detail": detail, "attr": None}]}
    body = json.dumps(document) if is_for_programs else _PAGE.format(detail=detail)
    media_type = b"application/json" if is_for_programs else b"text/html; charset=utf-8"
    headers = [(b"content-type", media_type), (b"connection", b"close")]
    headers.append((b"content-security-policy", b"default-src 'none'; style-src 'self'; frame-ancestors 'none'"))
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
