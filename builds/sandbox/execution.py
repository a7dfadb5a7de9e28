"""One started container, watched until it has ended or had to be killed."""

import contextlib
import threading
from collections.abc import Iterator

from requests.exceptions import ReadTimeout

from builds.sandbox.contract import Limits, Outcome, SandboxError, Watch
from builds.sandbox.engine import FAULTS, APIClient, APIError
from builds.sandbox.meter import Meter

STOP_POLL_SECONDS = 0.1
KILL_SECONDS = 60


class Execution:
    """One started container, watched until it has ended or had to be killed."""

    def __init__(self, client: APIClient, container: str, limits: Limits, watch: Watch) -> None:
        self._client = client
        self._container = container
        self._watch = watch
        self._outcome = Outcome()
        self._meter = Meter(client, container, pids_limit=limits.pids)
        self._output_fault: BaseException | None = None
        self._exited = threading.Event()
        self._exit_code: int | None = None

    def to_the_end(self) -> Outcome:
        # Attach before the start, so that the first line is not missed.
        output = self._client.attach(self._container, stdout=True, stderr=True, stream=True, demux=True)
        reader = threading.Thread(target=self._read, args=(output,), name="output", daemon=True)
        waiter = threading.Thread(target=self._wait, name="exit", daemon=True)
        reader.start()
        self._client.start(self._container)
        waiter.start()
        with self._meter:
            self._until_ended()
        reader.join(timeout=10)
        self._judge()
        if self._output_fault:
            raise self._output_fault
        return self._outcome

    def _until_ended(self) -> None:
        while not self._exited.wait(STOP_POLL_SECONDS):
            if self._watch.must_stop() or self._output_fault:
                self._outcome.stopped = True
            elif self._watch.seconds_left() <= 0:
                self._outcome.timed_out = True
            elif self._meter.is_out_of_processes:
                self._outcome.processes_exhausted = True
            else:
                continue
            self._kill()
            return
        # If the worker missed the deadline, the first process has enforced it. Decided by our own clock and not by the
        # exit code, which the command could have chosen itself.
        self._outcome.timed_out = self._exit_code != 0 and self._watch.seconds_left() <= 0

    def _kill(self) -> None:
        # No SIGTERM first: untrusted code need not obey it.
        with contextlib.suppress(APIError):
            self._client.kill(self._container, "SIGKILL")
        if not self._exited.wait(KILL_SECONDS):
            raise SandboxError("the engine did not stop a killed container")

    def _read(self, output: Iterator[tuple[bytes | None, bytes | None]]) -> None:
        try:
            for stdout, stderr in output:
                if stdout:
                    self._watch.on_output("stdout", stdout)
                if stderr:
                    self._watch.on_output("stderr", stderr)
        except BaseException as fault:  # raised later in the runner's thread: a lost lease or a database error
            self._output_fault = fault

    def _wait(self) -> None:
        while not self._exited.is_set():
            try:
                self._exit_code = self._client.wait(self._container, timeout=3600)["StatusCode"]
                self._exited.set()
            except ReadTimeout:
                continue
            except FAULTS as fault:
                self._output_fault = self._output_fault or SandboxError(str(fault))
                self._exited.set()

    def _judge(self) -> None:
        state = self._client.inspect_container(self._container)["State"]
        outcome = self._outcome
        outcome.out_of_memory = bool(state["OOMKilled"]) and not (outcome.timed_out or outcome.stopped)
        outcome.peak_memory_bytes = self._meter.peak_memory_bytes
        outcome.cpu_seconds = self._meter.cpu_seconds
        if not (outcome.timed_out or outcome.stopped or outcome.processes_exhausted):
            outcome.exit_code = self._exit_code
