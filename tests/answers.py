"""Reads streamed responses: Django's test client leaves asynchronous bodies unread."""

from typing import Any

from asgiref.sync import async_to_sync


def body_of(response: Any) -> bytes:
    """The whole body of a response, streamed or not."""
    return bytes(async_to_sync(_gathered)(response)) if response.streaming else bytes(response.content)


async def _gathered(response: Any) -> bytes:
    return b"".join([piece async for piece in response])
