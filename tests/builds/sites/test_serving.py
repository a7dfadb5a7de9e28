"""Published sites over HTTP, served by the web server's application."""

import gzip
import random
from collections.abc import Callable
from datetime import timedelta

import brotli
import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings

from builds.models import Build, Preview
from builds.sites.lookup import forget_sites
from builds.sites.publishing import activate_release, make_preview, publish_build, take_down
from tests.builds.sites.outputs import ask

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.once]

HOST = "todo.sites.test:3001"
SCRIPT = "let total = 0;\n" * 300
LARGE = random.Random(1).randbytes(700_000)
FILES: dict[str, str | bytes] = {
    "dist/index.html": "<h1>Home</h1><script src=/assets/app-BxYz12_3.js></script>",
    "dist/about.html": "<h1>About</h1>",
    "dist/docs/index.html": "<h1>Docs</h1>",
    "dist/404.html": "<h1>Lost</h1>",
    "dist/assets/app-BxYz12_3.js": SCRIPT,
    "dist/assets/plain-module.js": "1",
    "dist/large.bin": LARGE,
    "dist/empty.txt": b"",
    "dist/caf\u00e9 au lait.txt": "warm",
    "dist/font.woff2": b"\0\1",
    "dist/app.webmanifest": "{}",
    "dist/_headers": "/*\n  X-Own: yes\n/docs/*\n  Cache-Control: max-age=5\n",
    "dist/_redirects": "/old /about 302\n/gone/* /404.html 404\n/shadow /about 200\n/about /docs/ 301\n/x/* /:splat\n",
    "other/secret.txt": "not of the site",
}


@pytest.fixture
def site(owner: User, make_build: Callable[..., Build]) -> Build:
    build = make_build(FILES)
    publish_build(build, by=owner, slug="todo")
    return build


# --- Paths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/", 200, b"Home"),
        ("/index.html", 200, b"Home"),
        ("/about.html", 200, b"About"),
        ("/about", 200, b"About"),
        ("/docs/", 200, b"Docs"),
        ("/docs/index.html", 200, b"Docs"),
        ("/caf\u00e9 au lait.txt", 200, b"warm"),
        ("/empty.txt", 200, b""),
        ("/shadow", 200, b"About"),
        ("/gone/for/ever", 404, b"Lost"),
        ("/nothing", 404, b"Lost"),
        ("/assets/", 404, b"Lost"),
        ("/assets", 404, b"Lost"),
        ("/_headers", 404, b"Lost"),
        ("/_redirects", 404, b"Lost"),
        ("/../other/secret.txt", 404, b"Lost"),
        ("/..\\other\\secret.txt", 404, b"Lost"),
        ("//etc/passwd", 404, b"Lost"),
        ("/a\0b", 404, b"Lost"),
        ("/" + "x" * 5000, 404, b"Lost"),
    ],
)
def test_a_path_is_a_file_a_folder_s_page_or_not_found(site: Build, path: str, status: int, expected: bytes) -> None:
    for _ in range(2):  # first from the database, then from the cache
        answer = ask(HOST, path)

        assert answer.status == status
        assert expected in answer.body
        assert answer.headers["content-length"] == str(len(answer.body))
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-own"] == "yes"
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/docs", 301, "/docs/"),
        ("/old", 302, "/about"),
        ("/x//evil.example/a", 301, "/evil.example/a"),
        ("/x/\\evil.example", 301, "/evil.example"),
        ("/x/a\r\nSet-Cookie: b", 301, "/a%0D%0ASet-Cookie:%20b"),
        ("/x/caf\u00e9", 301, "/caf%C3%A9"),
    ],
)
def test_redirects_stay_on_the_host(site: Build, path: str, status: int, location: str) -> None:
    answer = ask(HOST, path)

    assert (answer.status, answer.headers["location"]) == (status, location)


def test_client_side_routes_get_the_single_page(owner: User, make_build: Callable[..., Build]) -> None:
    publish_build(make_build({"dist/index.html": "<script></script>App", "dist/a.js": "1"}), by=owner, slug="todo")

    assert b"App" in ask(HOST, "/users/7").body
    assert ask(HOST, "/users/7").status == 200
    assert b"App" in ask(HOST, "/users/ann.smith", accept="text/html,*/*").body
    missing = ask(HOST, "/assets/gone-1234abcd.js", accept="*/*")
    assert (missing.status, missing.headers["cache-control"]) == (404, "no-store")


# --- Headers of files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/assets/plain-module.js", "text/javascript; charset=utf-8"),
        ("/font.woff2", "font/woff2"),
        ("/app.webmanifest", "application/manifest+json; charset=utf-8"),
        ("/large.bin", "application/octet-stream"),
    ],
)
def test_media_types_are_right(site: Build, path: str, kind: str) -> None:
    assert ask(HOST, path).headers["content-type"] == kind


def test_files_with_a_hash_in_their_name_are_cached_forever(site: Build) -> None:
    assert "immutable" in ask(HOST, "/assets/app-BxYz12_3.js").headers["cache-control"]
    for path in ("/", "/assets/plain-module.js", "/nothing"):
        assert ask(HOST, path).headers["cache-control"] == "public, max-age=0, must-revalidate"
    assert ask(HOST, "/docs/").headers["cache-control"] == "max-age=5"


@pytest.mark.usefixtures("each_store")
def test_compressed_forms_are_sent_to_clients_that_accept_them(site: Build) -> None:
    path, whole = "/assets/app-BxYz12_3.js", SCRIPT.encode()
    forms = {
        "": (whole, None),
        "gzip, deflate": (whole, "gzip"),
        "gzip, br": (whole, "br"),
        "br;q=0, gzip;q=0.5": (whole, "gzip"),
        "identity": (whole, None),
    }
    seen = set()
    for accepted, (data, encoding) in forms.items():
        answer = ask(HOST, path, accept_encoding=accepted)
        read = {"gzip": gzip.decompress, "br": brotli.decompress, None: bytes}[encoding]
        assert (read(answer.body), answer.headers.get("content-encoding")) == (data, encoding)
        assert answer.headers["vary"] == "accept-encoding"
        assert encoding is None or len(answer.body) < len(whole) / 5
        seen.add(answer.headers["etag"])
        again = ask(HOST, path, accept_encoding=accepted, if_none_match=f'W/"x", {answer.headers["etag"]}')
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == answer.headers["etag"]
    assert len(seen) == 3


@pytest.mark.usefixtures("each_store")
@pytest.mark.parametrize("path", ["/assets/app-BxYz12_3.js", "/large.bin"])
def test_ranges_refer_to_the_uncompressed_file(site: Build, path: str) -> None:
    whole = LARGE if "large" in path else SCRIPT.encode()

    part = ask(HOST, path, range="bytes=10-19", accept_encoding="br")

    assert (part.status, part.body) == (206, whole[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert "content-encoding" not in part.headers
    etag = part.headers["etag"]
    assert ask(HOST, path, range="bytes=-5", if_range=etag).body == whole[-5:]
    assert ask(HOST, path, range="bytes=-5", if_range='"old"').body == whole
    beyond = ask(HOST, path, range="bytes=9999999-")
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(whole)}")


@pytest.mark.usefixtures("each_store")
def test_head_matches_get(site: Build) -> None:
    for path in ("/", "/large.bin", "/nothing", "/docs"):
        head, whole = ask(HOST, path, method="HEAD"), ask(HOST, path)
        assert (head.status, head.body) == (whole.status, b"")
        assert head.headers == whole.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_a_site_is_read_only(site: Build, method: str) -> None:
    answer = ask(HOST, "/", method=method)

    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.usefixtures("each_store")
def test_large_files_arrive_complete(site: Build) -> None:
    assert ask(HOST, "/large.bin").body == LARGE


def test_nginx_sends_large_files(site: Build, settings: Settings) -> None:
    settings.SITES_ACCEL_PREFIX = "/_stored"

    answer = ask(HOST, "/large.bin")

    artifact = site.artifacts.get(name="dist/large.bin")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["x-accel-redirect"] == f"/_stored/{artifact.storage_key}"
    assert answer.headers["etag"] == f'"{artifact.sha256[:32]}"'
    assert ask(HOST, "/large.bin", if_none_match=answer.headers["etag"]).status == 304


def test_behind_nginx_small_files_may_be_sent_again_for_a_second(site: Build, settings: Settings) -> None:
    assert "x-accel-expires" not in ask(HOST, "/about").headers

    settings.SITES_ACCEL_PREFIX = "/_stored"

    about = ask(HOST, "/about")
    assert (about.body, about.headers["x-accel-expires"]) == (b"<h1>About</h1>", "1")
    assert ask(HOST, "/assets/app-BxYz12_3.js").headers["x-accel-expires"] == "1"
    for answer in (
        ask(HOST, "/about", if_none_match=about.headers["etag"]),
        ask(HOST, "/about", range="bytes=0-3"),
        ask(HOST, "/missing"),
        ask(HOST, "/docs"),
    ):
        assert "x-accel-expires" not in answer.headers, answer


def test_behind_nginx_a_fall_back_page_is_not_cached_for_others(
    owner: User, make_build: Callable[..., Build], settings: Settings
) -> None:
    settings.SITES_ACCEL_PREFIX = "/_stored"
    build = make_build({"dist/index.html": "<script src=/a.js></script>"})
    publish_build(build, by=owner, slug="todo", single_page=True)

    assert "x-accel-expires" not in ask(HOST, "/gone.js", accept="text/html").headers
    assert ask(HOST, "/cart", accept="text/html").headers["x-accel-expires"] == "1"


# --- Which release -----------------------------------------------------------------------------------------------


def test_the_live_name_follows_and_release_names_stay(
    owner: User, make_build: Callable[..., Build], site: Build
) -> None:
    first = site.releases.get()
    second, _ = publish_build(make_build({"dist/index.html": "Second"}, of=site), by=owner)

    assert ask(HOST).body == b"Second"
    assert b"Home" in ask("1--todo.sites.test").body
    assert ask("2--todo.sites.test").body == b"Second"
    activate_release(first)
    assert b"Home" in ask(HOST).body
    activate_release(second)
    assert ask(HOST).body == b"Second"
    take_down(site.project)
    assert ask(HOST).status == 404
    assert ask("2--todo.sites.test").body == b"Second"


def test_an_old_name_still_leads_to_the_site(owner: User, site: Build) -> None:
    publish_build(site, by=owner, slug="uno")

    for host in (HOST, "uno.sites.test", "1--todo.sites.test", "2--todo.sites.test", "1--uno.sites.test"):
        assert b"Home" in ask(host).body


@pytest.mark.parametrize(
    "host", ["nobody.sites.test", "3--todo.sites.test", "a.b.sites.test", "preview--abc.sites.test"]
)
def test_an_unpublished_name_shows_a_page(site: Build, host: str) -> None:
    answer = ask(host, "/v1/projects")

    assert (answer.status, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert b"Site not found" in answer.body


def test_a_preview_is_served_until_it_expires(owner: User, make_build: Callable[..., Build]) -> None:
    preview = make_preview(make_build(FILES), by=owner, seconds=60)
    host = f"preview--{preview.token}.sites.test"

    answer = ask(host)

    assert b"Home" in answer.body
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-robots-tag"] == "noindex"
    Preview.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    forget_sites()
    assert ask(host).status == 404


# --- Separation from the application -----------------------------------------------------------------------------


def test_the_application_is_not_served_at_a_site_s_name(site: Build) -> None:
    for path in ("/admin/", "/v1/projects", "/health", "/login"):
        assert ask(HOST, path).status == 404
    assert ask("localhost", "/health/live").status == 200


def test_a_site_enforces_https(site: Build, settings: Settings) -> None:
    settings.HTTPS = settings.BEHIND_PROXY = True

    answer = ask("todo.sites.test", "/about", query="a=1")

    assert (answer.status, answer.headers["location"]) == (301, "https://todo.sites.test/about?a=1")
    assert ask("todo.sites.test", "/about", x_forwarded_proto="https").status == 200
