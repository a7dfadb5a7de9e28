"""Measures a running container: peak memory, CPU time, and whether it has run out of processes."""

import contextlib
import threading

from builds.sandbox.engine import FAULTS, APIClient

# Trivial commands end before the first sample; measuring them would cost more than running them.
FIRST_SAMPLE_SECONDS = 0.7
# This many consecutive samples at the limit mean a fork bomb, not a short peak of many compilers.
SAMPLES_AT_LIMIT = 2


class Meter:
    """Reads the engine's statistics, about one sample a second, while the block runs."""

    def __init__(self, client: APIClient, container: str, *, pids_limit: int) -> None:
        self._client = client
        self._container = container
        self._pids_limit = pids_limit
        self._at_limit = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="meter", daemon=True)
        self.peak_memory_bytes = 0
        self.cpu_seconds = 0.0

    def __enter__(self) -> "Meter":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        # Not joined: it may be waiting for the engine's next sample.
        self._ended.set()

    @property
    def is_out_of_processes(self) -> bool:
        return self._at_limit >= SAMPLES_AT_LIMIT

    def _sample(self) -> None:
        if self._ended.wait(FIRST_SAMPLE_SECONDS):
            return
        with contextlib.suppress(*FAULTS, ValueError):
            for sample in self._client.stats(self._container, stream=True, decode=True):
                if self._ended.is_set():
                    return
                self._take(sample)

    def _take(self, sample: dict[str, dict[str, object]]) -> None:
        memory = sample.get("memory_stats", {})
        details = memory.get("stats") or {}
        cache = details.get("total_inactive_file", details.get("inactive_file", 0)) if isinstance(details, dict) else 0
        # Counted like `docker stats`: file cache that can be dropped at any time is left out.
        used = int(str(memory.get("usage") or 0)) - int(str(cache))
        self.peak_memory_bytes = max(self.peak_memory_bytes, used)
        usage = sample.get("cpu_stats", {}).get("cpu_usage") or {}
        if isinstance(usage, dict):
            self.cpu_seconds = max(self.cpu_seconds, int(usage.get("total_usage") or 0) / 1e9)
        current = int(str(sample.get("pids_stats", {}).get("current") or 0))
        self._at_limit = self._at_limit + 1 if current >= self._pids_limit else 0
