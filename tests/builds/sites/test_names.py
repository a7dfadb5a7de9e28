"""Host names and what they belong to."""

import pytest
from pytest_django import Settings

from builds.site_names import Kind, Name, address, is_ours, parse, preview_label, release_label, slug_fault

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("todo.sites.test:3001", Name(Kind.LIVE, "todo")),
        ("ToDo.Sites.Test.", Name(Kind.LIVE, "todo")),
        ("my-app-2.sites.test", Name(Kind.LIVE, "my-app-2")),
        ("3--todo.sites.test", Name(Kind.RELEASE, "todo", 3)),
        ("12--my-app.sites.test", Name(Kind.RELEASE, "my-app", 12)),
        ("preview--0a1b.sites.test", Name(Kind.PREVIEW, "0a1b")),
        ("0--todo.sites.test", None),
        ("x--todo.sites.test", None),
        ("3--.sites.test", None),
        ("a.b.sites.test", None),
        ("-a.sites.test", None),
        ("a_b.sites.test", None),
        (".sites.test", None),
        ("99999999999--todo.sites.test", None),
    ],
)
def test_a_host_name_identifies_what_is_served(host: str, name: Name | None) -> None:
    assert is_ours(host)
    assert parse(host) == name


@pytest.mark.parametrize("host", ["sites.test", "sites.test:3001", "localhost", "evilsites.test", "sites.test.x", ""])
def test_other_hosts_belong_to_the_application(host: str) -> None:
    assert not is_ours(host)


def test_addresses_round_trip(settings: Settings) -> None:
    assert address(release_label("todo", 3)) == "http://3--todo.sites.test:3001"
    settings.HTTPS = True
    assert address(preview_label("0a1b")) == "https://preview--0a1b.sites.test:3001"


@pytest.mark.parametrize("slug", ["todo", "a", "my-app-2", "a" * 40])
def test_valid_site_names(slug: str) -> None:
    assert slug_fault(slug) == ""


@pytest.mark.parametrize("slug", ["", "a" * 41, "Todo", "a--b", "-a", "a-", "a.b", "a_b", "ä", "www", "preview", "a\n"])
def test_invalid_site_names(slug: str) -> None:
    assert slug_fault(slug)
