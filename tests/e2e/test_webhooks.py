"""A thousand builds' events, over real HTTP, to receivers that fail at random, by senders that are killed at random."""

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
class Wild:
    """A receiver that takes only what the reference library verifies, and answers as chance has it."""

    chance: random.Random
    bad: float  # how many of its answers are none, or bad ones
    secret: str = ""
    is_gone: bool = False
    forged: int = 0
    changed: set[str] = field(default_factory=set)  # ids under which different things were told
    # By webhook-id: what was told, and what was answered, an answer that never came being a 0.
    told: dict[str, Any] = field(default_factory=dict)
    answered: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, message: Message) -> Reply:
        with self.lock:
            try:
                told = Webhook(self.secret).verify(message.body, message.headers)
            except WebhookVerificationError:
                self.forged += 1
                return Reply(401)
            if self.told.setdefault(message.id, told) != told:
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
def receivers() -> Iterator[dict[str, tuple[Receiver, Wild]]]:
    with Receiver() as wild, Receiver() as convex:
        both = {
            "wild": (wild, Wild(random.Random(SEED), bad=0.12)),
            "convex": (convex, Wild(random.Random(1), bad=0.02)),
        }
        for receiver, behaviour in both.values():
            receiver.reply = behaviour.reply
        both["convex"][1].secret = CONVEX_SECRET
        yield both


@pytest.fixture(scope="module")
def chef_with_webhooks(short_folder: Path, receivers: dict[str, tuple[Receiver, Wild]]) -> Iterator[Installation]:
    folder = short_folder / "webhooks"
    folder.mkdir()
    installation = Installation(folder, CONVEX_URL=receivers["convex"][0].url, **SETTINGS)
    try:
        yield installation.start_without_workers()
    finally:
        installation.stop()


@contextmanager
def killing(installation: Installation, *receivers: Receiver) -> Iterator[Counter[str]]:
    """Two senders, one of which is killed after every few hundred messages and started again. Counts how often."""
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


def test_every_event_arrives_signed_though_receivers_fail_and_senders_are_killed(
    chef_with_webhooks: Installation, receivers: dict[str, tuple[Receiver, Wild]]
) -> None:
    chef, (receiver, wild), (other, convex) = chef_with_webhooks, receivers["wild"], receivers["convex"]
    project = chef.submit({"index.html": "x"})["projectId"]
    with chef.client() as client:
        made = client.post("/v1/webhooks", json={"url": receiver.url, "events": EVENTS, "project": project})
    assert made.status_code == 201, made.text
    webhook, wild.secret = made.json(), made.json()["secret"]

    with killing(chef, receiver, other) as kills:
        until(lambda: count(chef, "builds_webhookendpoint") == 2, seconds=20, what="CONVEX_URL is followed")
        argv = [sys.executable, "-m", "tests.e2e.moving", project, str(BUILDS), str(SEED)]
        mover = subprocess.Popen(argv, cwd=ROOT, env=chef.environment)
        _leave_for_a_while(wild, mover)
        assert mover.wait(120) == 0
        _until_sent(chef)
    _assert_forgeries_are_noticed(receiver, wild, webhook["webhookId"])

    assert sum(kills.values()) >= 3
    _assert_told(chef, wild, webhook["webhookId"], EVENTS, 3 * BUILDS)
    [(convex_id,)] = chef.rows("SELECT id FROM builds_webhookendpoint WHERE origin = 'setting'")
    _assert_told(chef, convex, str(convex_id), RESULTS, BUILDS)
    assert (wild.forged, convex.forged) == (2, 0)  # the test's own
    assert wild.changed == convex.changed == set()
    _assert_in_order(chef)


def _leave_for_a_while(wild: Wild, mover: "subprocess.Popen[bytes]") -> None:
    """In the middle of it all, the receiver is there for nobody."""
    until(lambda: len(wild.told) > BUILDS // 4 or mover.poll() is not None, seconds=120, what="some are told")
    wild.is_gone = True
    time.sleep(2)
    wild.is_gone = False


def _until_sent(chef: Installation) -> None:
    untold = "builds_buildevent WHERE kind = 'status' AND is_told = false"
    waiting = "builds_delivery WHERE status = 'pending'"
    until(lambda: count(chef, untold) + count(chef, waiting) == 0, seconds=120, what="all is sent", every=0.5)


def _assert_forgeries_are_noticed(receiver: Receiver, wild: Wild, webhook: str) -> None:
    """That nothing was forged would say little if the receiver took anything."""
    genuine = next(message for message in receiver.messages if message.id in wild.told)
    changed = genuine.body.replace(b'"number":', b'"numbers":')
    keys = ("webhook-id", "webhook-timestamp", "webhook-signature")
    headers = {name: genuine.headers[name] for name in keys}
    with httpx.Client(trust_env=False) as client:
        assert client.post(receiver.url, content=changed, headers=headers).status_code == 401
        again = client.post(receiver.url, content=genuine.body, headers={**headers, "webhook-id": webhook})
        assert again.status_code == 401


def _assert_told(chef: Installation, receiver: Wild, endpoint: str, names: list[str], expected: int) -> None:
    """Every event of the endpoint was taken at least once, under one id, and the log of tries says the same."""
    ids = _ids(chef, endpoint)
    wanted = ", ".join(f"'{name.removeprefix('build.')}'" for name in names)
    events = chef.rows(
        "SELECT e.build_id, e.to_status FROM builds_buildevent e JOIN builds_build b ON b.id = e.build_id"
        f" WHERE e.kind = 'status' AND e.to_status IN ({wanted}) AND b.worker = 'mover'"
    )
    assert len(events) == expected
    told = [
        (message["data"]["jobId"], message["type"]) for pk, message in receiver.told.items() if pk in receiver.taken()
    ]
    assert len(told) == len(set(told)) == expected
    assert {(job.replace("-", ""), name) for job, name in told} == {
        (str(job).replace("-", ""), f"build.{status}") for job, status in events
    }
    assert receiver.taken() == set(ids)
    _assert_log_agrees(chef, receiver, ids)


def _ids(chef: Installation, endpoint: str) -> dict[str, tuple[str, int]]:
    """webhook-id → status and number of tries."""
    rows = chef.rows(f"SELECT id, status, tries FROM builds_delivery WHERE {_is('endpoint_id', endpoint)}")
    return {_dashed(pk): (status, tries) for pk, status, tries in rows}


def _assert_log_agrees(chef: Installation, receiver: Wild, ids: dict[str, tuple[str, int]]) -> None:
    logged: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for pk, *row in chef.rows("SELECT delivery_id, number, status_code, error, is_over FROM builds_deliverytry"):
        logged[_dashed(pk)].append(tuple(row))
    for pk, (status, tries) in ids.items():
        rows, answered = sorted(logged[pk]), Counter(receiver.answered[pk])
        assert status == "delivered"
        assert [row[0] for row in rows] == list(range(1, tries + 1)), "every try is on record, and none twice"
        assert all(is_over for *_, is_over in rows)
        # Each message that came was a try. Not each try came, and of some that came, no sender lived to note it.
        assert answered.total() <= tries
        codes = Counter(code for _, code, *_ in rows if code is not None)
        assert not codes - answered, (codes, answered)
        assert 200 <= rows[-1][1] < 300


def _assert_in_order(chef: Installation) -> None:
    """Of one build, nothing was tried before what came before it."""
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
    """SQLite keeps ids without dashes."""
    return f"replace(CAST({column} AS text), '-', '') = '{pk.replace('-', '')}'"


def _dashed(pk: Any) -> str:
    text = str(pk).replace("-", "")
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
