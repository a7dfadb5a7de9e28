"""Live logs and events over real HTTP: each once and in order, while connections are cut and processes killed."""

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.streams import EVENTS, Event, Reader, events_of, opened, read, text_of
from tests.installation import Installation, until

pytestmark = [pytest.mark.once("postgresql"), pytest.mark.waits, pytest.mark.docker, pytest.mark.redis]

PHASES = ["preparation", "installation", "build", "artifacts", "cleanup"]
MOST_READERS = 40


@pytest.fixture(scope="module")
def live(short_folder: Path) -> Iterator[Installation]:
    """An installation with frequent pings, few readers, and a short lease."""
    folder = short_folder / "live"
    folder.mkdir()
    options = {"CHEF_LIVE_PING_SECONDS": "0.5", "CHEF_MAX_LIVE_READERS": str(MOST_READERS), "CHEF_LEASE_SECONDS": "5"}
    installation = Installation(folder, WORKER_CONCURRENCY="2", **options)
    try:
        yield installation.start()
    finally:
        installation.stop()


@pytest.fixture(scope="module")
def finished(live: Installation) -> dict[str, Any]:
    accepted = counting(live, lines=6)
    live.wait(accepted)
    return accepted


def counting(chef: Installation, *, lines: int, every: float = 0.1) -> dict[str, Any]:
    """A build that prints numbered lines."""
    script = f"for i in $(seq 1 {lines}); do echo line $i; sleep {every}; done"
    return chef.submit({"index.html": "x"}, strategy={"buildCommand": script})


def numbered(lines: int) -> str:
    return "".join(f"line {i}\n" for i in range(1, lines + 1))


def log_path(accepted: dict[str, Any]) -> str:
    return f"/v1/builds/{accepted['jobId']}/logs"


def events_path(accepted: dict[str, Any]) -> str:
    return f"/v1/builds/{accepted['jobId']}/events"


# --- What is sent ------------------------------------------------------------------------------------------------


def test_a_running_build_s_log_stream_equals_its_json_and_ends(live: Installation) -> None:
    accepted = counting(live, lines=12)

    events = read(live, log_path(accepted))

    assert text_of(events) == numbered(12)
    *entries, end = events
    assert [entry.data for entry in entries] == live.get(f"{log_path(accepted)}?limit=1000")["entries"]
    assert [entry.id for entry in entries] == [f"1.{number}" for number in range(1, len(events))]
    assert end == Event("", "end", {"jobId": accepted["jobId"], "status": "completed"})


def test_the_project_s_path_streams_its_latest_or_the_named_build(live: Installation, finished: dict[str, Any]) -> None:
    path = f"/v1/projects/{finished['projectId']}/logs"

    latest, named = read(live, path), read(live, f"{path}?jobId={finished['jobId']}")

    assert latest == named == read(live, log_path(finished))


def test_a_log_can_be_filtered_by_phase(live: Installation, finished: dict[str, Any]) -> None:
    events = read(live, f"{log_path(finished)}?phase=build")

    assert text_of(events) == numbered(6)
    assert {entry.data["phase"] for entry in events[:-1]} == {"build"}
    assert events[-1].kind == "end"


def test_each_change_of_status_and_phase_is_one_event(live: Installation) -> None:
    accepted = counting(live, lines=3)

    events = read(live, events_path(accepted))

    reported = [(e.kind, e.data["phase"] if e.kind == "phase" else e.data["status"]) for e in events]
    phases = [("phase", name) for name in PHASES]
    started = [("status", "queued"), ("status", "running")]
    # Without dependencies there is nothing to install: the phase is reported as skipped.
    assert reported == [*started, *phases, ("status", "completed"), ("end", "completed")]
    assert [e.data["progress"] for e in events[:-1]] == [0, 0, 10, 30, 60, 90, 100, 100]
    assert events[-2].data["verdict"] is None
    assert [int(e.id) for e in events[:-1]] == sorted({int(e.id) for e in events[:-1]})


def test_the_verdict_comes_with_the_last_status(live: Installation) -> None:
    accepted = live.submit({"index.html": "x"}, strategy={"buildCommand": "exit 3"})

    *_, last, end = read(live, events_path(accepted))

    assert (last.data["status"], last.data["verdict"]["exitCode"]) == ("failed", 3)
    assert last.data["verdict"] == live.status(accepted)["verdict"]
    assert end.data["status"] == "failed"


def test_headers_keep_proxies_from_buffering_and_caching(live: Installation, finished: dict[str, Any]) -> None:
    with opened(live, log_path(finished)) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert "Content-Length" not in answer.headers
        assert answer.read().startswith(b"retry: 1000\n\n")


def test_a_silent_stream_is_pinged(live: Installation) -> None:
    accepted = live.submit({"index.html": "x"}, strategy={"buildCommand": "sleep 2.5"})

    with opened(live, f"{log_path(accepted)}?phase=artifacts") as answer:
        body = answer.read()

    assert body.count(b": ping\n\n") >= 4


# --- Cut and resumed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [log_path, events_path])
def test_resuming_after_any_event_gives_exactly_the_rest(
    live: Installation, finished: dict[str, Any], path: Callable[[dict[str, Any]], str]
) -> None:
    whole = read(live, path(finished))

    for cut in range(len(whole) - 1):
        rest = whole[cut + 1 :]
        assert read(live, path(finished), last_id=whole[cut].id) == rest
        assert read(live, f"{path(finished)}?after={whole[cut].id}") == rest
        assert read(live, f"{path(finished)}?after={whole[0].id}", last_id=whole[cut].id) == rest


def test_a_reader_that_reconnects_after_each_event_misses_and_repeats_nothing(live: Installation) -> None:
    accepted = counting(live, lines=25)
    events = read(live, log_path(accepted), most=1)

    while events[-1].kind != "end":
        events += read(live, log_path(accepted), last_id=events[-1].id, most=1)

    assert text_of(events) == numbered(25)
    assert [e.id for e in events[:-1]] == [f"1.{number}" for number in range(1, len(events))]


def test_streams_end_with_the_web_process_and_resume_on_the_next(live: Installation) -> None:
    accepted = counting(live, lines=60)
    with Reader(live, log_path(accepted)) as before:
        until(lambda: before.has_line("line 5\n"), seconds=20, what="the log is being read")

        began = time.monotonic()
        assert live.end("web", seconds=20) in (0, -signal.SIGTERM)
        seconds = time.monotonic() - began

    live.start_web()
    after = read(live, log_path(accepted), last_id=before.events[-1].id)
    assert seconds < 3
    assert before.events[-1].kind == "log"
    assert text_of(before.events + after) == numbered(60)
    assert after[-1].kind == "end"


def test_readers_continue_with_the_next_attempt_from_its_beginning(live: Installation) -> None:
    accepted = counting(live, lines=30)
    with Reader(live, log_path(accepted)) as log, Reader(live, events_path(accepted)) as events:
        until(lambda: log.has_line("line 5\n"), seconds=20, what="the first attempt prints")

        for worker in psutil.Process(live.processes["workers"].pid).children():
            for horse in worker.children():
                horse.kill()
                worker.kill()

    attempts = [[e for e in log.events if e.id.startswith(f"{attempt}.")] for attempt in (1, 2)]
    assert log.events == [*attempts[0], *attempts[1], log.events[-1]]
    assert text_of(attempts[1]) == numbered(30)
    assert numbered(30).startswith(text_of(attempts[0]))
    assert [e.data["sequence"] for e in attempts[1]] == list(range(1, len(attempts[1]) + 1))
    statuses = [e.data["status"] for e in events.events if e.kind == "status"]
    assert statuses == ["queued", "running", "queued", "running", "completed"]
    resumed = read(live, log_path(accepted), last_id=attempts[0][-1].id)
    assert resumed == [*attempts[1], log.events[-1]]


@pytest.mark.parametrize("outage", ["gone", "stopped"])
def test_without_redis_streams_are_only_slower(live: Installation, outage: str) -> None:
    accepted = counting(live, lines=80)
    redis = live.processes["redis"]
    with Reader(live, log_path(accepted)) as reader:
        until(lambda: reader.has_line("line 5\n"), seconds=20, what="the log is being read")
        redis.kill() if outage == "gone" else redis.send_signal(signal.SIGSTOP)
        try:
            time.sleep(4)  # by now, even connections that hang have timed out
            behind = []
            for _ in range(8):
                time.sleep(0.25)
                behind.append(time.time() - _seconds(reader.events[-1].data["timestamp"]))
        finally:
            redis.kill()
            redis.wait()
            live.start_redis()

    assert text_of(reader.events) == numbered(80)
    assert max(behind) < 2.5
    document = live.wait(accepted)
    assert document["durationMs"] < 20_000, "the build itself was slowed down"


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


# --- Who may -----------------------------------------------------------------------------------------------------


def test_refusals_have_the_standard_error_format_and_no_secrets(live: Installation, finished: dict[str, Any]) -> None:
    others = live.make_token("someone-else")
    unknown = "/v1/builds/00000000-0000-4000-8000-000000000000/logs"
    log, events = log_path(finished), events_path(finished)
    cases: list[tuple[str, dict[str, str], int, str]] = [
        (log, {"Authorization": ""}, 401, "not_authenticated"),
        (log, {"Authorization": "Bearer nonsense.secret"}, 401, "invalid_token"),
        (log, {"Authorization": f"Bearer {others}"}, 404, "not_found"),
        (events, {"Authorization": f"Bearer {others}"}, 404, "not_found"),
        (f"/v1/projects/{finished['projectId']}/logs", {"Authorization": f"Bearer {others}"}, 404, "not_found"),
        (unknown, {}, 404, "not_found"),
        (f"{log}?after=7", {}, 400, "invalid"),
        (f"{events}?after=x", {}, 400, "invalid"),
        (log, {"Last-Event-ID": "nonsense"}, 400, "invalid"),
        (events, {"Last-Event-ID": "1.1"}, 400, "invalid"),
        (log, {"Host": "evil.example"}, 400, "bad_request"),
    ]

    with live.client() as client:
        answers = [(client.get(path, headers=EVENTS | headers), status, code) for path, headers, status, code in cases]
        answers.append((client.post(log, headers=EVENTS), 405, "method_not_allowed"))

    for answer, status, code in answers:
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/json"), answer.text
        assert [error["code"] for error in answer.json()["errors"]] == [code]
        assert "secret" not in answer.text
        assert others not in answer.text
    assert others not in (live.folder / "web.log").read_text()


def test_a_browser_s_session_may_read(live: Installation, finished: dict[str, Any]) -> None:
    live.manage("shell", "-c", SET_PASSWORD)

    with httpx.Client(base_url=live.url, trust_env=False) as browser:
        form = browser.get("/login").text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
        assert token
        fields = {"username": "tester", "password": "correct horse", "csrfmiddlewaretoken": token[1]}
        assert browser.post("/login", data=fields).status_code == 302
        with browser.stream("GET", log_path(finished), headers=EVENTS) as answer:
            assert answer.status_code == 200
            assert text_of(events_of(answer.iter_lines())) == numbered(6)


SET_PASSWORD = (
    "from django.contrib.auth.models import User; u = User.objects.get(username='tester');"
    "u.set_password('correct horse'); u.save()"
)


# --- Many --------------------------------------------------------------------------------------------------------


def test_readers_hold_no_threads_and_are_refused_over_the_limit(live: Installation) -> None:
    accepted = counting(live, lines=40)
    web = psutil.Process(live.processes["web"].pid)
    readers = [Reader(live, log_path(accepted)) for _ in range(MOST_READERS)]
    for reader in readers:
        reader.__enter__()
    until(lambda: all(r.events for r in readers), seconds=30, what="all are reading")

    threads = web.num_threads()
    with live.client() as client:
        refused = client.get(log_path(accepted), headers=EVENTS)
        plain = client.get(log_path(accepted))

    for reader in readers:
        reader.__exit__()
    assert threads < 20
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (503, "too_many_readers")
    assert int(refused.headers["Retry-After"]) > 0
    assert plain.status_code == 200
    assert {text_of(reader.events) for reader in readers} == {numbered(40)}
    assert read(live, log_path(accepted))[-1].kind == "end"  # there is room for another reader again


def test_a_disconnected_reader_makes_room(live: Installation, finished: dict[str, Any]) -> None:
    for _ in range(MOST_READERS + 5):
        assert len(read(live, log_path(finished), most=1)) == 1

    until(lambda: read(live, log_path(finished))[-1].kind == "end", seconds=5, what="there is room")
    assert threading.active_count() < 20
