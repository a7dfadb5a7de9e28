"""Many senders of prompts in one cheap process, each waiting on its own connection for the result.

They share the machine with what they measure, so they do nothing while they wait, and read only complete answers.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import uvloop

# Only the two stages that every app needs, and no repairs: the content does not matter here.
CONFIG = {"enableAnalysis": False, "enableTests": False, "autoFix": False}
SENT_AT_ONCE = 10  # per second, of callers that are to be answered at the same moment


@dataclass(frozen=True)
class Calls:
    """What is sent. `leave_at` and `due_at` are seconds of time.time(); without them, each waits for its files.

    At `leave_at`, all close their connections. By `due_at`, all have waited as long as they asked for: they are sent
    a few in each second, as `Prefer: wait` takes whole seconds, and the last ones ask for the shortest wait.
    """

    url: str
    token: str
    name: str  # distinguishes the prompts from those of other calls
    callers: int
    leave_at: float | None = None
    due_at: float | None = None

    def prompt(self, number: int) -> str:
        return f"{self.name}, app {number}"


@dataclass(frozen=True)
class Call:
    """One sender's answer and when it arrived; status 0 if the sender left before."""

    number: int
    wait: int  # the most seconds to wait, as requested; 0: as long as allowed
    status: int
    came_at: float
    document: Mapping[str, Any]


def call(calls: Calls) -> list[Call]:
    """Send all, and wait until each is answered or has left."""
    return uvloop.run(_call(calls))


async def _call(calls: Calls) -> list[Call]:
    return await asyncio.gather(*(_send(calls, number) for number in range(calls.callers)))


async def _send(calls: Calls, number: int) -> Call:
    wait = 0
    if calls.due_at is not None:
        seconds_later = number // SENT_AT_ONCE
        wait = round(calls.due_at - time.time()) - seconds_later
        await asyncio.sleep(calls.due_at - wait - time.time())
    host = urlsplit(calls.url)
    reader, writer = await asyncio.open_connection(host.hostname, host.port)
    writer.write(_request(calls, number, wait))
    try:
        async with asyncio.timeout(None if calls.leave_at is None else calls.leave_at - time.time()):
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_length(head))
        return Call(number, wait, int(head.split()[1]), time.time(), json.loads(body))
    except TimeoutError:
        return Call(number, wait, 0, time.time(), {})
    finally:
        writer.transport.abort()


def _request(calls: Calls, number: int, wait: int) -> bytes:
    document = {"prompt": calls.prompt(number), "strategy": {"runtime": "static"}, "config": CONFIG}
    body = json.dumps(document).encode()
    lines = [
        "POST /v1/generate HTTP/1.1",
        f"Host: {urlsplit(calls.url).netloc}",
        f"Authorization: Bearer {calls.token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *([f"Prefer: wait={wait}"] if wait else []),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise ValueError(f"an answer without a length: {head!r}")
