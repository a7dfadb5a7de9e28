"""Debian's Chromium by Playwright, and the people who use it."""

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
    """A browser. While it is there, the thread has an event loop, in which Django's models cannot be used."""
    with sync_playwright() as playwright:
        path = program("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS), chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()


def make_user(chef: Installation, name: str, *, staff: bool = False, groups: tuple[str, ...] = ()) -> None:
    """A user who signs in with PASSWORD; one that is there gets it."""
    lines = [
        "from django.contrib.auth.models import Group, User",
        f"user, _ = User.objects.get_or_create(username={name!r})",
        f"user.set_password({PASSWORD!r})",
        f"user.is_staff = {staff}",
        "user.save()",
        f"user.groups.set(Group.objects.filter(name__in={groups!r}))",
    ]
    chef.manage("shell", "-c", "\n".join(lines))


class Watched:
    """A page on which nothing may go wrong unseen: faults of scripts, what the policy forbids, requests elsewhere."""

    def __init__(self, page: Page, url: str) -> None:
        self.faults: list[str] = []
        self._url = url
        page.on("pageerror", lambda fault: self.faults.append(str(fault)))
        page.on("console", self._listen)
        page.on("request", self._look)

    def _listen(self, said: ConsoleMessage) -> None:
        # A form that is refused is answered with 422, which Chromium calls an error of the page.
        if said.type == "error" and "status of 422" not in said.text:
            self.faults.append(f"{said.text} {said.location.get('url', '')}")

    def _look(self, request: Request) -> None:
        if not request.url.startswith((f"{self._url}/", "data:", "blob:")) and request.frame.parent_frame is None:
            self.faults.append(f"asked for {request.url}")


def sign_in(context: BrowserContext, name: str, *, at: str = "/") -> Page:
    """By the form, as a person does; the page that comes then."""
    page = context.new_page()
    page.goto(f"/login?next={at}")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/login" not in url)
    return page


def serious_faults(page: Page) -> list[str]:
    """What axe-core finds serious or critical on a page."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def pictures(page: Page, folder: Path, name: str) -> None:
    """Four pictures of a page: desktop and phone, light and dark."""
    for size_name, size in (("desktop", DESKTOP), ("phone", PHONE)):
        for scheme in ("light", "dark"):
            page.set_viewport_size(size)  # type: ignore[arg-type]
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=folder / f"{name}-{size_name}-{scheme}.png", full_page=True)
