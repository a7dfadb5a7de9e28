"""Common to all pages: signing in, the content security policy, and accessibility."""

import http.client

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.pages.chromium import serious_violations
from tests.installation import Installation

pytestmark = [pytest.mark.once, pytest.mark.waits]


def test_signing_in_leads_to_the_requested_page(page: Page, chef: Installation) -> None:
    accepted = chef.submit({"index.html": "<h1>Hello</h1>"}, name="frame", strategy={"runtime": "static"})
    chef.wait(accepted)
    page.get_by_role("button", name="Sign out").click()

    page.goto(f"/builds/{accepted['jobId']}")
    page.get_by_label("Username").fill("tester")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("Please enter a correct username and password")
    assert serious_violations(page) == []
    page.get_by_label("Username").fill("tester")
    page.get_by_label("Password").fill("a long enough password")
    page.get_by_role("button", name="Sign in").click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("frame")
    assert page.url.endswith(f"/builds/{accepted['jobId']}")


def test_nothing_inline_may_run_on_any_page(chef: Installation) -> None:
    with httpx.Client(base_url=chef.url, trust_env=False) as client:
        for path in ("/login", "/nowhere", "/v1/docs", "/admin/login/", "/health"):
            policy = client.get(path).headers["content-security-policy"]
            assert "unsafe-inline" not in policy
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy


def test_an_oversized_form_is_answered_with_a_page(chef: Installation) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", chef.port, timeout=15)
    connection.putrequest("POST", "/new")
    connection.putheader("Content-Length", str(500 * 1024**2))
    connection.endheaders()
    answer = connection.getresponse()

    assert (answer.status, answer.headers.get_content_type()) == (413, "text/html")
    assert b"Leave out installed packages" in answer.read()
    connection.close()


def test_the_api_docs_page_works_under_the_policy(page: Page) -> None:
    page.goto("/v1/docs")

    expect(page.get_by_role("heading", name="Chef")).to_be_visible()
    expect(page.get_by_text("/v1/generate", exact=True).first).to_be_visible()
