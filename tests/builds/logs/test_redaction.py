"""Masking: a secret is found in every encoding and however it is split, and nothing else is masked."""

import base64
import binascii
import json
import random
import re
import string
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from builds.logs.redaction import Redaction, StreamRedactor, forms
from builds.logs.writer import LogWriter
from builds.models import Build, LogChunk
from builds.queue.claims import BuildLease, claim

pytestmark = pytest.mark.once

MIB = 1024**2
VALUE = "tk/9+ün 'q\"t' %41$(id)\\n"  # every character that needs quoting somewhere
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nAASCBKcwggSjAgEAAoIBAQC7\nshort\n-----END KEY-----\n"


def redact(text: str, **secrets: str) -> str:
    return Redaction(secrets.items()).redact(text)


def in_pieces(text: str, pieces: list[str], **secrets: str) -> str:
    assert "".join(pieces) == text
    stream = StreamRedactor(Redaction(secrets.items()))
    return "".join([*map(stream.feed, pieces), stream.finish()])


def test_a_secret_is_replaced_by_its_name() -> None:
    assert redact("a hunter2hunter2 b", TOKEN="hunter2hunter2") == "a [secret TOKEN] b"


WRITTEN: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": lambda value: json.dumps(value),
    "JSON with its letters": lambda value: json.dumps(value, ensure_ascii=False),
    "JavaScript's encodeURIComponent": lambda value: quote(value, safe="!'()*"),
    "URL with slashes": quote,
    "URL without slashes": lambda value: quote(value, safe=""),
    "form": quote_plus,
    "lower-case URL": lambda value: re.sub("%..", lambda code: code[0].lower(), quote(value, safe="")),
    "Python": repr,
    "a quoting shell": lambda value: "'" + value.replace("'", "'\\''") + "'",
    "hexadecimal": lambda value: value.encode().hex(),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 of a line": lambda value: base64.b64encode(value.encode() + b"\n").decode(),
    "base64 after one byte": lambda value: base64.b64encode(b"x" + value.encode() + b"yz").decode(),
    "base64 after two bytes": lambda value: base64.b64encode(b"xy" + value.encode() + b"z").decode(),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(b"\xff" + value.encode()).decode().rstrip("="),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("value", [VALUE, "plainSecret1", "ÿÿÿ>>>???~~~"])
def test_every_encoding_of_a_secret_is_masked(written: str, value: str) -> None:
    shown = redact(f"<{WRITTEN[written](value)}>", TOKEN=value)

    # At most the few characters stay that share bits with their neighbours.
    left = shown.replace("[secret TOKEN]", "")
    assert "[secret TOKEN]" in shown
    assert len(left) <= 2 + 12
    assert value[2:-2] not in shown


def test_a_multi_line_secret_is_masked_whole_and_line_by_line() -> None:
    whole, one = redact(f"key:\n{KEY}done\n", KEY=KEY), redact("+ AASCBKcwggSjAgEAAoIBAQC7 +\nshort\n", KEY=KEY)

    assert whole == "key:\n[secret KEY]\ndone\n"
    assert one == "+ [secret KEY] +\nshort\n"  # a line of less than eight characters is not masked by itself


def test_base64_of_a_long_secret_is_masked_across_line_breaks() -> None:
    value = string.ascii_letters * 8
    wrapped = binascii.b2a_base64(value.encode(), newline=False).decode()
    lines = [wrapped[at : at + 76] for at in range(0, len(wrapped), 76)]

    shown = redact("\n".join(lines), LONG=value)

    assert shown == "\n".join(["[secret LONG]"] * len(lines))


def test_a_secret_with_colour_codes_inside_is_masked_and_colours_stay() -> None:
    shown = redact("\x1b[1mhunter\x1b[31m2hun\x1b[0mter2\x1b[0m!", TOKEN="hunter2hunter2")

    assert shown == "\x1b[1m[secret TOKEN]\x1b[31m\x1b[0m\x1b[0m!"


def test_overlapping_secrets_are_masked_completely() -> None:
    shown = redact("abcdefghijkl abcdefgh", ONE="abcdefgh", TWO="efghijkl", THREE="abcdefghi")

    assert shown == "[secret THREE] [secret ONE]"


def test_a_repeated_secret_is_masked_once() -> None:
    pieces = ["a" * 1000] * 50

    shown = in_pieces("a" * 50_000, pieces, TOKEN="a" * 10)

    assert shown == "[secret TOKEN]"


def test_the_prefix_of_a_secret_is_released_in_the_end() -> None:
    assert in_pieces("hunter2hunter", ["hunter2", "hunter"], TOKEN="hunter2hunter2") == "hunter2hunter"


def test_a_complete_line_is_released_at_once() -> None:
    stream = StreamRedactor(Redaction([("TOKEN", "hunter2hunter2")]))

    assert stream.feed("it ends with h\n") == "it ends with h\n"


def test_memory_is_bounded_when_a_prefix_is_never_completed() -> None:
    redaction = Redaction([("TOKEN", "hunter2hunter2")])
    stream = StreamRedactor(redaction)

    for _ in range(1000):
        stream.feed("h" + "\x1b[0m" * 100)

    assert len(stream._held) <= redaction.most_held


@pytest.mark.parametrize("seed", range(60))
def test_random_splits_leak_no_secret_and_keep_other_text(seed: int) -> None:
    dice = random.Random(seed)
    secrets = {f"S{n}": _secret(dice) for n in range(dice.randint(1, 20))}
    parts: list[str] = []
    expected: list[str] = []
    for _ in range(dice.randint(1, 60)):
        filler = "".join(dice.choices("., :;()\n\t|é€", k=dice.randint(1, 40)))
        parts.append(filler)
        expected.append(filler)
        if dice.random() < 0.7:
            name = dice.choice(list(secrets))
            written = dice.choice([secrets[name], secrets[name].encode().hex(), json.dumps(secrets[name])[1:-1]])
            parts.append(written)
            expected.append(f"[secret {name}]")
    text = "".join(parts)

    shown = in_pieces(text, _split(dice, text), **secrets)

    assert shown == "".join(expected)
    for value in secrets.values():
        assert not any(form.decode() in shown for form in forms(value))


def _secret(dice: random.Random) -> str:
    return "".join(dice.choices(string.ascii_letters + string.digits + "+/é", k=dice.randint(8, 60)))


def _split(dice: random.Random, text: str) -> list[str]:
    cuts = sorted(dice.sample(range(len(text) + 1), k=min(len(text), dice.choice([1, 10, 1000]))))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


# --- On the way to the log ---------------------------------------------------------------------------------------


@pytest.fixture
def lease(queue_build: Callable[..., Build]) -> BuildLease:
    queue_build()
    lease = claim("worker")
    assert lease
    return lease


def write(lease: BuildLease, *parts: tuple[str, bytes], lines: list[str] | None = None, flush: bool = False) -> str:
    """Write one phase with secrets and return what is stored; `flush`: as if time passed between the parts."""
    log = LogWriter(lease, max_bytes=MIB)
    log.set_secrets([("TOKEN", "hunter2hunter2"), ("KEY", KEY)])
    log.start_phase("build", lambda line, _: lines.append(line) if lines is not None else None)
    for stream, data in parts:
        log.write(stream, data)
        if flush:
            for name, reader in log._readers.items():
                log._keep(name, reader.drain())
            log._store()
    log.system_line("$ deploy --token hunter2hunter2")
    log.end_phase()
    return "".join(LogChunk.objects.order_by("sequence").values_list("text", flat=True))


@pytest.mark.parametrize("flush", [False, True])
def test_a_secret_split_across_writes_is_never_stored(lease: BuildLease, flush: bool) -> None:
    data = f"one hunter2hunter2 two\n{KEY}end".encode()
    lines: list[str] = []

    stored = write(lease, *(("stdout", data[at : at + 1]) for at in range(len(data))), lines=lines, flush=flush)

    assert stored.replace("$ deploy --token [secret TOKEN]\n", "") == "one [secret TOKEN] two\n[secret KEY]\nend"
    assert lines == ["one [secret TOKEN] two", "[secret KEY]", "end"]


def test_streams_do_not_complete_each_other(lease: BuildLease) -> None:
    parts = [("stdout", b"hunter2"), ("stderr", b"warning\n"), ("stdout", b"hunter2\n")]

    stored = write(lease, *parts, flush=True)

    assert "warning\n[secret TOKEN]\n" in stored


def test_chef_s_own_lines_are_masked(lease: BuildLease) -> None:
    assert "$ deploy --token [secret TOKEN]\n" in write(lease)


def test_control_characters_inside_do_not_hide_a_secret(lease: BuildLease) -> None:
    stored = write(lease, ("stdout", b"hunter\x072hunt\x1b[2Ker2\n"))

    assert stored.startswith("[secret TOKEN]\n")
