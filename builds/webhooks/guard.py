"""Where messages may go: nowhere inside. Addresses are judged when they are saved, and again each time before a send.

Users choose where Chef sends. Without a guard, they could have it knock at what only this machine or its network can
reach: databases, the Docker Engine, a cloud's metadata. Knows how addresses are written and what they stand for, and
nothing of messages.
"""

import contextlib
import ipaddress
import queue
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

from chef.refusals import Reason, RefusalError

MAX_URL_CHARS = 2000
Resolver = Callable[[str, int], list[str]]  # a name and a port, to all addresses of it; raises OSError
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_CHARS = re.compile(r"[!#-;=?-\[\]_a-z~%]+")  # what an address on the web is written with; no blanks, quotes or "\"
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
# By the rules of browsers and of C's inet_aton, such a name is a number: 2130706433, 0x7f.1, 127.1, 0177.0.0.1.
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
_LOCAL = re.compile(r"(.*\.)?localhost")
# The lowest port that is nobody's by convention: below, only the web's own two are for messages.
_FIRST_FREE_PORT = 1024
_SAVE_SECONDS = 3.0  # how long a request waits for a name server

# All that is no address of a single host on the public internet: IANA's registries of special-purpose addresses.
_NOT_PUBLIC_4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' own
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, with the clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
]
# Of IPv6, only this is given out; mapped addresses (::ffff:0:0/96) and those of NAT64 (64:ff9b::/96) lie outside.
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocols' own, such as Teredo, which has an IPv4 address within
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which has an IPv4 address within
        "2620:4f:8000::/48",
        "3fff::/20",  # documentation
    )
]
_ISATAP = {0x0000_5EFE, 0x0200_5EFE}  # the middle of an address that has an IPv4 address within


class UrlRefusedError(RefusalError):
    """Chef does not send there. `code` is stable, the text says what to write instead."""

    code, status = "invalid_url", 400

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail, code=code, reasons=[Reason(code, detail, ("url",))])


class Unresolved(Exception):
    """The name has no address, or none was told in time."""


@dataclass(frozen=True)
class Target:
    """An address in parts. `is_trusted`: the installation itself says that it may lie inside."""

    scheme: str
    host: str  # as in a Host header, without the port: an address of IPv6 has its brackets
    port: int
    path: str
    is_trusted: bool = False

    @property
    def address(self) -> Address | None:
        """The host, if it is an address and no name."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host.strip("[]"))
        return None


def parse(url: str, *, is_ours: bool = False) -> Target:
    """The parts of an address to which messages may go, as far as can be told without asking for its host's addresses.

    `is_ours`: staff have set it; it may be plain HTTP, and lie inside. Raises UrlRefusedError.
    """
    if not _CHARS.fullmatch(url.lower()) or len(url) > MAX_URL_CHARS:
        raise UrlRefusedError(
            "invalid_url",
            f"Send an address of at most {MAX_URL_CHARS:,} ASCII characters, such as https://example.com/hooks/chef; "
            "write a name in other letters in its xn-- form.",
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UrlRefusedError("invalid_url", "The address cannot be read: its host or port is malformed.") from None
    if "#" in url:
        raise UrlRefusedError("invalid_url", "Leave out what comes after the #: it is never sent.")
    _check_form(parts.scheme, parts.netloc, is_ours)
    host = _checked_host(parts.hostname or "")
    port = port if port is not None else {"http": 80, "https": 443}[parts.scheme]
    is_trusted = is_ours or is_allowed(host, port)
    _check_port(port, is_trusted)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = Target(parts.scheme, host, port, path, is_trusted)
    if not is_trusted:
        _check_literal(target)
    return target


def _check_form(scheme: str, netloc: str, is_ours: bool) -> None:
    if scheme not in ("https", "http"):
        raise UrlRefusedError("invalid_url", "The address begins with https://.")
    if scheme == "http" and not (is_ours or settings.WEBHOOK_ALLOW_HTTP):
        raise UrlRefusedError(
            "https_only", "Messages are sent over https:// only: on plain HTTP, anybody can read them."
        )
    if "@" in netloc:
        detail = "Leave the user's name and password out of the address: a message proves by its signature who sent it."
        raise UrlRefusedError("invalid_url", detail)


def _checked_host(text: str) -> str:
    """The host in the one form that is compared and looked up. Raises UrlRefusedError."""
    host = text.removesuffix(".")
    if ":" in host:
        with contextlib.suppress(ValueError):
            address = ipaddress.IPv6Address(host)
            if not address.scope_id:
                return f"[{address}]"
        raise UrlRefusedError("invalid_url", "This is no address of IPv6.")
    if _NUMBER.fullmatch(host):
        with contextlib.suppress(ValueError):
            return str(ipaddress.IPv4Address(host))
        raise UrlRefusedError("invalid_url", "Write an address of IPv4 as four decimal numbers without leading zeros.")
    if not _NAME.fullmatch(host):
        raise UrlRefusedError("invalid_url", "The address has no host, or not the name of one.")
    return host


def is_allowed(host: str, port: int) -> bool:
    """Whether CHEF_WEBHOOK_ALLOWED_HOSTS names it."""
    named = {name.lower() for name in settings.WEBHOOK_ALLOWED_HOSTS}
    return host in named or f"{host}:{port}" in named


def _check_port(port: int, is_trusted: bool) -> None:
    if not (port in (80, 443) or port >= _FIRST_FREE_PORT or (is_trusted and port)):
        raise UrlRefusedError(
            "invalid_url", f"Use port 443, 80, or one from {_FIRST_FREE_PORT} on: others are not the web's."
        )


def _check_literal(target: Target) -> None:
    if target.address is not None:
        check_addresses([str(target.address)])
    elif _LOCAL.fullmatch(target.host):
        raise _inward(target.host)


def _inward(what: str) -> UrlRefusedError:
    return UrlRefusedError("inward_url", f"{what} is not on the public internet: Chef sends no messages there.")


# --- What a host stands for --------------------------------------------------------------------------------------


def is_public(address: Address) -> bool:
    """Whether it is the address of a single host on the public internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address not in _PUBLIC_6 or any(address in network for network in _NOT_PUBLIC_6):
        return False
    return (int(address) >> 32) & 0xFFFF_FFFF not in _ISATAP


def check_addresses(addresses: list[str]) -> None:
    """Raises UrlRefusedError when any of them is not public: which of them is used is not ours to say."""
    for text in addresses:
        try:
            is_good = is_public(ipaddress.ip_address(text))
        except ValueError:
            is_good = False  # such as one with a zone
        if not is_good:
            raise _inward(text)


def system_resolver(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def addresses_of(target: Target, *, seconds: float, resolver: Resolver | None = None) -> list[str]:
    """All addresses of the target, looked up now, and checked. Raises UrlRefusedError, or Unresolved.

    Whoever connects has to use these, and not the name once more: a second look-up may bring other ones.
    """
    if target.address is not None:
        addresses = [str(target.address)]
    else:
        addresses = _looked_up(target, seconds, resolver or system_resolver)
    if not target.is_trusted:
        check_addresses(addresses)
    return addresses


def refusal_when_saved(url: str) -> UrlRefusedError | None:
    """What speaks against keeping an address. A name without addresses is kept: it is asked again before each send."""
    try:
        addresses_of(parse(url), seconds=_SAVE_SECONDS)
    except UrlRefusedError as refused:
        return refused
    except Unresolved:
        pass
    return None


def _looked_up(target: Target, seconds: float, resolver: Resolver) -> list[str]:
    """A look-up cannot be given a time-out, so it has a thread of its own, which may outlive our patience."""
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(resolver(target.host, target.port))
        except (OSError, UnicodeError) as fault:
            answers.put(fault)

    threading.Thread(target=look_up, name="resolver", daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.001, seconds))
    except queue.Empty:
        raise Unresolved(f"{target.host} was not resolved in time") from None
    if isinstance(answer, Exception) or not answer:
        raise Unresolved(f"{target.host} has no address")
    return answer
