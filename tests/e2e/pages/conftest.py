"""A browser for a module's tests, and a page in it on which somebody is signed in."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.pages.chromium import DESKTOP, Watched, chromium, make_user, sign_in
from tests.installation import Installation

expect.set_options(timeout=20_000)  # what is waited for comes at once, but on a busy machine


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    expect.set_options(timeout=20_000)
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def tester(chef: Installation) -> str:
    """The name of the user whose token the installation's client has."""
    make_user(chef, "tester")
    return "tester"


@pytest.fixture
def page(chef: Installation, chrome: Browser, tester: str) -> Iterator[Page]:
    """The tester's page. The test fails when a script of it does, or when it asks for what is not the application's."""
    context = chrome.new_context(base_url=chef.url, viewport=DESKTOP)  # type: ignore[arg-type]
    context.set_default_timeout(30_000)
    page = sign_in(context, tester)
    watched = Watched(page, chef.url)
    yield page
    context.close()
    assert watched.faults == []
