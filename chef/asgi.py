"""The web process: `uvicorn chef.asgi:application`."""

import asyncio
import json
import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chef.settings")
django_application: Any = get_asgi_application()


class BodyTooLarge(Exception):
    """More came than any request may hold."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Django, behind a limit on request bodies: Django itself would first put all of any body on disk."""
    from django.conf import settings

    from chef import memory, streams

    if scope["type"] != "http":
        await django_application(scope, receive, send)
        return
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    received = 0

    async def bounded_receive() -> Any:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise BodyTooLarge
        return message

    try:
        if declared.isdigit() and int(declared) > most:
            raise BodyTooLarge
        await streams.serve(django_application, scope, receive, send, body_of=bounded_receive)
    except BodyTooLarge:
        await _refuse(send, f"The request has more than {most:,} bytes: send less, or fewer files.")
    finally:
        if received > settings.FILE_UPLOAD_MAX_MEMORY_SIZE:
            await asyncio.to_thread(memory.give_back)


async def _refuse(send: Any, detail: str) -> None:
    document = {"type": "client_error", "errors": [{"code": "request_too_large", "detail": detail, "attr": None}]}
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})
