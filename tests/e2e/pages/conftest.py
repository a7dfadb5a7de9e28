"""A browser for a module's tests, and a page with a signed-in user."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.pages.chromium import DESKTOP, PageMonitor, chromium, make_user, sign_in
from tests.installation import Installation

expect.set_options(timeout=20_000)  # usually immediate, but not on a busy machine


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    expect.set_options(timeout=20_000)
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def tester(chef: Installation) -> str:
    """The name of the user who owns the installation's token."""
    make_user(chef, "tester")
    return "tester"


@pytest.fixture
def page(chef: Installation, chrome: Browser, tester: str) -> Iterator[Page]:
    """The tester's page. The test fails on a script error, or on a request to another host."""
    context = chrome.new_context(base_url=chef.url, viewport=DESKTOP)  # type: ignore[arg-type]
    context.set_default_timeout(30_000)
    page = sign_in(context, tester)
    monitor = PageMonitor(page, chef.url)
    yield page
    context.close()
    assert monitor.problems == []
