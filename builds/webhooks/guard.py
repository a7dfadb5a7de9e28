"""Where messages may be sent: public addresses only. URLs are checked when saved, and again before every send.

Users choose where Chef sends requests. Without a guard they could reach what only this machine or its network can:
databases, the Docker Engine, a cloud's metadata service (SSRF). Knows URLs and addresses, nothing of messages.
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
Resolver = Callable[[str, int], list[str]]  # resolves a name and port to all of its addresses; raises OSError
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_CHARS = re.compile(r"[!#-;=?-\[\]_a-z~%]+")  # the characters of a URL; no spaces, quotes or "\"
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
# Browsers and inet_aton read such a name as an IPv4 address: 2130706433, 0x7f.1, 127.1, 0177.0.0.1.
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
_LOCAL = re.compile(r"(.*\.)?localhost")
# The lowest unprivileged port: below it, only 80 and 443 are allowed.
_FIRST_FREE_PORT = 1024
_SAVE_SECONDS = 3.0  # the time limit for a DNS look-up in a request

# Everything that is not a public unicast address: IANA's registries of special-purpose addresses.
_NOT_PUBLIC_4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, with cloud metadata services
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
]
# The only allocated IPv6 range; mapped (::ffff:0:0/96) and NAT64 (64:ff9b::/96) addresses lie outside it.
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments such as Teredo, which embeds an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which embeds an IPv4 address
        "2620:4f:8000::/48",
        "3fff::/20",  # documentation
    )
]
_ISATAP = {0x0000_5EFE, 0x0200_5EFE}  # the middle of an address that embeds an IPv4 address


class UrlRefusedError(RefusalError):
    """Chef does not send there. `code` is stable, the text says what to write instead."""

    code, status = "invalid_url", 400

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail, code=code, reasons=[Reason(code, detail, ("url",))])


class UnresolvedHostError(Exception):
    """The name has no address, or was not resolved in time."""


@dataclass(frozen=True)
class Target:
    """A parsed URL. `is_trusted`: the installation allows it to be internal."""

    scheme: str
    host: str  # as in a Host header, without the port: IPv6 in brackets
    port: int
    path: str
    is_trusted: bool = False

    @property
    def address(self) -> Address | None:
        """The host, if it is an address and not a name."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host.strip("[]"))
        return None


def parse(url: str, *, is_ours: bool = False) -> Target:
    """Parse a URL and check everything that needs no DNS look-up.

    `is_ours`: staff set it, so it may be plain HTTP and internal. Raises UrlRefusedError.
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
        raise UrlRefusedError("invalid_url", "The URL is malformed: check its host and port.") from None
    if "#" in url:
        raise UrlRefusedError("invalid_url", "Remove the fragment (#…): it is never sent.")
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
        raise UrlRefusedError("invalid_url", "The URL must begin with https://.")
    if scheme == "http" and not (is_ours or settings.WEBHOOK_ALLOW_HTTP):
        detail = "Messages are sent over https:// only: anyone could read them over plain HTTP."
        raise UrlRefusedError("https_only", detail)
    if "@" in netloc:
        detail = "Remove the user name and password from the URL: messages are authenticated by their signature."
        raise UrlRefusedError("invalid_url", detail)


def _checked_host(text: str) -> str:
    """The host in normalised form. Raises UrlRefusedError."""
    host = text.removesuffix(".")
    if ":" in host:
        with contextlib.suppress(ValueError):
            address = ipaddress.IPv6Address(host)
            if not address.scope_id:
                return f"[{address}]"
        raise UrlRefusedError("invalid_url", "This is not a valid IPv6 address.")
    if _NUMBER.fullmatch(host):
        with contextlib.suppress(ValueError):
            return str(ipaddress.IPv4Address(host))
        raise UrlRefusedError("invalid_url", "Write an IPv4 address as four decimal numbers without leading zeros.")
    if not _NAME.fullmatch(host):
        raise UrlRefusedError("invalid_url", "The URL has no valid host name.")
    return host


def is_allowed(host: str, port: int) -> bool:
    """Whether CHEF_WEBHOOK_ALLOWED_HOSTS names it."""
    named = {name.lower() for name in settings.WEBHOOK_ALLOWED_HOSTS}
    return host in named or f"{host}:{port}" in named


def _check_port(port: int, is_trusted: bool) -> None:
    if not (port in (80, 443) or port >= _FIRST_FREE_PORT or (is_trusted and port)):
        raise UrlRefusedError(
            "invalid_url", f"Use port 443, 80, or any from {_FIRST_FREE_PORT}: lower ports belong to other services."
        )


def _check_literal(target: Target) -> None:
    if target.address is not None:
        check_addresses([str(target.address)])
    elif _LOCAL.fullmatch(target.host):
        raise _inward(target.host)


def _inward(what: str) -> UrlRefusedError:
    return UrlRefusedError("inward_url", f"{what} is not on the public internet, so messages cannot be sent there.")


# --- What a host stands for --------------------------------------------------------------------------------------


def is_public(address: Address) -> bool:
    """Whether it is a public unicast address."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address not in _PUBLIC_6 or any(address in network for network in _NOT_PUBLIC_6):
        return False
    return (int(address) >> 32) & 0xFFFF_FFFF not in _ISATAP


def check_addresses(addresses: list[str]) -> None:
    """Raises UrlRefusedError when any of them is not public, since any of them may be used."""
    for text in addresses:
        try:
            is_good = is_public(ipaddress.ip_address(text))
        except ValueError:
            is_good = False  # such as an address with a zone
        if not is_good:
            raise _inward(text)


def system_resolver(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def addresses_of(target: Target, *, seconds: float, resolver: Resolver | None = None) -> list[str]:
    """All addresses of the target, resolved now and checked. Raises UrlRefusedError or UnresolvedHostError.

    Connect to these, not to the name: a second look-up may return other addresses (DNS rebinding).
    """
    if target.address is not None:
        addresses = [str(target.address)]
    else:
        addresses = _looked_up(target, seconds, resolver or system_resolver)
    if not target.is_trusted:
        check_addresses(addresses)
    return addresses


def refusal_when_saved(url: str) -> UrlRefusedError | None:
    """Why a URL cannot be saved; empty if it can. A name that does not resolve is accepted: each send checks again."""
    try:
        addresses_of(parse(url), seconds=_SAVE_SECONDS)
    except UrlRefusedError as refused:
        return refused
    except UnresolvedHostError:
        pass
    return None


def _looked_up(target: Target, seconds: float, resolver: Resolver) -> list[str]:
    """getaddrinfo has no time-out, so it runs in its own thread, which may outlive ours."""
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
        raise UnresolvedHostError(f"{target.host} was not resolved in time") from None
    if isinstance(answer, Exception) or not answer:
        raise UnresolvedHostError(f"{target.host} has no address")
    return answer
