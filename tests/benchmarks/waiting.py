"""Many callers who wait for the files of their prompts, on one web process, and their effect on other requests.

    python -m tests.benchmarks.waiting [--callers N] [--generators N] [--rounds N] [--seconds S] [--json FILE]

Run by hand: timings vary by machine, so this is not a test, and the exit code only says whether measuring worked.
The model is scripted and as slow as needed: it answers nobody while requests are measured, so that generators are
idle too. Nothing is built, so Docker is not needed.
"""

import argparse
import contextlib
import json
import multiprocessing
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import redis

from tests.benchmarks import chef
from tests.benchmarks.callers import Call, Calls, call
from tests.benchmarks.live import Peak, Requests
from tests.benchmarks.readers import percentile
from tests.installation import Installation, until
from tests.projects.engine.apps import plan, planned, written
from tests.scripted_model import KEY, Connection, Says, ScriptedModel

ANSWER_SECONDS = 2.0  # of the model, outside measurements
GENERATE_WAIT = 600
SETTLING_SECONDS = 3.0  # until the effects of sending or leaving are over
GATHERING_SECONDS = 17.0  # from sending until all leave, or time out, at once
AROUND_SECONDS = 2.0  # around that moment
CPU_SECONDS = 10.0
LOOK_SECONDS = 0.5
AIM_REQUESTS, AIM_MEMORY, AIM_THREADS, AIM_LATE = 2.0, 50.0, 10, 1.0
ACTIVE = "SELECT {} FROM projects_generation WHERE status IN ('queued', 'running')"


class UnmeasuredError(Exception):
    """A measurement was not possible."""


class Pace:
    """The model's pace: while held, it does not answer until released."""

    def __init__(self) -> None:
        self._released = threading.Event()

    def hold(self) -> None:
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    def wait(self, closing: threading.Event) -> None:
        self._released.wait()
        closing.wait(ANSWER_SECONDS)


@dataclass(frozen=True)
class Slow:
    """An answer at the model's pace."""

    answer: Says
    pace: Pace

    def send(self, to: Connection) -> None:
        self.pace.wait(to.closing)
        self.answer.send(to)


@dataclass
class Result:
    """Seconds, MiB and counts. Lists of lists contain the requests of each round."""

    callers: int
    generators: int
    idle: list[list[float]] = field(default_factory=list)
    waiting: list[list[float]] = field(default_factory=list)  # all callers wait, and the model does not answer
    answered: list[list[float]] = field(default_factory=list)  # one after the other, while generators work
    left: list[list[float]] = field(default_factory=list)  # the same generations, after all callers have left
    leaving: list[list[float]] = field(default_factory=list)  # around the moment when all leave
    timing_out: list[list[float]] = field(default_factory=list)  # around the moment when all get 202
    cpu_idle: float = 0  # share of one core, without requests
    cpu_waiting: list[float] = field(default_factory=list)
    memory_idle: float = 0
    memory_waiting: float = 0
    memory_after: float = 0
    threads_idle: int = 0
    threads_waiting: int = 0
    threads_most: int = 0
    connections_after: int = 0  # of callers that left
    sent: int = 0
    completed: int = 0  # answered with 201
    timed_out: int = 0  # answered with 202
    others: int = 0  # answered with another generation, or not at all
    late: list[float] = field(default_factory=list)  # from the end of each generation to its answer
    timed_out_late: list[float] = field(default_factory=list)  # from the end of each requested wait to its answer

    def table(self) -> list[str]:
        every = self.callers * len(self.waiting)
        return [
            f"{self.callers} callers of one web process, {self.generators} generators, {len(self.waiting)} rounds",
            _requests("idle", self.idle),
            _requests("all wait", self.waiting, self.idle, AIM_REQUESTS),
            _requests("all have left, the same generations", self.left, self.idle),
            _requests("around the moment when all leave", self.leaving, self.idle),
            _requests("around the moment when all get 202", self.timing_out, self.idle),
            _requests("one after the other is answered", self.answered, self.idle),
            _row("CPU of the web process, idle", 100 * self.cpu_idle, "%"),
            _row("CPU of the web process, all wait", 100 * statistics.median(self.cpu_waiting), "%"),
            _row("web process with all waiting, above idle", self.memory_waiting - self.memory_idle, "MiB", AIM_MEMORY),
            _row("web process at the end, above idle", self.memory_after - self.memory_idle, "MiB", AIM_MEMORY),
            _row("threads with all waiting, above idle", self.threads_waiting - self.threads_idle, "", AIM_THREADS),
            f"threads: {self.threads_idle} idle, {self.threads_waiting} with all waiting, {self.threads_most} at most",
            _count("waited for their files, and got 201", self.completed, every),
            _count("waited as long as requested, and got 202", self.timed_out, every),
            _count("got another generation's answer, or none", self.others, self.sent, aim=0),
            _row("open connections of callers that left", self.connections_after, "", 0),
            _row("from the end to the answer, p95", percentile(self.late, 95), "s", AIM_LATE),
            _row("from the time-out to the answer, p95", percentile(self.timed_out_late, 95), "s", AIM_LATE),
            _row("from the time-out to the answer, largest", max(self.timed_out_late), "s"),
        ]


def _requests(
    name: str, rounds: Sequence[Sequence[float]], idle: Sequence[Sequence[float]] = (), aim: float | None = None
) -> str:
    """The requests of all rounds together; the ratio is the median of the rounds' ratios."""
    seconds = [second for each in rounds for second in each]
    line = f"status, {name:<44} p50 {1000 * percentile(seconds, 50):>6.1f}  p95 {1000 * percentile(seconds, 95):>6.1f}"
    line += f"  most {1000 * max(seconds):>6.1f} ms"
    if not idle:
        return line
    ratios = _ratios(rounds, idle)
    ratio = statistics.median(ratios)
    return f"{line}  p95 {ratio:.2f}x ({min(ratios):.2f}-{max(ratios):.2f}){_verdict(ratio, aim)}"


def _ratios(rounds: Sequence[Sequence[float]], idle: Sequence[Sequence[float]]) -> list[float]:
    return [percentile(some, 95) / percentile(none, 95) for some, none in zip(rounds, idle, strict=True)]


def _row(name: str, value: float, unit: str, aim: float | None = None) -> str:
    return f"{name:<52} {value:>8.2f} {unit:<3}{_verdict(value, aim)}"


def _count(name: str, count: int, of: int, aim: int | None = None) -> str:
    is_met = count == of if aim is None else count == aim
    return f"{name:<52} {count:>4} of {of}   aim: {of if aim is None else aim}: {'met' if is_met else 'missed'}"


def _verdict(value: float, aim: float | None) -> str:
    return "" if aim is None else f"   aim: at most {aim:g}: {'met' if value <= aim else 'missed'}"


class Bench:
    """One measured installation."""

    def __init__(self, installation: Installation, client: httpx.Client, model: ScriptedModel) -> None:
        self.pace = Pace()
        self.result = Result(0, 0)
        self._installation, self._client, self._model = installation, client, model
        self._web = psutil.Process(installation.processes["web"].pid)
        self._path = self._ended_project()
        self._redis = redis.Redis(port=installation.redis_port)
        self._calls = 0

    def run(self, result: Result, *, rounds: int, seconds: float) -> None:
        """Fill the result. Memory kept after a first warm-up counts as idle."""
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as self._pool, contextlib.closing(self._redis):
            self.result = Result(1, result.generators)
            self.all_wait(1)
            self.result = result
            self._until_quiet()
            result.cpu_idle = self._cpu()
            idle = self._look(seconds / 2)
            result.memory_idle, result.threads_idle = idle.memory, idle.threads
            for _ in range(rounds):
                result.idle.append(self._requests(seconds))
                self.all_wait(seconds)
                self.all_leave(seconds)
                self.all_time_out()
            result.memory_after = self._look(seconds / 2).memory

    # --- One round -----------------------------------------------------------------------------------------------

    def all_wait(self, seconds: float) -> None:
        """Requests while all callers wait, and then while they are answered."""
        self.pace.hold()
        calls, called = self._call()
        self._until_all_wait(SETTLING_SECONDS)
        cpu = self._cpu()
        peak = Peak(self._web)
        with Requests(self._client, self._path) as waiting:
            self._watch(peak, seconds)
        if self._active() != self.result.callers:
            raise UnmeasuredError("a generation ended while all callers should have waited")
        self.pace.release()
        with Requests(self._client, self._path) as answered:
            answers = called.result()
        self._until_quiet()
        self.result.cpu_waiting.append(cpu)
        self.result.waiting.append(waiting.seconds)
        self.result.answered.append(answered.seconds)
        self.result.memory_waiting = max(self.result.memory_waiting, peak.memory)
        self.result.threads_waiting = max(self.result.threads_waiting, peak.threads)
        self.result.completed += sum(answer.status == 201 for answer in answers)
        for answer, generation in self._own_answers(calls, answers):
            self.result.late.append(answer.came_at - chef.moment(generation["finishedAt"]))

    def all_leave(self, seconds: float) -> None:
        """Requests around the moment when all callers leave, and while their generations continue."""
        self.pace.hold()
        before = self._connections()
        leave_at = time.time() + GATHERING_SECONDS
        _, called = self._call(leave_at=leave_at)
        self.result.leaving.append(self._around(leave_at))
        if any(answer.status for answer in called.result()):
            raise UnmeasuredError("a caller was answered before it left")
        time.sleep(SETTLING_SECONDS)
        self.result.left.append(self._requests(seconds))
        self.result.connections_after += max(self._connections() - before, 0)
        self._cancel_all()

    def all_time_out(self) -> None:
        """Requests around the moment when all callers time out."""
        self.pace.hold()
        due_at = time.time() + GATHERING_SECONDS
        calls, called = self._call(due_at=due_at)
        self.result.timing_out.append(self._around(due_at))
        answers = called.result()
        self.result.timed_out += sum(answer.status == 202 for answer in answers)
        for answer, generation in self._own_answers(calls, answers):
            late = answer.came_at - chef.moment(generation["createdAt"]) - answer.wait
            self.result.timed_out_late.append(late)
        self._cancel_all()

    # --- Its parts -----------------------------------------------------------------------------------------------

    def _call(self, **when: float) -> tuple[Calls, "Future[list[Call]]"]:
        self._calls += 1
        installation = self._installation
        calls = Calls(installation.url, installation.token, f"Call {self._calls}", self.result.callers, **when)
        return calls, self._pool.submit(call, calls)

    def _until_all_wait(self, settling: float) -> None:
        until(lambda: self._active() == self.result.callers, seconds=60, what="all wait", every=0.3)
        time.sleep(settling)

    def _around(self, moment: float) -> list[float]:
        self._until_all_wait(0)
        if time.time() > moment - 1:
            raise UnmeasuredError("sending all requests took too long: the machine is too busy")
        time.sleep(moment - 0.2 - time.time())
        with Requests(self._client, self._path) as requests:
            self._watch(Peak(self._web), AROUND_SECONDS)
        return requests.seconds

    def _requests(self, seconds: float) -> list[float]:
        with Requests(self._client, self._path) as requests:
            time.sleep(seconds)
        return requests.seconds

    def _watch(self, peak: Peak, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            peak.look()
            time.sleep(LOOK_SECONDS)
        self.result.threads_most = max(self.result.threads_most, peak.threads)

    def _cpu(self) -> float:
        """The share of a core that the web process uses. Other load on the machine hardly changes it."""
        before = self._web.cpu_times()
        time.sleep(CPU_SECONDS)
        after = self._web.cpu_times()
        return (after.user + after.system - before.user - before.system) / CPU_SECONDS

    def _look(self, seconds: float) -> Peak:
        peak = Peak(self._web)
        self._watch(peak, seconds)
        return peak

    def _own_answers(self, calls: Calls, answers: Sequence[Call]) -> list[tuple[Call, Mapping[str, Any]]]:
        """The answers about the caller's own prompt, with their generations; other answers are counted."""
        found = []
        for answer in answers:
            self.result.sent += 1
            generation = self._own_answer(calls, answer)
            if generation is None:
                self.result.others += 1
            else:
                found.append((answer, generation))
        return found

    def _own_answer(self, calls: Calls, answer: Call) -> Mapping[str, Any] | None:
        if answer.status not in (201, 202):
            return None
        document = answer.document
        generation = self._client.get(document["links"]["self"]).raise_for_status().json()
        is_own = generation["prompt"] == calls.prompt(answer.number)
        is_own = is_own and generation["projectId"] == document["projectId"]
        # 201 promises a build.
        is_own = is_own and (answer.status == 201) == (document["jobId"] is not None)
        return dict(generation) if is_own else None

    def _active(self) -> int:
        return int(self._installation.rows(ACTIVE.format("count(*)"))[0][0])

    def _connections(self) -> int:
        """Open connections from clients to the web process."""
        port = self._installation.port
        return sum(
            each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED
            for each in self._web.net_connections("tcp")
        )

    def _cancel_all(self) -> None:
        for (generation,) in self._installation.rows(ACTIVE.format("id")):
            self._client.post(f"/v1/generations/{UUID(str(generation))}/cancel").raise_for_status()
        self.pace.release()
        self._until_quiet()

    def _until_quiet(self) -> None:
        """Wait until all generators are idle: every wake-up is consumed, even without work left."""

        def is_quiet() -> bool:
            return not (self._active() or self._redis.llen("rq:queue:generations") or self._model.busy)

        until(is_quiet, seconds=300, what="all is done", every=0.3)
        time.sleep(SETTLING_SECONDS)

    def _ended_project(self) -> str:
        """The status path of a project whose only build has ended, so that the answer never changes."""
        accepted = self._installation.submit({"index.html": "<h1>Hi</h1>"}, strategy={"runtime": "static"})
        self._client.post(f"/v1/builds/{accepted['jobId']}/cancel").raise_for_status()
        return f"/v1/projects/{accepted['projectId']}/status"


def measure(installation: Installation, model: ScriptedModel, result: Result, *, rounds: int, seconds: float) -> None:
    with installation.client() as client:
        bench = Bench(installation, client, model)
        # More than enough: cancelled generations ask for less.
        prompts = 1 + 3 * rounds * result.callers
        app = plan(planned("index.html"), runtime="static", dependencies=[], scripts=[])
        model.says("plan", *[Slow(Says(app), bench.pace)] * prompts)
        model.says("index.html", *[Slow(Says(written("<h1>Hi</h1>")), bench.pace)] * prompts)
        try:
            bench.run(result, rounds=rounds, seconds=seconds)
        finally:
            bench.pace.release()
    if model.faults:
        raise UnmeasuredError(f"the model got an invalid request: {model.faults[0]}")


@contextlib.contextmanager
def running(model: ScriptedModel, *, generators: int) -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="chef-waiting-"))
    installation = chef.install(folder, workers=1)
    installation.environment |= {
        "AI_PROVIDER": "openai",
        "AI_API_KEY": KEY,
        "AI_BASE_URL": model.url,
        "AI_SILENCE_SECONDS": str(GENERATE_WAIT),
        "GENERATION_CONCURRENCY": str(generators),
        "GENERATE_WAIT": str(GENERATE_WAIT),
        "CHEF_RATE_READ": "100000/minute",
        "CHEF_RATE_WRITE": "100000/minute",
        "CHEF_OWNER_MAX_QUEUED": "100000",
        "NO_PROXY": "127.0.0.1",
    }
    try:
        installation.start_without_workers()
        installation.start_generators()
        installation.start_reaper()
        yield installation
    finally:
        installation.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=100)
    parser.add_argument("--generators", type=int, default=8, help="how many generations run at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12, help="how many seconds requests are measured each time")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = Result(options.callers, options.generators)
    with ScriptedModel() as model, running(model, generators=options.generators) as installation:
        measure(installation, model, result, rounds=options.rounds, seconds=options.seconds)
    print("\n".join(result.table()))
    if options.json:
        options.json.write_text(json.dumps(asdict(result), indent=1))


if __name__ == "__main__":
    main()
