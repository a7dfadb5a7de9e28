"""Speed of the admin's pages with very many builds: the same pages, with a small and a large database.

    python -m tests.benchmarks.admin [--builds N] [--chunks N] [--projects N] [--rounds N] [--json FILE]

Run by hand, with the databases of `scale`. A page is fast enough if its median is within LIMIT, or within AIM times
what it takes with 1,000 builds. The exit code is 1 if a page takes more than MOST_QUERIES queries.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.benchmarks.filling import Size
from tests.benchmarks.inside import Request
from tests.benchmarks.readers import percentile
from tests.benchmarks.scale import AIM, WARM_UP, Line, Side, ready

LIMIT = 0.3
MOST_QUERIES = 12
BUILDS, DELIVERIES = "/admin/builds/build/", "/admin/builds/delivery/"
PROJECTS, GENERATIONS = "/admin/projects/project/", "/admin/projects/generation/"
LOG = "/admin/admin/logentry/"
_SIGN_IN = """
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import Group, User
user = User.objects.create(username="operator", is_staff=True)
user.groups.add(Group.objects.get(name="operator"))
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session.create()
print(f"{settings.SESSION_COOKIE_NAME}={session.session_key}")
"""

Address = Callable[[Side, int], str]


def _list(query: str = "", *, of: str = BUILDS) -> Address:
    return lambda side, turn: of + query


def _of(name: str, query: str, *, of: str = BUILDS) -> Address:
    """A query with one of the known ids of each database."""

    def address(side: Side, turn: int) -> str:
        ids = {"projects": side.known.projects, "builds": side.known.builds}
        found = side.known.largest if name == "largest" else ids[name][turn % len(ids[name])]
        return of + query.format(found)

    return address


def _dated(*parts: str, of: str = BUILDS) -> Address:
    def address(side: Side, turn: int) -> str:
        day = datetime.now(UTC)
        return of + "?" + "&".join(f"created_at__{part}={getattr(day, part)}" for part in parts)

    return address


PAGES: dict[str, Address] = {
    "first page": _list(),
    "the deepest page": _list("?p=20"),
    "the oldest first": _list("?o=5"),
    "status completed": _list("?status__exact=completed"),
    "status queued": _list("?status__exact=queued"),
    "status running": _list("?status__exact=running"),
    "status failed": _list("?status__exact=failed"),
    "verdict limit": _list("?verdict_class=limit"),
    "verdict policy: few": _list("?verdict_class=policy"),
    "runtime python": _list("?runtime=python"),
    "running in a phase": _list("?phase=build"),
    "priority high": _list("?priority__exact=10"),
    "outside: none": _list("?is_external__exact=1"),
    "in quarantine: none": _list("?held=1"),
    "status and runtime: none": _list("?status__exact=failed&runtime=static"),
    "verdict and runtime: none": _list("?verdict_class=build&runtime=static"),
    "verdict and status: none": _list("?verdict_class=limit&status__exact=completed"),
    "priority and status: none": _list("?priority__exact=10&status__exact=failed"),
    "this year": _dated("year"),
    "a month": _dated("year", "month"),
    "a day": _dated("year", "month", "day"),
    "a day and a status": lambda side, turn: _dated("year", "month", "day")(side, turn) + "&status__exact=failed",
    "of a project": _of("projects", "?project__id__exact={}"),
    "of the largest project": _of("largest", "?project__id__exact={}"),
    "search: a build's id": _of("builds", "?q={}"),
    "search: a project's id": _of("largest", "?q={}"),
    "search: a project's name": _list("?q=project+7"),
    "search: the largest owner": _list("?q=tester"),
    "search: owners": _list("?q=owner"),
    "search: an owner and a status": _list("?q=tester&status__exact=failed"),
    "search: nothing": _list("?q=nobody+and+nothing"),
    "a build's page": _of("builds", "{}/change/"),
    "the page before retrying": _of("builds", "operate/retry/?id={}"),
    "operations": lambda side, turn: "/admin/operations/",
    "the index": lambda side, turn: "/admin/",
    "projects": _list(of=PROJECTS),
    "projects: search": _list("?q=project+7", of=PROJECTS),
    "revisions": _list(of="/admin/projects/revision/"),
    "deliveries": _list(of=DELIVERIES),
    "deliveries: the deepest page": _list("?p=20", of=DELIVERIES),
    "deliveries: pending": _list("?status__exact=pending", of=DELIVERIES),
    "deliveries: an event": _list("?name=build.failed", of=DELIVERIES),
    "deliveries: event and status: none": _list("?name=build.queued&status__exact=failed", of=DELIVERIES),
    "deliveries: a day": _dated("year", "month", "day", of=DELIVERIES),
    "deliveries: search: a build's id": _of("builds", "?q={}", of=DELIVERIES),
    "deliveries: search: an address": _list("?q=hooks.example", of=DELIVERIES),
    "generations": _list(of=GENERATIONS),
    "generations: the deepest page": _list("?p=20", of=GENERATIONS),
    "generations: status failed": _list("?status__exact=failed", of=GENERATIONS),
    "generations: status running: none": _list("?status__exact=running", of=GENERATIONS),
    "generations: kind and status: none": _list("?kind__exact=repair&status__exact=failed", of=GENERATIONS),
    "generations: a month": _dated("year", "month", of=GENERATIONS),
    "generations: search: the largest owner": _list("?q=tester", of=GENERATIONS),
    "generations: search: a project's name": _list("?q=project+7", of=GENERATIONS),
    "generations: of a project": _of("projects", "?project__id__exact={}", of=GENERATIONS),
    "audit log": _list(of=LOG),
    "audit log: search: a user": _list("?q=tester", of=LOG),
    "audit log: search: a build's id": _of("builds", "?q={}", of=LOG),
    "audit log: deletions: none": _list("?action_flag__exact=3", of=LOG),
}


def is_fast(line: Line) -> bool:
    return statistics.median(line.large) <= LIMIT or line.ratio <= AIM


def ask(side: Side, address: Address, cookie: str, turn: int) -> float:
    path = address(side, turn)
    began = time.perf_counter()
    answer = side.client.get(path, headers={"Cookie": cookie, "Authorization": ""})
    seconds = time.perf_counter() - began
    if answer.status_code != 200:
        raise RuntimeError(f"{path}: {answer.status_code}")
    return seconds


def measure(sides: Sequence[Side], rounds: int) -> list[Line]:
    cookies = [side.installation.manage("shell", "-c", _SIGN_IN).splitlines()[-1] for side in sides]
    lines = []
    for name, address in PAGES.items():
        queries = [
            side.inside.queries_of(Request("GET", address(side, 0), {"Cookie": cookie}))
            for side, cookie in zip(sides, cookies, strict=True)
        ]
        lines.append(Line(name, (queries[0], queries[1])))
    for turn in range(-WARM_UP, rounds):
        for line in lines:
            small, large = (
                partial(ask, side, PAGES[line.name], cookie, turn) for side, cookie in zip(sides, cookies, strict=True)
            )
            took = (small(), large()) if turn % 2 else (large(), small())[::-1]
            if turn >= 0:
                line.add(took[0], 0, took[1], 0)
    return lines


def show(lines: Sequence[Line], loads: Sequence[float]) -> None:
    print(f"{os.cpu_count()} CPUs, load before and after: {' '.join(f'{load:.1f}' for load in loads)}")
    print(f"{'milliseconds':<34}{'small':>8}{'large':>8} {'p95':>7}{'ratio':>7}   {'':<8}queries")
    for line in lines:
        small, large = statistics.median(line.small), statistics.median(line.large)
        row = f"{1000 * small:>8.0f}{1000 * large:>8.0f} {1000 * percentile(line.large, 95):>7.0f}{line.ratio:>7.2f}"
        print(f"{line.name:<34}{row}   {'met' if is_fast(line) else 'MISSED':<8}{line.queries[0]} {line.queries[1]}")
    missed = [line.name for line in lines if not is_fast(line)]
    print(f"\n{len(lines) - len(missed)} of {len(lines)} are fast enough. Missed: {', '.join(missed) or 'none'}.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--builds", type=int, default=1_000_000)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--projects", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not os.environ.get("DATABASE_URL", "").startswith("postgres"):
        parser.error("set DATABASE_URL to a superuser's address on a PostgreSQL server")
    with ready(Size(options.builds, options.chunks, options.projects)) as sides:
        loads = [os.getloadavg()[0]]
        lines = measure(sides, options.rounds)
        loads.append(os.getloadavg()[0])
    show(lines, loads)
    if options.json:
        options.json.write_text(json.dumps([asdict(line) for line in lines], indent=1))
    many = [line.name for line in lines if max(line.queries) > MOST_QUERIES]
    if many:
        print(f"MORE THAN {MOST_QUERIES} QUERIES: {', '.join(many)}", file=sys.stderr)
    return 1 if many else 0


if __name__ == "__main__":
    sys.exit(main())
