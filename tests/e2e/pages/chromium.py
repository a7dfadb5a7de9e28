"""Debian's Chromium through Playwright, users who sign in, and checks of a page."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from scripts.packages import program
from tests.e2e.browser import FLAGS
from tests.installation import Installation

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
PASSWORD = "a long enough password"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser. While it is open, the thread runs an event loop, so Django's models cannot be used."""
    with sync_playwright() as playwright:
        path = program("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS), chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()


def make_user(chef: Installation, name: str, *, staff: bool = False, groups: tuple[str, ...] = ()) -> None:
    """Create a user with PASSWORD, or set it for an existing one."""
    lines = [
        "from django.contrib.auth.models import Group, User",
        f"user, _ = User.objects.get_or_create(username={name!r})",
        f"user.set_password({PASSWORD!r})",
        f"user.is_staff = {staff}",
        "user.save()",
        f"user.groups.set(Group.objects.filter(name__in={groups!r}))",
    ]
    chef.manage("shell", "-c", "\n".join(lines))


class PageMonitor:
    """Records what goes wrong on a page: script errors, policy violations, requests to other hosts."""

    def __init__(self, page: Page, url: str) -> None:
        self.problems: list[str] = []
        self._url = url
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._check_message)
        page.on("request", self._check_request)

    def _check_message(self, message: ConsoleMessage) -> None:
        # A refused form is answered with 422, which Chromium logs as an error.
        if message.type == "error" and "status of 422" not in message.text:
            self.problems.append(f"{message.text} {message.location.get('url', '')}")

    def _check_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self._url}/", "data:", "blob:")) and request.frame.parent_frame is None:
            self.problems.append(f"asked for {request.url}")


def sign_in(context: BrowserContext, name: str, *, at: str = "/") -> Page:
    """Sign in by the form; returns the page that follows."""
    page = context.new_page()
    page.goto(f"/login?next={at}")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/login" not in url)
    return page


def serious_violations(page: Page) -> list[str]:
    """Serious and critical accessibility violations, by axe-core."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def screenshots(page: Page, folder: Path, name: str) -> None:
    """Save four screenshots of a page: desktop and phone, light and dark."""
    for size_name, size in (("desktop", DESKTOP), ("phone", PHONE)):
        for scheme in ("light", "dark"):
            page.set_viewport_size(size)  # type: ignore[arg-type]
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=folder / f"{name}-{size_name}-{scheme}.png", full_page=True)
