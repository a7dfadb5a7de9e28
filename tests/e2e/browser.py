"""A real browser, Debian's Chromium, and an HTTP server for a folder."""

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from scripts.packages import program

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # the tests may run as root, for which Chromium has no sandbox; it only loads our own pages
    "--disable-gpu",
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",  # a proxy in the environment is for external hosts, not for a server on this machine
)


@contextlib.contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A browser with its own profile. It keeps console messages of all levels."""
    with tempfile.TemporaryDirectory(prefix="chef-browser-") as profile:
        options = Options()
        options.binary_location = program("chromium") or ""
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # With an explicit driver path, Selenium neither searches for nor downloads a driver.
        driver = webdriver.Chrome(options, Service(program("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass  # keep requests out of the tests' output


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a folder, for as long as the context lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
