"""Storage in an S3-compatible store: django-storages' backend, but all reads and writes are streamed.

Nothing is buffered whole in memory or on disk. Every error is an OSError, as with a local folder. Imported only when
such a store is configured, because its client costs start-up time and memory.
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

# One part of a large upload is in memory at a time. S3's minimum size of a part, and its maximum number of them.
PART_BYTES, MOST_PARTS = 5 * 1024**2, 10_000
MOST_DELETED = 1_000  # per request
CONNECT_SECONDS, SILENCE_SECONDS, TRIES = 2, 10, 2
_MISSING = frozenset({"NoSuchKey", "404"})


class S3Store(S3Storage):  # type: ignore[misc]  # the library has no types
    """Takes django-storages' options, except `client_config`, which is made here."""

    def __init__(self, **options: Any) -> None:
        client = Config(
            s3={"addressing_style": options.get("addressing_style")},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=SILENCE_SECONDS,
            retries={"mode": "standard", "total_max_attempts": TRIES},
            max_pool_connections=64,
            # Many compatible stores do not support checksums in trailers; SHA-256 digests are in the database.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        super().__init__(client_config=client, **options)
        self._reset_connections()
        _stores.add(self)

    def _reset_connections(self) -> None:
        """Drop connections. A forked process must: two processes must not share one."""
        self._connections, self._lock = SimpleNamespace(), Lock()

    @property
    def connection(self) -> Any:
        """One for all threads: the client is thread-safe, and one per thread would take ten megabytes each."""
        with self._lock:
            return super().connection

    @property
    def bucket(self) -> Any:
        """Not cached: the library's cached bucket would survive a fork."""
        return self.connection.Bucket(self.bucket_name)

    @property
    def _client(self) -> Any:
        return self.connection.meta.client

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """Always a unique name: checking first whether a name is free would be a race."""
        return f"{clean_name(name)}_{secrets.token_hex(6)}"

    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        if mode != "rb":
            raise ValueError(f"{mode!r}: open stored files with 'rb', and write them with save()")
        where = {"Bucket": self.bucket_name, "Key": self._key(name)}

        def fetch(start: int) -> tuple[StreamingBody, int]:
            part = {"Range": f"bytes={start}-"} if start else {}
            answer = self._client.get_object(**where, **part)
            if part and "ContentRange" not in answer:
                answer["Body"].close()
                raise StorageError("the S3 store does not support range requests")
            return answer["Body"], start + int(answer["ContentLength"])

        return File(cast("IO[bytes]", StoredFile(fetch)), name)

    def _save(self, name: str, content: File[bytes]) -> str:
        config = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=max(PART_BYTES, content.size // (MOST_PARTS - 1)),
            use_threads=False,  # otherwise ten parts would be in memory at once
        )
        # Guess no type or encoding from the name: the bytes must come out as they went in.
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
        """Delete these names, a thousand per request; missing ones are not an error."""
        left = iter(names)
        while keys := [{"Key": self._key(name)} for name in islice(left, MOST_DELETED)]:
            with _as_os_errors():
                answer = self._client.delete_objects(Bucket=self.bucket_name, Delete={"Objects": keys, "Quiet": True})
            if errors := answer.get("Errors"):
                raise StorageError(f"the S3 store kept {len(errors)} of {len(keys)}: {errors[0].get('Code')}")

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


def _reset_all() -> None:
    for store in _stores:
        store._reset_connections()


_stores: WeakSet[S3Store] = WeakSet()
os.register_at_fork(after_in_child=_reset_all)


class StoredFile(io.RawIOBase):
    """A stored object, streamed: one request from the current position, and a new one after a seek.

    `fetch(start)` requests the bytes from `start` and returns (body, size of the whole). The first request is made at
    once, so that a missing key is an error on opening. Raises FileNotFoundError and StorageError.
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
            raise ValueError("negative seek position")
        self._position = start + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, fewer only at the end. Retries once on a broken connection."""
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
        self._release_body()
        super().close()

    def _read(self, size: int) -> bytes:
        try:
            with _as_os_errors():
                if self._body is None or self._fetched != self._position:
                    self._release_body()
                    self._body, _ = self._fetch(self._position)
                    self._fetched = self._position
                data = self._body.read(size)
            if len(data) < size:
                raise StorageError("the S3 store sent fewer bytes than requested")
        except StorageError:
            self._release_body()
            raise
        return bytes(data)

    def _release_body(self) -> None:
        """Release the connection: to the pool if the body was read to its end, else it is closed."""
        if self._body is not None:
            self._body.close()
            self._body = None


class _Chunks:
    """A reader over a file's own chunks() for the upload, because callers may wrap chunks(), such as to hash them."""

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
    """Turn the client's errors into OSErrors. Their texts are dropped, because they contain the store's address."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _MISSING:
            raise FileNotFoundError("the S3 store has no such key") from error
        raise StorageError(f"the S3 store refused: {code}") from error
    except (BotoCoreError, Boto3Error, HTTPError) as error:
        raise StorageError(f"the S3 store did not answer: {type(error).__name__}") from error
