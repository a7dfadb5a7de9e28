"""Where messages may be sent: every spelling of an internal address, and names that resolve differently later."""

import ipaddress
import socket
import time
from typing import Any

import pytest
from pytest_django import Settings

from builds.webhooks import guard
from builds.webhooks.transport import post
from tests.receiver import Receiver

pytestmark = pytest.mark.once("postgresql")

PUBLIC = "93.184.216.34"


def refusal(url: str, **options: Any) -> str:
    with pytest.raises(guard.UrlRefusedError) as refused:
        guard.parse(url, **options)
    assert len(str(refused.value)) > 25
    return refused.value.code


class Names:
    """A resolver that returns the next of its answers on each call, and counts calls."""

    def __init__(self, *answers: list[str] | OSError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer


# --- Spellings of addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://example.com", "example.com", 443, "/"),
        ("https://Example.COM./a/b?c=d&e", "example.com", 443, "/a/b?c=d&e"),
        ("https://example.com:8443/x", "example.com", 8443, "/x"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, "/"),
        (f"https://{PUBLIC}/x", PUBLIC, 443, "/x"),
        ("https://[2606:2800:220:1:248:1893:25C8:1946]/", "[2606:2800:220:1:248:1893:25c8:1946]", 443, "/"),
        ("https://a_b.example.com/%7Ex", "a_b.example.com", 443, "/%7Ex"),
    ],
)
def test_public_addresses_are_accepted(url: str, host: str, port: int, path: str) -> None:
    target = guard.parse(url)

    assert (target.host, target.port, target.path) == (host, port, path)
    assert not target.is_trusted


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1"),
        *("203.0.113.9", "192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "127.0.0.1."),
        *("[::]", "[::1]", "[fe80::1]", "[fc00::1]", "[fd12:3456::1]", "[ff02::1]", "[fec0::1]", "[::ffff:127.0.0.1]"),
        *("[::ffff:a00:1]", f"[::ffff:{PUBLIC}]", "[::127.0.0.1]", f"[::{PUBLIC}]", "[64:ff9b::7f00:1]"),
        *(f"[64:ff9b::{PUBLIC}]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]", "[2002:c0a8:101::1]", "[100::1]"),
        *("[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "[2001:db8::1]", "[3fff::1]", "[2001:20::1]"),
        *("[2606:2800:220:1:0:5efe:7f00:1]", "[2606:2800:220:1:200:5efe:a00:1]", "[5f00::1]"),
        *("localhost", "LOCALHOST", "a.localhost", "localhost."),
    ],
)
def test_internal_addresses_are_refused(host: str) -> None:
    assert refusal(f"https://{host}/x") == "inward_url"


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "017700000001", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.1", "127.0.1", "0", "0x", "1"),
        *("127.0.0.01", "127.0.0.0x1", "256.1.1.1", "1.2.3.4.5", "4294967296", "00.0.0.0", "3.", "0x7F000001"),
        *("[fe80::1%25eth0]", "[::1%lo]", "[::1", "[127.0.0.1]", "[::ffff:127.1]", "[x]"),
        *("", "a..b", ".a", "-a.example", "a-.example", "a" * 64, f"{'a.' * 127}aa", "a%2eexample", "%6c%6fcalhost"),
        *(
            "\uff4cocalhost",
            "\uff11\uff12\uff17.0.0.1",
            "127\u30020\u30020\u30021",
            "exämple.com",
            "a b",
            "a\tb",
            "a\nb",
            "a\0b",
            "a\\b",
        ),
    ],
)
def test_unusual_spellings_of_a_host_are_refused(host: str) -> None:
    assert refusal(f"https://{host}/x") == "invalid_url"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "x",
            "example.com",
            "//example.com",
            "ftp://example.com",
            "file:///etc/passwd",
            "gopher://example.com/_x",
        ),
        *("https:example.com", "https:/example.com", "https:///example.com", "javascript:alert(1)", "unix:/x"),
        *("https://user@example.com", "https://user:password@example.com", "https://example.com@127.0.0.1"),
        *("https://127.0.0.1\\@example.com", "https://example.com#@127.0.0.1", "https://example.com/#", " https://a.b"),
        *("https://example.com:0", "https://example.com:22", "https://example.com:25", "https://example.com:1023"),
        *(
            "https://example.com:65536",
            "https://example.com:-1",
            "https://example.com:x",
            "https://example.com:\uff14\uff14\uff13",
        ),
        *("https://example.com/ä", "https://example.com/<x>", 'https://example.com/"', f"https://a.b/{'x' * 2000}"),
    ],
)
def test_invalid_urls_are_refused(url: str) -> None:
    assert refusal(url) == "invalid_url"


def test_plain_http_is_allowed_by_a_setting(settings: Settings) -> None:
    assert refusal("http://example.com/") == "https_only"

    settings.WEBHOOK_ALLOW_HTTP = True
    assert guard.parse("http://example.com/").port == 80
    assert refusal("http://127.0.0.1/") == "inward_url"


@pytest.mark.parametrize(
    ("allowed", "url", "is_allowed"),
    [
        ("127.0.0.1", "https://127.0.0.1:22/", True),
        ("127.0.0.1:9000", "https://127.0.0.1:9000/", True),
        ("127.0.0.1:9000", "https://127.0.0.1:9001/", False),
        ("127.0.0.1", "https://127.0.0.2/", False),
        ("LocalHost", "https://localhost/", True),
        ("[::1]:9000", "https://[0:0::1]:9000/", True),
        ("127.0.0.1", "https://2130706433/", False),
        ("example.com", "https://127.0.0.1/", False),
    ],
)
def test_an_installation_may_allow_its_own_receivers(
    settings: Settings, allowed: str, url: str, is_allowed: bool
) -> None:
    settings.WEBHOOK_ALLOWED_HOSTS = [allowed]

    if is_allowed:
        assert guard.parse(url).is_trusted
    else:
        assert refusal(url) in {"inward_url", "invalid_url"}


def test_urls_set_by_staff_may_be_internal_but_must_be_valid() -> None:
    assert guard.parse("http://127.0.0.1:3210/x", is_ours=True).is_trusted
    assert refusal("http://user@127.0.0.1/", is_ours=True) == "invalid_url"
    assert refusal("ftp://127.0.0.1/", is_ours=True) == "invalid_url"


def test_all_addresses_that_python_calls_private_are_refused() -> None:
    for number in range(0, 2**32, 65_521):  # a prime: it hits networks of all sizes
        address = ipaddress.IPv4Address(number)
        if guard.is_public(address):
            assert address.is_global, address
            assert not address.is_multicast, address


# --- Name resolution -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "addresses",
    [
        *(["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["10.0.0.1", PUBLIC], ["::1"], [PUBLIC, "::ffff:127.0.0.1"]),
        *([PUBLIC, "fe80::1%eth0"], ["64:ff9b::a00:1"], ["2002:a00:1::1"], ["nonsense"]),
    ],
)
def test_a_name_is_refused_if_any_of_its_addresses_is_internal(addresses: list[str]) -> None:
    target = guard.parse("https://example.com/")

    with pytest.raises(guard.UrlRefusedError):
        guard.addresses_of(target, seconds=5, resolver=Names(addresses))


def test_a_name_without_addresses_has_its_own_error() -> None:
    target = guard.parse("https://example.com/")

    for names in (Names([]), Names(socket.gaierror("unknown"))):
        with pytest.raises(guard.UnresolvedHostError, match=r"example\.com has no address"):
            guard.addresses_of(target, seconds=5, resolver=names)


def test_a_hanging_resolver_does_not_block() -> None:
    def hang(host: str, port: int) -> list[str]:
        time.sleep(5)
        return [PUBLIC]

    began = time.monotonic()
    with pytest.raises(guard.UnresolvedHostError, match="not resolved in time"):
        guard.addresses_of(guard.parse("https://example.com/"), seconds=0.2, resolver=hang)

    assert time.monotonic() - began < 4


def test_the_system_s_resolver_returns_every_address_once() -> None:
    addresses = guard.system_resolver("localhost", 443)

    assert set(addresses) <= {"127.0.0.1", "::1"}
    assert len(addresses) == len(set(addresses)) > 0


def test_a_name_that_becomes_internal_after_saving_is_not_sent_to(receiver: Receiver, settings: Settings) -> None:
    """DNS rebinding: public when first checked, this machine when sent to."""
    settings.WEBHOOK_ALLOWED_HOSTS = []
    names = Names([PUBLIC], ["127.0.0.1"])
    url = f"http://rebinding.example:{receiver.port}/"

    assert guard.addresses_of(guard.parse(url), seconds=5, resolver=names) == [PUBLIC]
    answer = post(url, {}, b"{}", seconds=5, resolver=names)

    assert (answer.status, answer.error) == (None, "inward_url")
    assert receiver.messages == []


def test_connections_go_to_the_checked_address(receiver: Receiver, settings: Settings) -> None:
    """DNS rebinding between check and connection: the name is resolved once, and only that result is used."""
    settings.WEBHOOK_ALLOWED_HOSTS = [f"rebinding.example:{receiver.port}"]
    names = Names(["127.0.0.1"], ["127.0.0.2"])

    answer = post(f"http://rebinding.example:{receiver.port}/x", {}, b"{}", seconds=5, resolver=names)

    assert answer.status == 204
    assert names.asked == [("rebinding.example", receiver.port)]
    assert receiver.messages[0].headers["host"] == f"rebinding.example:{receiver.port}"
