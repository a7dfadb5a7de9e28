"""Large downloads over real HTTP: whole, in ranges and zipped give the same bytes; slow readers hold no threads."""

import contextlib
import hashlib
import io
import socket
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import httpx
import psutil
import pytest

from chef.web.reading import PIECE_BYTES
from tests.installation import Installation, until

pytestmark = pytest.mark.once("postgresql")

SIZE = 30 * 1000**2 + 1
READERS = 30


@dataclass(frozen=True)
class Large:
    """One artifact that is far larger than the socket buffers."""

    chef: Installation
    path: str
    sha256: str

    @contextlib.contextmanager
    def opened(self) -> Iterator[socket.socket]:
        """A connection with the request sent and nothing of the answer read."""
        with socket.socket() as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            wire.settimeout(30)
            wire.connect(("127.0.0.1", self.chef.port))
            head = f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.chef.token}\r\n"
            wire.sendall(f"{head}Connection: close\r\n\r\n".encode())
            yield wire

    def get(self, path: str = "", **headers: str) -> httpx.Response:
        with self.chef.client() as client:
            return client.get(path or self.path, headers=headers)


@pytest.fixture(scope="module")
def large(chef: Installation) -> Large:
    script = f"mkdir dist && head -c {SIZE} /dev/urandom > dist/large.bin"
    accepted = chef.submit({"x.txt": "x"}, strategy={"runtime": "static", "buildCommand": script, "outputs": ["dist"]})
    assert chef.wait(accepted)["status"] == "completed"
    path = f"/v1/projects/{accepted['projectId']}/artifacts"
    [artifact] = chef.get(path)["artifacts"]
    assert artifact["size"] == SIZE
    return Large(chef, f"{path}/dist/large.bin", artifact["sha256"])


def test_whole_ranges_and_zip_give_the_same_bytes(large: Large) -> None:
    whole = large.get()
    edges = [0, 1, PIECE_BYTES - 1, 3 * PIECE_BYTES, 3 * PIECE_BYTES + 1, SIZE // 2, SIZE]
    parts = [large.get(Range=f"bytes={a}-{b - 1}") for a, b in pairwise(edges)]
    zipped = large.get(large.path.replace("/dist/large.bin", ".zip"))

    assert (whole.status_code, int(whole.headers["Content-Length"])) == (200, SIZE)
    assert hashlib.sha256(whole.content).hexdigest() == large.sha256
    assert {part.status_code for part in parts} == {206}
    assert b"".join(part.content for part in parts) == whole.content
    assert len(zipped.content) == int(zipped.headers["Content-Length"])
    assert zipfile.ZipFile(io.BytesIO(zipped.content)).read("dist/large.bin") == whole.content


def test_slow_readers_hold_no_threads_and_block_nobody(large: Large) -> None:
    web = psutil.Process(large.chef.processes["web"].pid)
    large.get(Range="bytes=0-0")
    before = web.num_threads()

    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(large.opened()) for _ in range(READERS)]
        for wire in wires:
            assert wire.recv(12).startswith(b"HTTP/1.1 200")
        time.sleep(0.5)  # a request's own thread ends a moment after the request

        # A few threads read for all downloads and stay; others belong to current requests.
        assert web.num_threads() - before < READERS / 3
        began = time.monotonic()
        large.chef.get("/health/live")
        assert time.monotonic() - began < 1
        # A slow reader that continues gets the whole file.
        assert _digest_of(wires[0]) == large.sha256


def test_a_disconnected_reader_s_file_is_closed(large: Large) -> None:
    web = psutil.Process(large.chef.processes["web"].pid)

    def is_open() -> bool:
        return any("/artifacts/" in file.path for file in web.open_files())

    with large.opened() as wire:
        assert wire.recv(12).startswith(b"HTTP/1.1 200")
        assert is_open()

    until(lambda: not is_open(), seconds=10, what="the file is closed")


def test_a_terminating_server_finishes_a_download(large: Large) -> None:
    web = large.chef.processes.pop("web")
    try:
        with large.opened() as wire:
            assert wire.recv(12).startswith(b"HTTP/1.1 200")
            web.terminate()
            time.sleep(1)
            assert _digest_of(wire) == large.sha256
        web.wait(20)
    finally:
        web.kill()
        web.wait(10)
        large.chef.start_web()


def _digest_of(wire: socket.socket) -> str:
    """The SHA-256 of the body; the first bytes of the head have been read already."""
    received = bytearray()
    while data := wire.recv(1024 * 1024):
        received += data
    return hashlib.sha256(received.partition(b"\r\n\r\n")[2]).hexdigest()
