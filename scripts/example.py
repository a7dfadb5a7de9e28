"""A terminal client of the v1 API: sends a folder or a prompt, follows the build, and shows the result.

    python -m scripts.example [--prompt TEXT] [FOLDER...]

Needs CHEF_URL and CHEF_TOKEN. Uses only the standard library and nothing of Chef: any program could do this.
Exits with 0 only if every build has completed.
"""

import argparse
import base64
import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]

LEFT_OUT = {".git", "node_modules", "dist", "build", "__pycache__", ".venv"}
ENDED = {"completed", "failed", "cancelled"}
POLL_SECONDS = 0.4
# How long the server may be away, such as during a restart, before we give up.
PATIENCE_SECONDS = 30.0
ARTIFACTS_SHOWN = 12
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


class RequestRefusedError(Exception):
    """The server refused the request; the text is its answer."""


class Server:
    """One installation, by its address and a token. Every call may raise RequestRefusedError."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self._token = token
        # The environment's proxy is for external hosts, not for a server on this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def submit(self, name: str, files: list[Json]) -> Json:
        return self._ask("/v1/projects", {"name": name, "files": files})

    def generate(self, prompt: str) -> Json:
        return self._ask("/v1/generate", {"prompt": prompt}, headers={"Prefer": "respond-async"})

    def publish(self, project: str, build: str) -> Json:
        return self._ask(f"/v1/projects/{project}/publish", {"jobId": build})

    def get(self, path: str) -> Json:
        """GET, repeated while the server is away for a moment."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._ask(path)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RequestRefusedError(f"{self.url} does not answer: {error}") from error
                time.sleep(1)

    def _ask(self, path: str, body: Json | None = None, *, headers: dict[str, str] | None = None) -> Json:
        authorized = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=content, headers=authorized | (headers or {}))  # noqa: S310 (ours)
        try:
            with self._opener.open(request, timeout=30) as answer:
                document: Json = json.load(answer)
                return document
        except urllib.error.HTTPError as refusal:
            raise RequestRefusedError(
                f"{refusal.code} {path}: {refusal.read().decode(errors='replace')[:2000]}"
            ) from refusal


class Screen:
    """The output: scrolling log lines and, on a terminal, one line of progress below them."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._shown = ""

    def lines(self, text: str) -> None:
        self._wipe()
        for line in text.splitlines():
            print("  │ " + (line if self._live else _COLOUR.sub("", line)))

    def progress(self, build: Json) -> None:
        state = f"{build['status']}, {build['phase']}" if build["phase"] else str(build["status"])
        percent = int(build["progress"])
        if not self._live:
            if state != self._shown:
                print(f"  {percent:3} % {state}", flush=True)
            self._shown = state
            return
        width = max(10, min(30, shutil.get_terminal_size().columns - 40))
        done = width * percent // 100
        print(f"\r\x1b[K  [{'█' * done}{'·' * (width - done)}] {percent:3} % {state}", end="", flush=True)

    def message(self, text: str = "") -> None:
        self._wipe()
        print(text, flush=True)

    def _wipe(self) -> None:
        if self._live:
            print("\r\x1b[K", end="")


def files_of(folder: Path) -> list[Json]:
    """Every file below a folder, as the API takes it, without the tools' own folders. Raises OSError."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder.")
    return [
        {
            "path": path.relative_to(folder).as_posix(),
            "content": base64.b64encode(path.read_bytes()).decode(),
            "encoding": "base64",
            "executable": os.access(path, os.X_OK),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and LEFT_OUT.isdisjoint(path.relative_to(folder).parts)
    ]


def follow(server: Server, accepted: Json, screen: Screen) -> Json:
    """Show status and log until the build has ended, and return its last status."""
    project, query = accepted["projectId"], f"jobId={accepted['jobId']}"
    cursor, build, logged = "", {}, False
    while not logged:
        build = server.get(f"/v1/projects/{project}/status?{query}")
        logged = build["status"] in ENDED
        for page in _log_pages(server, f"/v1/projects/{project}/logs?{query}", cursor):
            screen.lines("".join(entry["text"] for entry in page["entries"]))
            cursor = page["nextCursor"]
        screen.progress(build)
        time.sleep(0 if logged else POLL_SECONDS)
    return build


def _log_pages(server: Server, path: str, cursor: str) -> Iterator[Json]:
    """The log's pages from the cursor to its present end."""
    while True:
        page = server.get(f"{path}&after={cursor}" if cursor else path)
        if not page["entries"]:
            return
        yield page
        cursor = page["nextCursor"]


def build_folder(server: Server, folder: Path, screen: Screen) -> bool:
    """Send a folder and show its build. Returns whether it completed."""
    files = files_of(folder)
    accepted = server.submit(folder.name, files)
    screen.message(f"\n{folder.name}: {len(files)} files sent, build {accepted['jobId']}")
    return show_build(server, accepted, screen)


def build_prompt(server: Server, prompt: str, screen: Screen) -> bool:
    """Generate a project from a prompt, and show its generation and build. Returns whether the build completed."""
    path = f"/v1/generations/{server.generate(prompt)['generationId']}"
    screen.message(f"\n“{prompt}”")
    shown: set[str] = set()
    generation = server.get(path)
    while generation["status"] in ("queued", "generating"):
        _show_new_files(generation, shown, screen)
        time.sleep(POLL_SECONDS)
        generation = server.get(path)
    _show_new_files(generation, shown, screen)
    if error := generation["error"]:
        screen.message(f"  {error['code']}: {error['message']} {error['detail']}\n  {error['hint']}")
        return False
    screen.message(f"  {generation['message']}")
    screen.message(f"  {generation['filesGenerated']} files, build {generation['jobId']}")
    return show_build(server, generation, screen)


def _show_new_files(generation: Json, shown: set[str], screen: Screen) -> None:
    for file in generation["files"]:
        if file["path"] not in shown:
            shown.add(file["path"])
            screen.lines(f"wrote {file['path']}, {file['size']:,} bytes")


def show_build(server: Server, accepted: Json, screen: Screen) -> bool:
    """Show a build until its end, and its result. Returns whether it completed."""
    screen.message(f"  page: {accepted['links']['page']}")
    started = time.monotonic()
    build = follow(server, accepted, screen)
    screen.message(f"  {build['status']} after {time.monotonic() - started:.1f} s")
    if build["status"] != "completed":
        _show_verdict(build, screen)
        return False
    _show_artifacts(server, accepted, screen)
    _publish(server, accepted, screen)
    return True


def _publish(server: Server, accepted: Json, screen: Screen) -> None:
    """Publish the build if it has a page that a browser can open; other outputs, such as a package, are not."""
    try:
        release = server.publish(accepted["projectId"], accepted["jobId"])
    except RequestRefusedError as refusal:
        if "not_servable" not in str(refusal):
            raise
        return
    screen.message(f"  live:  {release['url']}\n         {release['permanentUrl']} (this release, permanently)")


def _show_verdict(build: Json, screen: Screen) -> None:
    verdict = build["verdict"] or {}
    screen.message(f"  {verdict.get('code', '')}: {verdict.get('message', '')}")
    screen.message(f"  {verdict.get('hint', '')}")


def _show_artifacts(server: Server, accepted: Json, screen: Screen) -> None:
    project, query = accepted["projectId"], f"jobId={accepted['jobId']}"
    listing = server.get(f"/v1/projects/{project}/artifacts?{query}")
    artifacts = listing["artifacts"]
    screen.message(f"  {len(artifacts)} artifacts, {listing['totalSize']:,} bytes:")
    for artifact in artifacts[:ARTIFACTS_SHOWN]:
        screen.message(f"    {artifact['size']:>11,}  {artifact['name']}\n                 {artifact['url']}")
    screen.message("  To request them yourself, paste:")
    authorized = 'curl -sS -H "Authorization: Bearer $CHEF_TOKEN"'
    for what in ("status", "logs", "artifacts"):
        screen.message(f'    {authorized} "$CHEF_URL/v1/projects/{project}/{what}?{query}"')
    if artifacts:
        name = artifacts[0]["name"]
        screen.message(f'    {authorized} -OJ "{artifacts[0]["url"]}"   # {name}')


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.example")
    parser.add_argument("--prompt", action="append", default=[], help="prompt for a project to generate and build")
    parser.add_argument("folders", nargs="*", help="folders to send and build")
    wanted = parser.parse_args(arguments)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # build tools print what a terminal may lack
    screen = Screen()
    try:
        server = Server(os.environ["CHEF_URL"], os.environ["CHEF_TOKEN"])
        results = [build_prompt(server, prompt, screen) for prompt in wanted.prompt]
        results += [build_folder(server, Path(folder), screen) for folder in wanted.folders]
    except KeyError as missing:
        print(f"Set {missing.args[0]}: it is in quickstart.env in the data folder.", file=sys.stderr)
        return 2
    except (RequestRefusedError, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
