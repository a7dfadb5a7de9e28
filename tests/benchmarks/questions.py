"""Requests to a small and a large database, and the rows of `filling` that they are about.

Each round is about other rows, so that results do not depend on what happens to be in memory.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql

COLUMNS = {"status": "status", "project": "project_id", "runtime": "runtime", "verdictClass": "verdict_class"}
SAMPLES = 100
# The shares of the list before a deep page.
DEPTHS = [0.5 + step / 100 for step in range(20)]
ROWS = 10  # rows of a filtered page: a small database has this many of each kind


class Known:
    """Rows of the owner `tester` in one database, for requests: ids as text."""

    def __init__(self, url: str, *, tester: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._owner = self._all("SELECT id FROM auth_user WHERE username = %s", tester)[0]
        # The first project is the largest, the second has the long log and many revisions.
        self.largest, self.reading, *rest = self._all(
            "SELECT id FROM projects_project WHERE owner_id = %s ORDER BY created_at DESC", self._owner
        )
        self.waiting = rest.pop()  # the oldest: all of its builds are queued or running
        self.projects = rest[:: max(len(rest) // SAMPLES, 1)]
        self.builds = self._all(
            "SELECT id FROM builds_build WHERE project_id = ANY(%s::uuid[]) AND number = 50", self.projects
        )
        self.long = self._all("SELECT build_id FROM builds_logchunk WHERE sequence = 2000")[0]
        self._cursors: dict[str, list[str]] = {}

    def close(self) -> None:
        self._connection.close()

    @property
    def queued(self) -> str:
        """A queued build of the owner."""
        return self._all("SELECT id FROM builds_build WHERE owner_id = %s AND status = 'queued' LIMIT 1", self._owner)[
            0
        ]

    def deep(self, table: str, where: Mapping[str, str], turn: int) -> str:
        """A cursor of a page in the second half of the list: the time of the row before it."""
        key = f"{table} {where}"
        if key not in self._cursors:
            conditions = {"owner_id": self._owner} | {COLUMNS[name]: value for name, value in where.items()}
            matches = sql.SQL(" AND ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), value) for name, value in conditions.items()
            )
            found = self._connection.execute(
                sql.SQL(
                    "SELECT unnest(percentile_disc({}::float[]) WITHIN GROUP (ORDER BY created_at DESC))"
                    " FROM {} WHERE {}"
                ).format(DEPTHS, sql.Identifier(table), matches)
            )
            self._cursors[key] = [cursor_at(row[0]) for row in found]
        return self._cursors[key][turn % len(DEPTHS)]

    def _all(self, query: str, *values: Any) -> list[str]:
        return [str(row[0]) for row in self._connection.execute(query.encode(), values)]


def cursor_at(position: object) -> str:
    """A cursor in DRF's format."""
    return b64encode(urlencode({"p": str(position)}).encode()).decode()


Path = Callable[[Known, int], str]


@dataclass(frozen=True)
class Question:
    """A request, depending on the database and the round. A POST adds rows."""

    name: str
    path: Path
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"


@dataclass(frozen=True)
class BuildsPage:
    """A page of the list of builds. `where` has the query's filters; {projects} and {largest} are ids."""

    where: Mapping[str, str]
    is_deep: bool = False
    rows: int = ROWS

    def __call__(self, known: Known, turn: int) -> str:
        names = {"projects": known.projects[turn % len(known.projects)], "largest": known.largest}
        where = {name: value.format(**names) for name, value in self.where.items()}
        query = {**where, "limit": str(self.rows)}
        if self.is_deep:
            query["cursor"] = known.deep("builds_build", where, turn)
        return f"/v1/builds?{urlencode(query)}"


def _of_project(rest: str) -> Path:
    return lambda known, turn: f"/v1/projects/{known.projects[turn % len(known.projects)]}{rest}"


def _of_build(rest: str) -> Path:
    return lambda known, turn: f"/v1/builds/{known.builds[turn % len(known.builds)]}{rest}"


def _of_long(rest: str) -> Path:
    return lambda known, turn: f"/v1/builds/{known.long}{rest}"


TEXT, EVENTS = {"Accept": "text/plain"}, {"Accept": "text/event-stream"}

READING = [
    Question("status", _of_project("/status")),
    Question("status, of the largest project", lambda known, _: f"/v1/projects/{known.largest}/status"),
    Question("one build", _of_build("")),
    Question("logs of a project", _of_project("/logs")),
    Question("logs, first page of a long one", _of_long("/logs")),
    Question("logs, a deep page", lambda known, turn: f"/v1/builds/{known.long}/logs?after=1.{1000 + turn % 400}"),
    Question("logs, by phase", _of_long("/logs?phase=build&limit=100")),
    Question("logs as text, whole", _of_long("/logs"), TEXT),
    Question("logs as text, the last 1,000 bytes", _of_long("/logs"), {**TEXT, "Range": "bytes=-1000"}),
    Question("logs as text, stripped, 1,000 bytes", _of_long("/logs?ansi=strip"), {**TEXT, "Range": "bytes=-1000"}),
    Question("logs as events, the last 100", _of_long("/logs?after=1.1900"), EVENTS),
    Question("events of a build", _of_build("/events"), EVENTS),
    Question("artifacts", lambda known, _: f"/v1/projects/{known.reading}/artifacts?jobId={known.long}"),
    Question("revisions", lambda known, _: f"/v1/projects/{known.reading}/revisions"),
    Question(
        "revisions, a deep page",
        lambda known, turn: f"/v1/projects/{known.reading}/revisions?cursor={quote(cursor_at(40 - turn % 10))}",
    ),
    Question("one project", _of_project("")),
    Question("projects", lambda known, _: "/v1/projects?limit=4"),
    Question(
        "projects, a deep page",
        lambda known, turn: f"/v1/projects?limit=2&cursor={quote(known.deep('projects_project', {}, turn % 10))}",
    ),
    Question("health", lambda known, _: "/health"),
]


def _pages(name: str, **where: str) -> list[Question]:
    first, deep = BuildsPage(where), BuildsPage(where, is_deep=True)
    return [Question(f"builds, {name}", first), Question(f"builds, {name}, deep", deep)]


def _none(name: str, **where: str) -> Question:
    return Question(f"builds, {name}: none", BuildsPage(where))


LISTING = [
    Question("builds", BuildsPage({}, rows=25)),
    Question("builds, deep", BuildsPage({}, rows=25, is_deep=True)),
    *_pages("status", status="completed"),
    *_pages("project", project="{projects}"),
    *_pages("largest project", project="{largest}"),
    *_pages("runtime", runtime="python"),
    *_pages("verdict", verdictClass="limit"),
    Question("builds, verdict, few", BuildsPage({"verdictClass": "policy"})),
    *_pages("status and runtime", status="failed", runtime="node"),
    *_pages("status and verdict", status="failed", verdictClass="limit"),
    *_pages("runtime and verdict", runtime="node", verdictClass="limit"),
    *_pages("project and status", project="{projects}", status="completed"),
    *_pages("largest project and status", project="{largest}", status="completed"),
    Question("builds, largest project and verdict", BuildsPage({"project": "{largest}", "verdictClass": "build"})),
    _none("status and runtime", status="failed", runtime="static"),
    _none("status and verdict", status="completed", verdictClass="limit"),
    _none("runtime and verdict", runtime="static", verdictClass="build"),
    _none("project and status", project="{projects}", status="queued"),
    _none("largest project and status", project="{largest}", status="queued"),
    _none("largest project and runtime", project="{largest}", runtime="python"),
    _none("largest project and verdict", project="{largest}", verdictClass="policy"),
]

QUEUING = Question("a rebuild (POST)", _of_project("/builds"), method="POST")

# Repeated while thousands of builds are queued.
IN_A_FULL_QUEUE = [
    Question("status, queued", lambda known, _: f"/v1/projects/{known.waiting}/status"),
    Question("builds, queued", BuildsPage({"status": "queued"}, rows=25)),
    QUEUING,
    Question("health", lambda known, _: "/health"),
]
