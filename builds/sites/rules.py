"""Rules from a site's own files `_headers` and `_redirects`: the common subset of what Netlify and others support.

Parsed once, when the site is published; invalid rules are reported as warnings and left out. Pure functions.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEADERS_FILE, REDIRECTS_FILE = "_headers", "_redirects"
MAX_BYTES = 128 * 1024
MAX_RULES = 1_000
MAX_HEADERS = 30  # of one path
MAX_LINE = 2_000
MAX_WARNINGS = 20
STATUSES = frozenset({200, 301, 302, 303, 307, 308, 404})
# Set by the server, or with effects beyond the site, such as cookies for other hosts.
RESERVED_HEADERS = frozenset(
    [
        "accept-ranges",
        "age",
        "allow",
        "alt-svc",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "date",
        "etag",
        "keep-alive",
        "last-modified",
        "location",
        "proxy-authenticate",
        "server",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "x-accel-redirect",
    ]
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VALUE = re.compile(r"[\x20-\x7e]*")
_PATTERN = re.compile(r"/(?:[^\s*?#]*)\*?")
_TARGET = re.compile(r"(?:https?://[^\s/]+|/)[^\s]*")
_PLACEHOLDER = re.compile(r":([A-Za-z]\w{0,30})")

Rules = Mapping[str, Any]


@dataclass(frozen=True)
class Redirect:
    """A redirect of a path; with status 200 or 404 it is a rewrite to another file of the site."""

    target: str
    status: int
    is_forced: bool  # even if there is a file at the path


def parse(headers: bytes | None, redirects: bytes | None) -> tuple[dict[str, Any], list[str]]:
    """(rules in stored form, warnings about unusable ones) from the two files; None for a missing file."""
    warnings: list[str] = []
    rules: dict[str, Any] = {}
    if redirects is not None:
        rules["redirects"] = _parse_redirects(_lines(redirects, REDIRECTS_FILE, warnings), warnings)
    if headers is not None:
        rules["headers"] = _parse_headers(_lines(headers, HEADERS_FILE, warnings), warnings)
    if len(warnings) > MAX_WARNINGS:
        warnings = [*warnings[:MAX_WARNINGS], f"and {len(warnings) - MAX_WARNINGS} more"]
    return {name: found for name, found in rules.items() if found}, warnings


def _lines(content: bytes, name: str, warnings: list[str]) -> Iterator[tuple[str, str]]:
    """Each line with its place, without comments."""
    if len(content) > MAX_BYTES:
        warnings.append(f"{name} is longer than {MAX_BYTES:,} bytes: it is ignored.")
        return
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{name}, line {number}", line[:MAX_LINE]


def _parse_redirects(lines: Iterator[tuple[str, str]], warnings: list[str]) -> list[list[Any]]:
    found: list[list[Any]] = []
    for place, line in lines:
        if len(found) >= MAX_RULES:
            warnings.append(f"{place}: only the first {MAX_RULES:,} redirects are used.")
            break
        parts = line.partition(" #")[0].split()
        if fault := _redirect_fault(parts):
            warnings.append(f"{place}: {fault}")
            continue
        status = parts[2] if len(parts) > 2 else "301"
        found.append([parts[0], parts[1], int(status.rstrip("!")), status.endswith("!")])
    return found


def _redirect_fault(parts: Sequence[str]) -> str:
    if not 2 <= len(parts) <= 3:
        return "a redirect is a path, a target and an optional status; conditions are not supported."
    source, target, status = parts[0], parts[1], parts[2].rstrip("!") if len(parts) > 2 else "301"
    if not _PATTERN.fullmatch(source):
        return "the path must begin with / and may have a * only at its end."
    if not _TARGET.fullmatch(target) or target.startswith("//"):
        return "the target must be a path of the site, or a URL with http:// or https://."
    if not status.isdecimal() or int(status) not in STATUSES:
        return f"the status must be one of {', '.join(map(str, sorted(STATUSES)))}."
    if int(status) in (200, 404) and not target.startswith("/"):
        return "rewriting to another server is not supported: use a status from 301 to 308."
    return ""


def _parse_headers(lines: Iterator[tuple[str, str]], warnings: list[str]) -> list[list[Any]]:
    found: list[list[Any]] = []
    for place, line in lines:
        if not line[0].isspace():
            if len(found) >= MAX_RULES:
                warnings.append(f"{place}: only the first {MAX_RULES:,} paths are used.")
                break
            is_path = _PATTERN.fullmatch(line.strip()) is not None
            if not is_path:
                warnings.append(f"{place}: the path must begin with / and may have a * only at its end.")
            found.append([line.strip() if is_path else "", []])
            continue
        name, _, value = (part.strip() for part in line.partition(":"))
        if fault := _header_fault(name, value, found):
            warnings.append(f"{place}: {fault}")
        else:
            found[-1][1].append([name, value])
    return [[path, headers] for path, headers in found if path and headers]


def _header_fault(name: str, value: str, found: Sequence[Sequence[Any]]) -> str:
    if not found:
        return "a header must follow the path that it is for."
    if not _NAME.fullmatch(name) or not value or not _VALUE.fullmatch(value):
        return "a header must be a name, a colon, and a value of visible ASCII characters."
    if name.lower() in RESERVED_HEADERS:
        return f"{name} can only be set by the server."
    return f"a path may have at most {MAX_HEADERS} headers." if len(found[-1][1]) >= MAX_HEADERS else ""


def redirect_of(rules: Rules, path: str) -> Redirect | None:
    """The first redirect of a path, which begins with /."""
    for source, target, status, is_forced in rules.get("redirects", ()):
        found = _match(source, path)
        if found is not None:
            return Redirect(_filled(target, found), status, is_forced)
    return None


def headers_of(rules: Rules, path: str) -> list[tuple[str, str]]:
    """The headers of all rules that match a path; values of one name are joined by commas."""
    found: dict[str, tuple[str, str]] = {}
    for source, headers in rules.get("headers", ()):
        if _match(source, path) is None:
            continue
        for name, value in headers:
            before = found.get(name.lower())
            found[name.lower()] = (name, f"{before[1]}, {value}" if before else value)
    return list(found.values())


def _match(pattern: str, path: str) -> dict[str, str] | None:
    """The values of a pattern's placeholders and * in a path; None if it does not match."""
    wanted, there = pattern.rstrip("*").split("/"), path.split("/")
    has_splat = pattern.endswith("*")
    if has_splat and wanted[-1] == "":
        wanted.pop()
    elif not has_splat and wanted[-1] == "" and len(wanted) > 2:
        wanted.pop()  # /docs/ is the same as /docs
    if not has_splat and there[-1] == "" and len(there) > 2:
        there.pop()
    if len(there) < len(wanted) or (len(there) > len(wanted) and not has_splat):
        return None
    found = {}
    for index, (one, other) in enumerate(zip(wanted, there, strict=False)):
        if name := _PLACEHOLDER.fullmatch(one):
            found[name[1]] = other
        elif has_splat and index == len(wanted) - 1 and pattern[:-1].rpartition("/")[2] and other.startswith(one):
            continue  # /blog* also matches /blogs
        elif one != other:
            return None
    if has_splat:
        found["splat"] = "/".join(there[len(wanted) :])
    return found


def _filled(target: str, found: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda name: found.get(name[1], name[0]), target)
