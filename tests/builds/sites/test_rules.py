"""_headers and _redirects: parsing, invalid rules, and matching paths."""

import pytest

from builds.sites import rules
from builds.sites.rules import Redirect, headers_of, redirect_of

pytestmark = pytest.mark.once


def redirects(text: str) -> tuple[rules.Rules, list[str]]:
    return rules.parse(None, text.encode())


def headers(text: str) -> tuple[rules.Rules, list[str]]:
    return rules.parse(text.encode(), None)


@pytest.mark.parametrize(
    ("line", "path", "leads_to"),
    [
        ("/old /new", "/old", Redirect("/new", 301, False)),
        ("/old /new 302", "/old/", Redirect("/new", 302, False)),
        ("/old/ /new 308!", "/old", Redirect("/new", 308, True)),
        ("/blog/* /news/:splat 307", "/blog/2024/hello", Redirect("/news/2024/hello", 307, False)),
        ("/blog/* /news/:splat", "/blog/", Redirect("/news/", 301, False)),
        ("/blog/* /news/:splat", "/blog", Redirect("/news/", 301, False)),
        ("/u/:name/:page /users/:page?of=:name 303", "/u/ann/home", Redirect("/users/home?of=ann", 303, False)),
        ("/* /index.html 200", "/any/where", Redirect("/index.html", 200, False)),
        ("/* https://example.com/:splat", "/a/b", Redirect("https://example.com/a/b", 301, False)),
        ("/a /b 301 # why", "/a", Redirect("/b", 301, False)),
        ("/a /:unknown", "/a", Redirect("/:unknown", 301, False)),
    ],
)
def test_a_redirect_points_to_its_target(line: str, path: str, leads_to: Redirect) -> None:
    found, warnings = redirects(f"# first\n\n{line}\n")

    assert warnings == []
    assert redirect_of(found, path) == leads_to


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("/old /new", "/older"),
        ("/old /new", "/old/er"),
        ("/a/* /b", "/ab"),
        ("/u/:name /x", "/u/a/b"),
        ("/u/:n /x", "/u"),
    ],
)
def test_a_redirect_applies_only_to_its_path(line: str, path: str) -> None:
    assert redirect_of(redirects(line)[0], path) is None


def test_the_first_matching_redirect_wins() -> None:
    found, _ = redirects("/a /first\n/* /second")

    assert redirect_of(found, "/a") == Redirect("/first", 301, False)
    assert redirect_of(found, "/b") == Redirect("/second", 301, False)


@pytest.mark.parametrize(
    "line",
    [
        "/a",
        "a /b",
        "/a b",
        "/a /b 418",
        "/a /b 30x",
        "/a /b 301 Country=us",
        "/a /b Language=de",
        "/a*b /c",
        "/a https://example.com/ 200",
        "/a //evil.example 301",
        "/a javascript:alert(1) 301",
    ],
)
def test_invalid_rules_are_reported_with_their_place(line: str) -> None:
    found, warnings = redirects(f"/good /better\n{line}\n")

    assert len(warnings) == 1
    assert warnings[0].startswith("_redirects, line 2: ")
    assert redirect_of(found, "/good") == Redirect("/better", 301, False)


def test_headers_of_all_matching_paths_apply() -> None:
    found, warnings = headers(
        "# all\n/*\n  X-Frame-Options: DENY\n  Link: </a.css>; rel=preload\n/assets/*\n  Cache-Control: max-age=60\n"
        "  Link: </b.css>; rel=preload\n/docs/:page\n  X-Page: yes\n"
    )

    assert warnings == []
    assert headers_of(found, "/") == [("X-Frame-Options", "DENY"), ("Link", "</a.css>; rel=preload")]
    assert headers_of(found, "/assets/x.js") == [
        ("X-Frame-Options", "DENY"),
        ("Link", "</a.css>; rel=preload, </b.css>; rel=preload"),
        ("Cache-Control", "max-age=60"),
    ]
    assert ("X-Page", "yes") in headers_of(found, "/docs/intro")


@pytest.mark.parametrize(
    "line",
    [
        "Set-Cookie: session=1; Domain=sites.test",
        "Content-Length: 5",
        "Content-Encoding: br",
        "X-Accel-Redirect: /etc/passwd",
        "no colon",
        "X Y: z",
        "X-Empty:",
        "X-Odd: caf\u00e9",
        "X-Odd: a\x00b",
    ],
)
def test_forbidden_headers_are_reported(line: str) -> None:
    found, warnings = headers(f"/*\n  {line}\n  X-Good: yes\n")

    assert len(warnings) == 1
    assert headers_of(found, "/") == [("X-Good", "yes")]


def test_rules_are_bounded() -> None:
    found, warnings = redirects("\n".join(f"/{number} /" for number in range(rules.MAX_RULES + 5)))
    assert len(found["redirects"]) == rules.MAX_RULES
    assert len(warnings) == 1

    found, warnings = redirects("/a /b\n" * 100_000)
    assert (found, len(warnings)) == ({}, 1)

    _, warnings = redirects("nonsense\n" * 500)
    assert len(warnings) == rules.MAX_WARNINGS + 1
