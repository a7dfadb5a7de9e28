"""Events of a thousand builds over real HTTP, with receivers that fail at random and senders killed at random."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.installation import ROOT, Installation, until
from tests.receiver import Message, Receiver, Reply

pytestmark = [pytest.mark.once("postgresql"), pytest.mark.waits, pytest.mark.redis]

BUILDS = 1_000
SEED = 20_261
EVENTS = ["build.queued", "build.running", "build.completed", "build.failed", "build.cancelled"]
RESULTS = EVENTS[2:]
CONVEX_SECRET = "whsec_" + "Q09OVkVY" * 4
SENDERS = ("sender", "other-sender")
SETTINGS = {
    "CHEF_OWNER_MAX_QUEUED": "5000",
    "CHEF_LEASE_SECONDS": "2",
    "CHEF_WEBHOOK_ALLOW_HTTP": "1",
    "CHEF_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
    "CHEF_WEBHOOK_TIMEOUT": "1",
    "CHEF_WEBHOOK_RETRY_SECONDS": "0.2",
    "CHEF_WEBHOOK_RETRY_MAX_SECONDS": "1",
    "CHEF_WEBHOOK_PER_ENDPOINT": "32",
    "WEBHOOK_CONCURRENCY": "32",
    "CONVEX_WEBHOOK_SECRET": CONVEX_SECRET,
}


@dataclass
class FlakyReceiver:
    """A receiver that verifies messages with the reference library, and fails at random."""

    chance: random.Random
    bad: float  # share of its answers that are missing or errors
    secret: str = ""
    is_gone: bool = False
    forged: int = 0
    changed: set[str] = field(default_factory=set)  # ids that came with different contents
    # By webhook-id: the message, and the statuses answered; 0 for no answer.
    received: dict[str, Any] = field(default_factory=dict)
    answered: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, message: Message) -> Reply:
        with self.lock:
            try:
                received = Webhook(self.secret).verify(message.body, message.headers)
            except WebhookVerificationError:
                self.forged += 1
                return Reply(401)
            if self.received.setdefault(message.id, received) != received:
                self.changed.add(message.id)
            reply = self._choose()
            self.answered[message.id].append(reply.status if reply.how == "answer" else 0)
        return reply

    def _choose(self) -> Reply:
        if self.is_gone:
            return Reply(how="reset")
        if self.chance.random() >= self.bad:
            return Reply(self.chance.choice([200, 202, 204]))
        return self.chance.choice(
            [
                *(Reply(500, body=b"not today"), Reply(503, {"Retry-After": "1"}), Reply(301, {"Location": "/x"})),
                *(Reply(404), Reply(429), Reply(how="reset"), Reply(how="hang"), Reply(how="drip")),
            ]
        )

    def taken(self) -> set[str]:
        return {pk for pk, answers in self.answered.items() if any(200 <= status < 300 for status in answers)}


@pytest.fixture(scope="module")
def receivers() -> Iterator[dict[str, tuple[Receiver, FlakyReceiver]]]:
    with Receiver() as flaky, Receiver() as convex:
        both = {
            "flaky": (flaky, FlakyReceiver(random.Random(SEED), bad=0.12)),
            "convex": (convex, FlakyReceiver(random.Random(1), bad=0.02)),
        }
        for receiver, behaviour in both.values():
            receiver.reply = behaviour.reply
        both["convex"][1].secret = CONVEX_SECRET
        yield both


@pytest.fixture(scope="module")
def chef_with_webhooks(
    short_folder: Path, receivers: dict[str, tuple[Receiver, FlakyReceiver]]
) -> Iterator[Installation]:
    folder = short_folder / "webhooks"
    folder.mkdir()
    installation = Installation(folder, CONVEX_URL=receivers["convex"][0].url, **SETTINGS)
    try:
        yield installation.start_without_workers()
    finally:
        installation.stop()


@contextmanager
def killing(installation: Installation, *receivers: Receiver) -> Iterator[Counter[str]]:
    """Two senders, one of which is killed and restarted every few hundred messages. Counts the kills."""
    kills: Counter[str] = Counter()
    chance, over = random.Random(SEED), threading.Event()
    for name in SENDERS:
        installation.start_deliveries(name)

    def kill() -> None:
        due = chance.randint(100, 500)
        while not over.wait(0.05):
            sent = sum(len(receiver.messages) for receiver in receivers)
            if sent < due:
                continue
            due = sent + chance.randint(300, 900)
            name = chance.choice(SENDERS)
            process = installation.processes[name]
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            installation.start_deliveries(name)
            kills[name] += 1

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield kills
    finally:
        over.set()
        thread.join(30)


def count(installation: Installation, what: str) -> int:
    return int(installation.rows(f"SELECT count(*) FROM {what}")[0][0])


def test_every_event_arrives_signed_despite_failing_receivers_and_killed_senders(
    chef_with_webhooks: Installation, receivers: dict[str, tuple[Receiver, FlakyReceiver]]
) -> None:
    chef, (receiver, flaky), (other, convex) = chef_with_webhooks, receivers["flaky"], receivers["convex"]
    project = chef.submit({"index.html": "x"})["projectId"]
    with chef.client() as client:
        made = client.post("/v1/webhooks", json={"url": receiver.url, "events": EVENTS, "project": project})
    assert made.status_code == 201, made.text
    webhook, flaky.secret = made.json(), made.json()["secret"]

    with killing(chef, receiver, other) as kills:
        until(lambda: count(chef, "builds_webhookendpoint") == 2, seconds=20, what="CONVEX_URL is followed")
        argv = [sys.executable, "-m", "tests.e2e.moving", project, str(BUILDS), str(SEED)]
        mover = subprocess.Popen(argv, cwd=ROOT, env=chef.environment)
        _be_unreachable_for_a_while(flaky, mover)
        assert mover.wait(120) == 0
        _until_sent(chef)
    _assert_forgeries_are_noticed(receiver, flaky, webhook["webhookId"])

    assert sum(kills.values()) >= 3
    _assert_received(chef, flaky, webhook["webhookId"], EVENTS, 3 * BUILDS)
    [(convex_id,)] = chef.rows("SELECT id FROM builds_webhookendpoint WHERE origin = 'setting'")
    _assert_received(chef, convex, str(convex_id), RESULTS, BUILDS)
    assert (flaky.forged, convex.forged) == (2, 0)  # the two that this test forges
    assert flaky.changed == convex.changed == set()
    _assert_in_order(chef)


def _be_unreachable_for_a_while(flaky: FlakyReceiver, mover: "subprocess.Popen[bytes]") -> None:
    """Make the receiver unreachable for a while, in the middle of the deliveries."""
    until(
        lambda: len(flaky.received) > BUILDS // 4 or mover.poll() is not None,
        seconds=120,
        what="a part has arrived",
    )
    flaky.is_gone = True
    time.sleep(2)
    flaky.is_gone = False


def _until_sent(chef: Installation) -> None:
    unreported = "builds_buildevent WHERE kind = 'status' AND is_told = false"
    waiting = "builds_delivery WHERE status = 'pending'"
    until(lambda: count(chef, unreported) + count(chef, waiting) == 0, seconds=120, what="all is sent", every=0.5)


def _assert_forgeries_are_noticed(receiver: Receiver, flaky: FlakyReceiver, webhook: str) -> None:
    """Assert that the receiver refuses forged messages: otherwise 'nothing forged' would prove nothing."""
    genuine = next(message for message in receiver.messages if message.id in flaky.received)
    changed = genuine.body.replace(b'"number":', b'"numbers":')
    keys = ("webhook-id", "webhook-timestamp", "webhook-signature")
    headers = {name: genuine.headers[name] for name in keys}
    with httpx.Client(trust_env=False) as client:
        assert client.post(receiver.url, content=changed, headers=headers).status_code == 401
        again = client.post(receiver.url, content=genuine.body, headers={**headers, "webhook-id": webhook})
        assert again.status_code == 401


def _assert_received(
    chef: Installation, receiver: FlakyReceiver, endpoint: str, names: list[str], expected: int
) -> None:
    """Assert that every event was received at least once, under one id, and that the delivery log agrees."""
    ids = _ids(chef, endpoint)
    wanted = ", ".join(f"'{name.removeprefix('build.')}'" for name in names)
    events = chef.rows(
        "SELECT e.build_id, e.to_status FROM builds_buildevent e JOIN builds_build b ON b.id = e.build_id"
        f" WHERE e.kind = 'status' AND e.to_status IN ({wanted}) AND b.worker = 'mover'"
    )
    assert len(events) == expected
    received = [
        (message["data"]["jobId"], message["type"])
        for pk, message in receiver.received.items()
        if pk in receiver.taken()
    ]
    assert len(received) == len(set(received)) == expected
    assert {(job.replace("-", ""), name) for job, name in received} == {
        (str(job).replace("-", ""), f"build.{status}") for job, status in events
    }
    assert receiver.taken() == set(ids)
    _assert_log_agrees(chef, receiver, ids)


def _ids(chef: Installation, endpoint: str) -> dict[str, tuple[str, int]]:
    """webhook-id → (status, number of attempts)."""
    rows = chef.rows(f"SELECT id, status, tries FROM builds_delivery WHERE {_is('endpoint_id', endpoint)}")
    return {_dashed(pk): (status, tries) for pk, status, tries in rows}


def _assert_log_agrees(chef: Installation, receiver: FlakyReceiver, ids: dict[str, tuple[str, int]]) -> None:
    logged: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for pk, *row in chef.rows("SELECT delivery_id, number, status_code, error, is_over FROM builds_deliverytry"):
        logged[_dashed(pk)].append(tuple(row))
    for pk, (status, tries) in ids.items():
        rows, answered = sorted(logged[pk]), Counter(receiver.answered[pk])
        assert status == "delivered"
        assert [row[0] for row in rows] == list(range(1, tries + 1)), "every attempt is logged exactly once"
        assert all(is_over for *_, is_over in rows)
        # Each received message was an attempt, but not each attempt arrived, and a killed sender logs no status code.
        assert answered.total() <= tries
        codes = Counter(code for _, code, *_ in rows if code is not None)
        assert not codes - answered, (codes, answered)
        assert 200 <= rows[-1][1] < 300


def _assert_in_order(chef: Installation) -> None:
    """Assert that the events of one build were first sent in order."""
    first = chef.rows(
        "SELECT d.endpoint_id, d.job_id, d.position, t.started_at FROM builds_delivery d"
        " JOIN builds_deliverytry t ON t.delivery_id = d.id AND t.number = 1 ORDER BY 1, 2, 3"
    )
    moments: dict[Any, list[Any]] = defaultdict(list)
    for endpoint, job, _, started in first:
        moments[endpoint, job].append(started)
    assert len(moments) == 2 * BUILDS
    assert all(found == sorted(found) for found in moments.values())


def _is(column: str, pk: str) -> str:
    """An SQL condition on an id; SQLite stores ids without dashes."""
    return f"replace(CAST({column} AS text), '-', '') = '{pk.replace('-', '')}'"


def _dashed(pk: Any) -> str:
    text = str(pk).replace("-", "")
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
