"""Writes a build's output: decodes, cleans, redacts, caps, batches and stores it. builds.logs.entries reads it back.

A writer's memory is bounded, however much the build prints. The first part of a phase's budget is stored as it comes;
after that only the last lines are kept, and a marker says how much was left out in between.
"""

import codecs
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from builds.logs.redaction import Redaction, StreamRedactor
from builds.models import LogChunk
from builds.queue.claims import BuildLease
from chef.jobs.leases import LeaseLostError
from chef.jobs.pubsub import publish_change
from chef.text.ansi import clean

# A line is stored at once, unless the last write was this recently: then together with what arrives until then.
FLUSH_SECONDS = 0.09
UNFINISHED_SECONDS = 0.2  # how long text may wait for its line end: a prompt, a progress bar
CHUNK_CHARS = 32 * 1024
LINE_CHARS = 8 * 1024  # a longer line is stored in pieces
TAIL_BYTES = 256 * 1024


@dataclass
class _Piece:
    """Text of one stream, to be stored as a row."""

    stream: str
    timestamp: datetime
    text: str
    size: int


class _LineReader:
    """Turns bytes of one stream, however split, into cleaned, redacted text that ends at line ends."""

    def __init__(self, redaction: Redaction) -> None:
        self._redactor = StreamRedactor(redaction)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, data: bytes) -> str:
        text = self._rest + self._decoder.decode(data)
        cut = text.rfind("\n") + 1
        if not cut and len(text) > LINE_CHARS:
            # A very long line: pass it on in pieces, but never cut an escape sequence or a CR LF pair.
            escape = text.rfind("\x1b", len(text) - 64)
            cut = escape if escape > 0 else len(text) - text.endswith("\r")
        self._rest = text[cut:]
        return self._redactor.feed(clean(text[:cut]))

    def drain(self, *, final: bool = False) -> str:
        """The text that waits for its line end: at the end of the stream, or when a prompt or progress bar stays open.

        What may be the start of a secret waits until the end of the stream.
        """
        text = self._rest + self._decoder.decode(b"", final=final)
        if not final and "\x1b" in text[-64:]:
            return ""
        self._rest = ""
        given = self._redactor.feed(clean(text))
        return given + self._redactor.finish() if final else given


class LogWriter:
    """Stores the output of one attempt, under its lease. A context manager; phases follow one another.

    `write` may be called from any thread, and blocks while the database is slow, which slows the build down instead
    of filling memory. `on_line` receives every whole line with its stream, stored or not.
    """

    def __init__(self, lease: BuildLease, *, max_bytes: int) -> None:
        self._lease = lease
        self._phase = ""
        self._redaction = Redaction(())
        # Installation and build each get half, so that a verbose installation cannot use up the build's share.
        self._phase_budget = max(max_bytes // 2, 2 * TAIL_BYTES)
        self._lock = threading.RLock()
        self._sequence = 0
        self._pending: list[_Piece] = []
        self._on_line: Callable[[str, str], None] = lambda line, stream: None
        self._wake_up = threading.Event()
        self._stop = threading.Event()
        self._flusher = threading.Thread(target=self._flush_regularly, name="log-flusher", daemon=True)
        self._begin("")

    def __enter__(self) -> "LogWriter":
        self._flusher.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._wake_up.set()
        self._flusher.join(timeout=10)

    def _begin(self, phase: str) -> None:
        self._phase = phase
        self._readers = {stream: _LineReader(self._redaction) for stream in ("stdout", "stderr")}
        self._budget = self._phase_budget - TAIL_BYTES
        self._tail: deque[_Piece] = deque()
        self._tail_size = self._left_out = 0
        self._partial = {"stdout": "", "stderr": ""}

    def set_secrets(self, secrets: Sequence[tuple[str, str]]) -> None:
        """Mask these (name, value) pairs: in `system_line` at once, in output from the next phase on."""
        with self._lock:
            self._redaction = Redaction(secrets)

    def masked(self, text: str) -> str:
        """A text with its secrets masked."""
        return self._redaction.redact(clean(text))

    def start_phase(self, phase: str, on_line: Callable[[str, str], None] | None = None) -> None:
        with self._lock:
            self._begin(phase)
            self._on_line = on_line or (lambda line, stream: None)

    def write(self, stream: str, data: bytes) -> None:
        """Take raw output. Raises LeaseLostError when the attempt may no longer write."""
        with self._lock:
            self._keep(stream, self._readers[stream].feed(data))
            if sum(piece.size for piece in self._pending) > 4 * CHUNK_CHARS:
                self._store()
        self._wake_up.set()

    def system_line(self, text: str) -> None:
        """Write one of Chef's own lines, in the stream `system`."""
        with self._lock:
            self._pending.append(_Piece("system", timezone.now(), self.masked(text) + "\n", 0))
        self._wake_up.set()

    def end_phase(self) -> None:
        """Store the rest of the phase; if the limit was reached, the marker and the last lines."""
        with self._lock:
            for stream, reader in self._readers.items():
                self._keep(stream, reader.drain(final=True))
                self._pass_on_lines(stream, "\n" if self._partial[stream] else "")
            if self._left_out:
                self._append_tail()
            self._store()

    def _keep(self, stream: str, text: str) -> None:
        if not text:
            return
        self._pass_on_lines(stream, text)
        piece = _Piece(stream, timezone.now(), text, len(text.encode(errors="replace")))
        if self._budget >= piece.size:
            self._budget -= piece.size
            self._append(piece)
        else:
            self._budget = 0
            self._remember(piece)

    def _append(self, piece: _Piece) -> None:
        last = self._pending[-1] if self._pending else None
        if last and last.stream == piece.stream and len(last.text) + len(piece.text) <= CHUNK_CHARS:
            last.text += piece.text
            last.size += piece.size
        else:
            self._pending.append(piece)

    def _remember(self, piece: _Piece) -> None:
        self._tail.append(piece)
        self._tail_size += piece.size
        self._left_out += piece.size
        while self._tail_size > TAIL_BYTES:
            self._tail_size -= self._tail.popleft().size

    def _append_tail(self) -> None:
        missing = self._left_out - self._tail_size
        if missing:
            self.system_line(
                f"[chef] {missing:,} bytes of output were left out here: a phase keeps its first "
                f"{self._phase_budget - TAIL_BYTES:,} bytes and its last {TAIL_BYTES:,}."
            )
        self._pending.extend(self._tail)
        self._tail = deque()

    def _pass_on_lines(self, stream: str, text: str) -> None:
        *lines, rest = (self._partial[stream] + text).split("\n")
        self._partial[stream] = rest[-LINE_CHARS:]
        for line in lines:
            self._on_line(line, stream)

    def _flush_regularly(self) -> None:
        try:
            drained = 0.0
            while not self._stop.is_set():
                is_woken = self._wake_up.wait(UNFINISHED_SECONDS)
                self._wake_up.clear()
                with self._lock:
                    if not is_woken or time.monotonic() - drained >= UNFINISHED_SECONDS:
                        drained = time.monotonic()
                        for stream, reader in self._readers.items():
                            self._keep(stream, reader.drain())
                    self._store()
                if is_woken:
                    self._stop.wait(FLUSH_SECONDS)
        except LeaseLostError:
            pass  # the runner learns of it from `lease.lost`
        finally:
            connection.close()

    def _store(self) -> None:
        if not self._pending:
            return
        pieces, self._pending = self._pending, []
        rows = []
        for piece in pieces:
            self._sequence += 1
            rows.append(
                LogChunk(
                    build=self._lease.build,
                    attempt=self._lease.fence,
                    sequence=self._sequence,
                    phase=self._phase,
                    stream=piece.stream,
                    timestamp=piece.timestamp,
                    text=piece.text,
                )
            )
        self._write(rows, sum(piece.size for piece in pieces), is_cut=bool(self._left_out))

    def _write(self, rows: list[LogChunk], size: int, *, is_cut: bool) -> None:
        changes = {"log_bytes": F("log_bytes") + size}
        if is_cut:
            changes["log_truncated"] = True  # type: ignore[assignment]
        with self._lease.writing(**changes):
            LogChunk.objects.bulk_create(rows, batch_size=500)
            transaction.on_commit(partial(publish_change, self._lease.build.pk))


class WholeLog(LogWriter):
    """A log that arrives all at once: filled without entering the context, and stored by `record`."""

    def __init__(self, lease: BuildLease, *, max_bytes: int) -> None:
        super().__init__(lease, max_bytes=max_bytes)
        self._rows: list[LogChunk] = []
        self._size, self._is_cut = 0, False

    def _write(self, rows: list[LogChunk], size: int, *, is_cut: bool) -> None:
        self._rows += rows
        self._size, self._is_cut = self._size + size, self._is_cut or is_cut

    def record(self) -> None:
        """Store all of it. Raises LeaseLostError when the attempt may no longer write."""
        super()._write(self._rows, self._size, is_cut=self._is_cut)
