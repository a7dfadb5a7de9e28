"""Artifacts in an S3-compatible store. Tests with `each_store` cover what all stores have in common."""

import contextlib
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage
from pytest_django import Settings
from rest_framework.test import APIClient

from builds.artifacts import discard_attempt
from builds.models import Build
from builds.operations import health
from builds.runner import fault_code
from builds.sites import lookup
from builds.sites.publishing import publish_build
from chef import settings as chef_settings
from chef.storage.deletion import discard_keys
from chef.storage.errors import StorageError
from chef.storage.s3 import PART_BYTES
from tests.builds.sites.outputs import ask, complete
from tests.installation import ROOT, until
from tests.ports import free_port
from tests.s3_server import KEY, PAGE_KEYS, S3Server

pytestmark = pytest.mark.once("postgresql")

MIB = 1024**2


class GeneratedFile(File[bytes]):
    """A file that is generated while it is stored, and may end with an error."""

    def __init__(self, size: int, error: Exception | None = None) -> None:
        super().__init__(None)
        self._size, self._error = size, error

    @property
    def size(self) -> int:
        return self._size

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        for start in range(0, self._size, 256 * 1024):
            yield bytes([start // MIB % 251]) * min(256 * 1024, self._size - start)
        if self._error:
            raise self._error


@contextlib.contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Yields a function that returns the peak growth of Python's own memory, in bytes."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# --- Settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"S3_BUCKET": "", "S3_ENDPOINT_URL": "https://s3.example.com"}, "S3_ENDPOINT_URL: set S3_BUCKET too"),
        ({"S3_BUCKET": "", "S3_PREFIX": "a", "S3_REGION": "b"}, "S3_REGION, S3_PREFIX: set S3_BUCKET too"),
        ({"S3_BUCKET": "s3://bucket"}, "is not a bucket's name"),
        ({"S3_BUCKET": "bucket/below"}, "S3_PREFIX"),
        ({"S3_BUCKET": "bucket", "S3_ENDPOINT_URL": "s3.example.com"}, "begin it with http:// or https://"),
        ({"S3_BUCKET": "bucket", "S3_ADDRESSING_STYLE": "paths"}, "write path, virtual or auto"),
        ({"S3_BUCKET": "bucket", "S3_ACCESS_KEY_ID": "known"}, "set both, or neither"),
        ({"S3_BUCKET": "bucket", "S3_SECRET_ACCESS_KEY": "hidden"}, "set both, or neither"),
        ({"S3_BUCKET": "bucket", "S3_SESSION_TOKEN": "hidden"}, "set both, or neither"),
    ],
)
def test_invalid_settings_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ImproperlyConfigured) as caught:
        chef_settings.artifact_store()

    assert message in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_nginx_cannot_send_artifacts_from_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITES_ACCEL_PREFIX", "/_stored")
    assert chef_settings.accel_prefix() == "/_stored"
    monkeypatch.setenv("S3_BUCKET", "bucket")

    with pytest.raises(ImproperlyConfigured, match="unset one"):
        chef_settings.accel_prefix()


@pytest.mark.parametrize(
    ("endpoint", "style", "used"),
    [("", "", "auto"), ("https://s3.example.com", "", "path"), ("https://s3.example.com", "virtual", "virtual")],
)
def test_a_self_hosted_store_has_the_bucket_in_the_path(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, style: str, used: str
) -> None:
    monkeypatch.setenv("S3_BUCKET", "bucket")
    monkeypatch.setenv("S3_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("S3_ADDRESSING_STYLE", style)

    assert chef_settings.artifact_store()["OPTIONS"]["addressing_style"] == used


@pytest.mark.parametrize("ours", [True, False])
def test_keys_come_from_the_settings_or_from_boto_s_chain(
    bucket: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "aws")
    if not ours:
        monkeypatch.delenv("S3_ACCESS_KEY_ID")
        monkeypatch.delenv("S3_SECRET_ACCESS_KEY")
    settings.STORAGES = {**settings.STORAGES, "default": chef_settings.artifact_store()}

    default_storage.delete(default_storage.save("x", ContentFile(b"x")))

    client: Any = getattr(default_storage, "connection").meta.client  # noqa: B009 - not of every store
    used = client._request_signer._credentials.get_frozen_credentials()
    assert (used.access_key, used.token) == ((KEY, None) if ours else ("aws", "aws"))


@pytest.mark.slow
def test_without_a_bucket_no_s3_package_is_loaded(tmp_path: Path) -> None:
    script = (
        "import sys, django; django.setup()\n"
        "from django.core.files.storage import default_storage\n"
        "import chef.asgi, builds.tasks; default_storage.exists('x')\n"
        "sys.exit(any(name.partition('.')[0] in ('boto3', 'botocore', 'storages') for name in sys.modules))"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "chef.settings", "CHEF_DATA_DIR": str(tmp_path)}

    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment).returncode == 0


# --- Reading and writing -----------------------------------------------------------------------------------------


def test_any_range_equals_that_of_the_whole(bucket: str) -> None:
    chance = random.Random(7)
    data = chance.randbytes(300_000)
    name = default_storage.save("x/0", ContentFile(data))

    with default_storage.open(name) as file:
        assert file.size == len(data)
        assert file.seek(-5, os.SEEK_END) == len(data) - 5
        assert file.read() == data[-5:]
        assert file.read(10) == b""
        assert file.seek(len(data) + 10) == len(data) + 10
        assert file.read() == b""
        position = file.seek(0)
        for _ in range(40):
            if chance.random() < 0.5:
                position = file.seek(chance.randrange(len(data)))
            size = chance.choice([0, 1, 8192, 100_000])
            assert file.read(size) == data[position : position + size]
            position = file.tell()
        assert [file.seek(10), file.seek(5, os.SEEK_CUR)] == [10, 15]


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 7])
def test_a_stored_file_is_read_back_unchanged(bucket: str, s3: S3Server, size: int) -> None:
    name = default_storage.save("x/site.css.gz", GeneratedFile(size))

    with default_storage.open(name) as file:
        assert file.read() == b"".join(GeneratedFile(size).chunks())
    head = s3.client.head_object(Bucket=bucket, Key=f"chef/artifacts/{name}")
    assert head["ContentType"] == "application/octet-stream"
    assert "ContentEncoding" not in head
    assert default_storage.size(name) == size


def test_large_files_take_little_memory(bucket: str) -> None:
    size = 40 * MIB
    with peak_memory() as grown:
        name = default_storage.save("x/0", GeneratedFile(size))
        assert grown() < 5 * PART_BYTES
    with peak_memory() as grown, default_storage.open(name) as file:
        assert sum(len(piece) for piece in iter(lambda: file.read(240 * 1024), b"")) == size
        assert grown() < 4 * MIB


def test_concurrent_saves_under_one_name_get_different_names(bucket: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda number: default_storage.save("x/0", ContentFile(b"%d" % number)), range(8)))

    assert len(set(names)) == 8
    for number, name in enumerate(names):
        with default_storage.open(name) as file:
            assert file.read() == b"%d" % number


@pytest.mark.parametrize("size", [10, 3 * PART_BYTES])
def test_an_incomplete_file_is_not_stored(bucket: str, s3: S3Server, size: int) -> None:
    class OvertakenError(Exception):
        pass

    with pytest.raises(OvertakenError):
        default_storage.save("x/0", GeneratedFile(size, OvertakenError()))

    assert (s3.keys(bucket), s3.uploads(bucket)) == ([], 0)


def test_a_missing_file_is_an_error_when_opened(bucket: str) -> None:
    with pytest.raises(FileNotFoundError):
        default_storage.open("x/0")
    with pytest.raises(FileNotFoundError):
        default_storage.size("x/0")
    assert not default_storage.exists("x/0")
    default_storage.delete("x/0")
    discard_keys(["x/0", "x/1"])
    with pytest.raises(ValueError, match="open stored files with 'rb'"):
        default_storage.open("x/0", "wb")


def test_all_files_of_an_attempt_are_deleted(bucket: str, s3: S3Server, queue_build: Any) -> None:
    build = queue_build()
    folder = f"chef/artifacts/{build.pk}"
    others = [f"{folder}/12/0", "chef/artifacts/another/1/0"]
    mine = [f"{folder}/1/{number}" for number in range(2 * PAGE_KEYS + 5)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.client.put_object(Bucket=bucket, Key=key, Body=b"x"), [*mine, *others]))

    discard_attempt(build.pk, 1, but={f"{build.pk}/1/7"})

    assert sorted(s3.keys(bucket)) == sorted([f"{folder}/1/7", *others])


# --- Threads and processes ---------------------------------------------------------------------------------------


def test_all_threads_share_one_client(bucket: str) -> None:
    started = threading.Barrier(6)

    def client_of(_: int) -> int:
        started.wait(10)
        return id(getattr(default_storage, "connection"))  # noqa: B009 - not of every store

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(client_of, range(6)))) == 1


def test_a_forked_process_has_its_own_connections(bucket: str) -> None:
    data = random.Random(3).randbytes(3 * MIB)
    name = default_storage.save("x/0", ContentFile(data))
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()

    def child() -> None:
        with default_storage.open(name) as file:
            answers.put((file.read() == data, default_storage.save("x/1", ContentFile(b"child"))))

    with default_storage.open(name) as file:
        first_part = file.read(MIB)
        process = fork.Process(target=child)
        process.start()
        is_same, second_name = answers.get(timeout=30)
        process.join(30)
        rest = file.read()

    assert (process.exitcode, is_same, first_part + rest == data) == (0, True, True)
    with default_storage.open(second_name) as file:
        assert file.read() == b"child"


# --- Errors ------------------------------------------------------------------------------------------------------


class Relay:
    """A proxy to the store: it closes the next connection after `left` bytes of answers."""

    def __init__(self, port: int) -> None:
        self._store, self.left, self.connections = port, 1 << 60, 0
        self._listening, self._ends = socket.create_server(("127.0.0.1", 0)), list[socket.socket]()
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for end in (self._listening, *self._ends):
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                self.connections += 1
                store = socket.create_connection(("127.0.0.1", self._store))
                self._ends += [client, store]
                allowed, self.left = self.left, 1 << 60
                threading.Thread(target=self._pass, args=(client, store, 1 << 60), daemon=True).start()
                threading.Thread(target=self._pass, args=(store, client, allowed), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, allowed: int) -> None:
        with contextlib.suppress(OSError):
            while allowed > 0 and (data := source.recv(min(65_536, allowed))):
                target.sendall(data)
                allowed -= len(data)
            for end in (source, target):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relay(bucket: str, s3: S3Server, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    relay = Relay(s3.port)
    use_endpoint(relay.url, settings, monkeypatch)
    yield relay
    relay.close()


def use_endpoint(url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", url)
    settings.STORAGES = {**settings.STORAGES, "default": chef_settings.artifact_store()}


@pytest.fixture
def make_unreachable(bucket: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to make the store unreachable."""
    return lambda: use_endpoint(f"http://127.0.0.1:{free_port()}", settings, monkeypatch)


def test_a_broken_connection_is_resumed_at_its_position(relay: Relay) -> None:
    data = random.Random(5).randbytes(2 * MIB)
    name = default_storage.save("x/0", ContentFile(data))
    before = relay.connections

    with default_storage.open(name) as file:
        file.read(1)
        relay.left = MIB  # of the connection opened by the seek
        file.seek(100)
        pieces = [data[:100], *iter(lambda: file.read(200_000), b"")]

    assert b"".join(pieces) == data
    assert relay.connections > before + 1


def test_an_unreachable_store_raises_an_os_error(make_unreachable: Callable[[], None]) -> None:
    make_unreachable()
    began = time.monotonic()

    for verb in (
        lambda: default_storage.save("x/0", ContentFile(b"x")),
        lambda: default_storage.open("x/0"),
        lambda: default_storage.delete("x/0"),
        lambda: default_storage.listdir("x"),
        lambda: default_storage.exists("x/0"),
    ):
        with pytest.raises(OSError, match="the S3 store did not answer") as caught:
            verb()
        assert fault_code(caught.value) == "storage_unavailable"
        assert "127.0.0.1" not in str(caught.value)

    assert time.monotonic() - began < 60


def test_a_missing_bucket_is_not_a_missing_file(bucket: str, s3: S3Server) -> None:
    s3.client.delete_bucket(Bucket=bucket)

    for verb in (lambda: default_storage.save("x", ContentFile(b"x")), lambda: default_storage.open("x")):
        with pytest.raises(StorageError, match="refused: NoSuchBucket"):
            verb()


@pytest.mark.django_db(transaction=True)
def test_an_unreachable_store_is_answered_with_retry_after(
    make_unreachable: Callable[[], None], owner: User, queue_build: Any, make_client: Any, settings: Settings
) -> None:
    settings.SITES_DOMAIN = "sites.test"
    lookup.forget_sites()
    files: dict[str, str | bytes] = {"dist/index.html": "<h1>Hi</h1>", "dist/large.bin": b"x" * 300_000}
    build: Build = complete(queue_build(), files, outputs=["dist"])
    publish_build(build, by=owner, slug="todo")
    client: APIClient = make_client(owner)
    client.raise_request_exception = False  # errors are also logged
    make_unreachable()

    answer = client.get(f"/v1/projects/{build.project_id}/artifacts/dist/index.html")
    pages = [ask("todo.sites.test", path) for path in ("/", "/large.bin")]

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert answer.json()["errors"][0]["code"] == "storage_unavailable"
    assert [(page.status, page.headers["retry-after"]) for page in pages] == [(503, "10")] * 2


@pytest.mark.django_db(transaction=True)
def test_health_answers_in_time_with_a_hanging_store(
    bucket: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    until(lambda: health.report()[1]["storage"] == "ok", seconds=30, what="the store to be healthy")
    monkeypatch.setattr(health, "ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}", settings, monkeypatch)

        reports = [health.report() for _ in range(health._pool._max_workers + 1)]
        until(lambda: health.report()[1]["database"] == "ok", seconds=5, what="another check's answer")

    assert {(status, checks["storage"]) for status, checks in reports} == {("down", "no response in time")}
