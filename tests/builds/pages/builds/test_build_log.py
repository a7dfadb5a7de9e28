"""The log on a build's page without JavaScript: the end, other parts, a verdict's line; and its endpoints."""

import gzip
import json
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from builds.models import Build, LogChunk
from builds.queue.claims import BuildLease, claim
from builds.verdicts.evidence import verdict
from chef.jobs.models import Status

pytestmark = pytest.mark.once

SHOWN = 300


@pytest.fixture
def lease(queue_build: Callable[..., Build]) -> BuildLease:
    queue_build()
    lease = claim("worker")
    assert lease
    return lease


def printed(lease: BuildLease, text: str, *, sequence: int = 1, stream: str = "stdout") -> None:
    LogChunk.objects.create(
        build=lease.build,
        attempt=lease.fence,
        sequence=sequence,
        phase="build",
        stream=stream,
        timestamp=timezone.now(),
        text=text,
    )


def numbers(page: str) -> list[int]:
    return [int(part.partition('"')[0]) for part in page.split('id="L')[1:]]


def test_the_end_of_the_log_is_shown_with_links_to_the_rest(lease: BuildLease, browser: Client) -> None:
    printed(lease, "".join(f"line {number}\n" for number in range(1, 701)))
    address = f"/builds/{lease.build.pk}"

    end = browser.get(address).content.decode()
    middle = browser.get(f"{address}?log=101").content.decode()
    beginning = browser.get(f"{address}?log=1").content.decode()

    assert numbers(end) == list(range(401, 701))
    assert 'href="?log=101#log">Earlier lines' in end
    assert "Later lines" not in end
    assert numbers(middle) == list(range(101, 401))
    assert 'href="?log=401#log">Later lines' in middle
    assert "Earlier lines" not in beginning
    for odd in ("0", "-5", "x", "99999999999999999999", "²"):
        assert numbers(browser.get(address, {"log": odd}).content.decode())


def test_a_verdict_s_evidence_links_to_its_log_line(lease: BuildLease, browser: Client) -> None:
    error = "src/a.ts(1,2): error TS2304: <b>Cannot</b> find name 'x'."
    printed(lease, "".join(f"line {number}\n" for number in range(1, 401)))
    printed(lease, f"\x1b[31m{error}\x1b[0m\n", sequence=2, stream="stderr")
    printed(lease, "".join(f"after {number}\n" for number in range(1, 401)), sequence=3)
    why = verdict("type_error", phase="build", evidence=[error, "never printed"])
    lease.end(Status.FAILED, verdict=why.as_json())
    address = f"/builds/{lease.build.pk}"

    page = browser.get(address).content.decode()

    assert f'<a href="{address}?log=301#L401" data-line="401">line 401</a>' in page
    assert page.count("data-line=") == 1
    there = browser.get(f"{address}?log=301").content.decode()
    assert 'class="row stderr" id="L401"' in there
    assert '<a href="#L401" data-line="401">' in there
    assert "&lt;b&gt;Cannot&lt;/b&gt;" in there


def test_colours_become_classes_and_hidden_characters_are_marked(lease: BuildLease, browser: Client) -> None:
    printed(lease, "\x1b[1;32mgood\x1b[0m \u202eevil\u202c <i>\n")

    page = browser.get(f"/builds/{lease.build.pk}").content.decode()

    assert '<span class="f4 bo">good</span>' in page
    assert '<span class="unseen">U+202E</span>evil<span class="unseen">U+202C</span> &lt;i&gt;' in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "style=" not in page


def test_a_very_long_line_is_cut_and_says_so(lease: BuildLease, browser: Client) -> None:
    printed(lease, "x" * 50_000 + "\n")

    page = browser.get(f"/builds/{lease.build.pk}").content.decode()

    assert "x" * 4_000 in page
    assert "x" * 4_001 not in page
    assert "… 46000 more characters, which the raw text has" in page


def test_the_log_endpoint_compresses_if_the_client_accepts_it(lease: BuildLease, browser: Client) -> None:
    printed(lease, "häl\u202elo\n" * 500)
    address = f"/builds/{lease.build.pk}/log"

    plain = browser.get(address)
    packed = browser.get(address, headers={"Accept-Encoding": "gzip"})

    assert plain.json()["text"] == "häl\u202elo\n" * 500
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) == len(packed.content) < len(plain.content)
    assert json.loads(gzip.decompress(packed.content)) == plain.json()
    assert browser.get(address, {"after": "nonsense"}).status_code == 400


def test_the_raw_log_is_plain_text_without_colours(lease: BuildLease, browser: Client) -> None:
    printed(lease, "\x1b[31m<script>alert(1)</script>\x1b[0m\n")

    answer = browser.get(f"/builds/{lease.build.pk}/log.txt")

    assert answer.headers["Content-Length"] == str(len("<script>alert(1)</script>\n"))
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_each_endpoint_is_hidden_from_others(lease: BuildLease, other: User) -> None:
    stranger = Client()
    stranger.force_login(other)

    for endpoint in ("state", "stream", "log", "log.txt", "artifacts", "artifacts/index.html"):
        assert stranger.get(f"/builds/{lease.build.pk}/{endpoint}").status_code == 404
        assert Client().get(f"/builds/{lease.build.pk}/{endpoint}").headers["Location"].startswith("/login")


def test_the_stream_refuses_an_invalid_position(lease: BuildLease, browser: Client) -> None:
    assert browser.get(f"/builds/{lease.build.pk}/stream?after=x").status_code == 400
    assert browser.get(f"/builds/{lease.build.pk}/stream", headers={"Last-Event-ID": "1.2"}).status_code == 400
    assert browser.get(f"/builds/{lease.build.pk}/stream").status_code == 406  # streaming needs the ASGI server
