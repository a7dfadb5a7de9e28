"""Stored bytes in an S3-compatible store: that of django-storages, except that what it reads and writes are streams.

Nothing is gathered in memory or on disk, however large it is. Every fault is an OSError, as those of a folder are.
Imported only where such a store is chosen, because its client takes its time and its memory.
"""

import io
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from threading import Lock
from types import SimpleNamespace
from typing import IO, Any, cast
from weakref import WeakSet

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.response import StreamingBody
from django.core.files.base import File
from storages.backends.s3 import S3Storage
from storages.utils import clean_name
from urllib3.exceptions import HTTPError

from chef.storage.errors import StorageError

# One part of a large upload is in memory at a time: the least that S3 takes. Of one object, it takes 10,000 at most.
PART_BYTES, MOST_PARTS = 5 * 1024**2, 10_000
MOST_DELETED = 1_000  # in one request
CONNECT_SECONDS, SILENCE_SECONDS, TRIES = 2, 10, 2
_MISSING = frozenset({"NoSuchKey", "404"})


class S3Store(S3Storage):  # type: ignore[misc]  # the library has no types
    """Options are django-storages' own, besides `client_config`, which is made here."""

    def __init__(self, **options: Any) -> None:
        client = Config(
            s3={"addressing_style": options.get("addressing_style")},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=SILENCE_SECONDS,
            retries={"mode": "standard", "total_max_attempts": TRIES},
            max_pool_connections=64,
            # Many compatible stores know no checksums in trailers; SHA-256 sums are in the database.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        super().__init__(client_config=client, **options)
        self._begin()
        _stores.add(self)

    def _begin(self) -> None:
        """Without a connection, as a process that was forked has to: two would talk on one."""
        self._connections, self._lock = SimpleNamespace(), Lock()

    @property
    def connection(self) -> Any:
        """One for all threads, whose client is safe to share: one for each would take ten megabytes a thread."""
        with self._lock:
            return super().connection

    @property
    def bucket(self) -> Any:
        """Not kept, because what the library keeps outlives a fork."""
        return self.connection.Bucket(self.bucket_name)

    @property
    def _client(self) -> Any:
        return self.connection.meta.client

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """Always one of its own: between asking whether a name is taken and taking it, another could."""
        return f"{clean_name(name)}_{secrets.token_hex(6)}"

    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        if mode != "rb":
            raise ValueError(f"{mode!r}: what is stored is only read, as bytes, and written by save()")
        where = {"Bucket": self.bucket_name, "Key": self._key(name)}

        def fetch(start: int) -> tuple[StreamingBody, int]:
            part = {"Range": f"bytes={start}-"} if start else {}
            answer = self._client.get_object(**where, **part)
            if part and "ContentRange" not in answer:
                answer["Body"].close()
                raise StorageError("the S3 store sends no parts of what it has")
            return answer["Body"], start + int(answer["ContentLength"])

        return File(cast("IO[bytes]", StoredFile(fetch)), name)

    def _save(self, name: str, content: File[bytes]) -> str:
        config = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=max(PART_BYTES, content.size // (MOST_PARTS - 1)),
            use_threads=False,  # else ten parts would be in memory at once
        )
        # No type and no encoding guessed from the name: what comes out is what went in.
        kind = {"ContentType": self.default_content_type}
        with _as_os_errors():
            self._client.upload_fileobj(
                _Chunks(content.chunks()), self.bucket_name, self._key(name), ExtraArgs=kind, Config=config
            )
        return name

    def delete(self, name: str) -> None:
        with _as_os_errors():
            self._client.delete_object(Bucket=self.bucket_name, Key=self._key(name))

    def delete_many(self, names: Iterable[str]) -> None:
        """Remove what has these names, a thousand in a request; what is gone already is no fault."""
        left = iter(names)
        while keys := [{"Key": self._key(name)} for name in islice(left, MOST_DELETED)]:
            with _as_os_errors():
                answer = self._client.delete_objects(Bucket=self.bucket_name, Delete={"Objects": keys, "Quiet": True})
            if faults := answer.get("Errors"):
                raise StorageError(f"the S3 store kept {len(faults)} of {len(keys)}: {faults[0].get('Code')}")

    def exists(self, name: str) -> bool:
        with _as_os_errors():
            return bool(super().exists(name))

    def listdir(self, name: str) -> tuple[list[str], list[str]]:
        with _as_os_errors():
            folders, files = super().listdir(name)
        return folders, files

    def size(self, name: str) -> int:
        with _as_os_errors():
            return int(super().size(name))

    def _key(self, name: str) -> str:
        return str(self._normalize_name(clean_name(name)))


def _begin_all() -> None:
    for store in _stores:
        store._begin()


_stores: WeakSet[S3Store] = WeakSet()
os.register_at_fork(after_in_child=_begin_all)


class StoredFile(io.RawIOBase):
    """What is stored under a key, read as it comes: one request from where the reader is, and another after a jump.

    `fetch(start)` asks for the bytes from `start` and gives (body, size of the whole). The first is asked for at once:
    a key that does not exist is an error now. Raises FileNotFoundError and StorageError.
    """

    def __init__(self, fetch: Callable[[int], tuple[StreamingBody, int]]) -> None:
        self._fetch = fetch
        self._position = self._fetched = 0
        self._body: StreamingBody | None = None
        with _as_os_errors():
            self._body, self.size = fetch(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError("there is nothing before the beginning")
        self._position = start + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes, fewer only at the end. A connection that breaks is replaced once."""
        if self.closed:
            raise ValueError("the file is closed")
        left = max(self.size - self._position, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        try:
            data = self._read(wanted)
        except StorageError:
            data = self._read(wanted)
        self._position += len(data)
        self._fetched = self._position
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self.read()

    def close(self) -> None:
        self._let_go()
        super().close()

    def _read(self, size: int) -> bytes:
        try:
            with _as_os_errors():
                if self._body is None or self._fetched != self._position:
                    self._let_go()
                    self._body, _ = self._fetch(self._position)
                    self._fetched = self._position
                data = self._body.read(size)
            if len(data) < size:
                raise StorageError("the S3 store sent less than it has")
        except StorageError:
            self._let_go()
            raise
        return bytes(data)

    def _let_go(self) -> None:
        """A connection on which all has come goes back to the pool; one with more to come is closed."""
        if self._body is not None:
            self._body.close()
            self._body = None


class _Chunks:
    """What the upload reads from: a file's own chunks, because whoever stores may look at them as they pass."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = bytearray()

    def read(self, size: int = sys.maxsize) -> bytes:
        while len(self._rest) < size and (chunk := next(self._chunks, b"")):
            self._rest += chunk
        data = bytes(memoryview(self._rest)[:size])
        del self._rest[:size]
        return data


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """The client's faults as those of a file. Their texts are not passed on: they tell the store's address."""
    try:
        yield
    except ClientError as fault:
        code = str(fault.response.get("Error", {}).get("Code", ""))
        if code in _MISSING:
            raise FileNotFoundError("the S3 store has no such key") from fault
        raise StorageError(f"the S3 store refused: {code}") from fault
    except (BotoCoreError, Boto3Error, HTTPError) as fault:
        raise StorageError(f"the S3 store did not answer: {type(fault).__name__}") from fault
