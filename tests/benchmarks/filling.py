"""A database of any size, filled by the server itself: years of builds in a minute.

The data of a page has the same shape in every size: a project has about a hundred builds, a build one or two attempts
with four phases, three events and five log chunks. One owner has four fifths of everything, one of that owner's
projects has far more builds than the others, and one build has a long log. Knows the tables; requests are in
`questions`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from builds.verdicts.evidence import verdict

OTHER_OWNERS = 20
WAITING_PROJECTS = 10  # all of their builds are queued or running; the first is the large owner's
RUNNING = 5
LONG_LOG_CHUNKS = 2_000
MANY_ARTIFACTS = 100
MANY_REVISIONS = 60
LEAST_OF_LARGEST = 100  # builds of the largest project

Connection = psycopg.Connection[tuple[object, ...]]


@dataclass(frozen=True)
class Size:
    """How many of each; queued and running builds and the long log are added to these."""

    builds: int
    chunks: int
    projects: int

    @property
    def stride(self) -> int:
        """One in this many builds belongs to the largest project: a fiftieth of all, if that is enough."""
        return self.builds // max(self.builds // 50, LEAST_OF_LARGEST)

    @property
    def chunks_of_each(self) -> int:
        return round(self.chunks / self.builds)


# pg_temp.chance returns the same number from 0 to 99 for the same arguments, in every size. The casts to text let the
# server inline the functions, which is three times as fast.
_WORDS = """
CREATE FUNCTION pg_temp.id(kind text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$ SELECT md5(kind || n::text)::uuid $$;
CREATE FUNCTION pg_temp.chance(what text, n bigint) RETURNS int LANGUAGE sql IMMUTABLE
    AS $$ SELECT mod(abs(hashtextextended(what || n::text, 0)), 100)::int $$;
CREATE FUNCTION pg_temp.owner_of(project bigint) RETURNS bigint LANGUAGE sql IMMUTABLE
    AS $$ SELECT CASE WHEN project > %(projects)s THEN project - %(projects)s - 1
                      WHEN mod(project, 5) = 0 THEN 1 + mod(project / 5, %(owners)s) ELSE 0 END $$;
CREATE FUNCTION pg_temp.runtime_of(project bigint) RETURNS text LANGUAGE sql IMMUTABLE
    AS $$ SELECT CASE WHEN mod(project, 10) < 6 THEN 'node' WHEN mod(project, 10) < 9 THEN 'python'
                      ELSE 'static' END $$;
"""

_OWNERS = """
INSERT INTO auth_user (username, password, first_name, last_name, email, is_superuser, is_staff, is_active, date_joined)
SELECT 'owner' || n, '!', '', '', '', false, false, true, now() FROM generate_series(1, %(owners)s) n;
CREATE TEMP TABLE owner AS
SELECT id, CASE WHEN username = %(tester)s THEN 0 ELSE substr(username, 6)::int END AS n FROM auth_user;
INSERT INTO builds_ownerturn (owner_id, claimed_at) SELECT id, now() - n * interval '1 minute' FROM owner;
INSERT INTO builds_workerhost (name, workers, engine_fault, seen_at)
VALUES ('benchmark', %(running)s, '', now() + interval '1 day');
"""

# The largest project is the first and the newest; those with queued builds come last.
_PROJECTS = """
INSERT INTO projects_project (id, owner_id, name, created_at, updated_at)
SELECT pg_temp.id('project', project), owner.id, 'project ' || project, now() - project * interval '1 hour',
       now() - project * interval '1 minute'
FROM generate_series(1, %(projects)s + %(waiting)s) project JOIN owner ON owner.n = pg_temp.owner_of(project);
CREATE TEMP TABLE revision AS
SELECT row_number() OVER (ORDER BY project, number) AS id, project, number
FROM generate_series(1, %(projects)s + %(waiting)s) project,
     generate_series(1, CASE WHEN project = 2 THEN %(many_revisions)s ELSE 3 END) number;
CREATE UNIQUE INDEX ON revision (project, number);
INSERT INTO projects_revision
       (id, project_id, number, origin, strategy, dependencies, file_count, total_bytes, created_at)
SELECT id, pg_temp.id('project', project), number, 'upload', '{"buildCommand": "npm run build"}', '{"vite": "^5"}',
       1, 9, now() - interval '1 year' + number * interval '1 hour'
FROM revision;
INSERT INTO projects_sourcefile (revision_id, path, content, size, executable)
SELECT id, 'index.js', '\\x636f6e73742061203d', 9, false FROM revision;
SELECT setval(pg_get_serial_sequence('projects_revision', 'id'), (SELECT max(id) FROM revision));
"""

# A static project has no commands that could fail. The only verdicts of the class `policy` are the oldest ones, and
# the largest project has none.
_PAST = """
CREATE TEMP TABLE past AS
WITH placed AS (
    SELECT n, mod(n, %(stride)s) = 0 AS is_of_largest, n - n / %(stride)s AS place
    FROM generate_series(1, %(builds)s) n
), owned AS (
    SELECT n, CASE WHEN is_of_largest THEN 1 ELSE 2 + mod(place, %(projects)s - 1) END AS project,
           CASE WHEN is_of_largest THEN n / %(stride)s ELSE 1 + place / (%(projects)s - 1) END AS number
    FROM placed
), ended AS (
    SELECT *, pg_temp.runtime_of(project) AS runtime,
           CASE WHEN pg_temp.chance('fence', n) < 5 THEN 2 ELSE 1 END AS fence,
           now() - (%(builds)s - n + 100) * interval '30 seconds' AS created_at,
           CASE WHEN pg_temp.chance('end', n) < 8 THEN 'cancelled'
                WHEN pg_temp.chance('end', n) < 30 AND pg_temp.runtime_of(project) <> 'static' THEN 'failed'
                ELSE 'completed' END AS status
    FROM owned
)
SELECT *, created_at + (2 + pg_temp.chance('seconds', n)) * interval '1 second' AS finished_at,
       CASE WHEN status = 'completed' THEN '' WHEN status = 'cancelled' THEN 'cancelled'
            WHEN n <= 40 AND project > 1 THEN 'policy' WHEN pg_temp.chance('class', n) < 50 THEN 'build'
            WHEN pg_temp.chance('class', n) < 80 THEN 'limit' ELSE 'infra' END AS class
FROM ended;
"""

_BUILDS = """
INSERT INTO builds_build
       (id, project_id, revision_id, owner_id, number, priority, status, fence, faults, available_at, worker, phase,
        progress, plan, runtime, image, verdict, verdict_class, usage, egress, log_bytes, log_truncated,
        created_at, started_at, finished_at)
SELECT pg_temp.id('build', past.n), pg_temp.id('project', past.project), revision.id, owner.id, past.number, 0,
       status, fence, fence - 1, created_at, 'host:' || mod(past.n, 5), 'cleanup', 100,
       jsonb_set(%(plan)s::jsonb, '{runtime}', to_jsonb(runtime)), runtime, 'sha256:' || repeat(md5(runtime), 2),
       %(verdicts)s::jsonb -> class, class, '{"peakMemoryBytes": 104857600, "cpuSeconds": 3.5, "diskBytes": 20480}',
       '[{"host": "registry", "port": 443, "allowed": true, "count": 15}]', 1000, false,
       created_at, created_at + interval '1 second', finished_at
FROM past JOIN owner ON owner.n = pg_temp.owner_of(past.project)
JOIN revision ON revision.project = past.project AND revision.number = 1 + mod(past.number, 3)
"""

# An attempt's id is its build's overall number; lost attempts have the ids after those.
_ATTEMPTS = """
INSERT INTO builds_attempt (id, build_id, number, worker, outcome, started_at, finished_at)
SELECT n, pg_temp.id('build', n), fence, 'host:1', status, created_at + interval '1 second', finished_at FROM past
UNION ALL
SELECT %(builds)s + n, pg_temp.id('build', n), 1, 'host:2', 'worker_lost', created_at, created_at FROM past
WHERE fence = 2;
SELECT setval(pg_get_serial_sequence('builds_attempt', 'id'), 2 * %(builds)s);
"""

_PHASES = """
INSERT INTO builds_phaserun (attempt_id, name, status, exit_code, started_at, finished_at)
SELECT n, name, 'completed', 0, created_at + interval '1 second', finished_at
FROM past, unnest(ARRAY['preparation', 'installation', 'build', 'cleanup']) name
"""

_EVENTS = """
INSERT INTO builds_buildevent (build_id, kind, from_status, to_status, fence, data, created_at, is_told)
SELECT pg_temp.id('build', n), 'status', change.from_status, change.to_status, change.fence, change.data, change.at,
    true
FROM past, LATERAL (VALUES
    ('', 'queued', 0, '{"by": "tester"}'::jsonb, created_at),
    ('queued', 'running', fence, '{}', created_at + interval '1 second'),
    ('running', status, fence,
     CASE WHEN class = '' THEN '{}' ELSE jsonb_build_object('verdict', %(verdicts)s::jsonb -> class) END, finished_at)
) AS change (from_status, to_status, fence, data, at)
"""

_CHUNKS = """
INSERT INTO builds_logchunk (build_id, attempt, sequence, phase, stream, timestamp, text)
SELECT pg_temp.id('build', n), fence, sequence, CASE WHEN sequence < 3 THEN 'installation' ELSE 'build' END, 'stdout',
       created_at + sequence * interval '1 second',
       'line ' || sequence || E' of what a build prints, one way or another\n'
FROM past, generate_series(1, %(chunks_of_each)s) sequence
"""

_ARTIFACTS = """
INSERT INTO builds_artifact (build_id, attempt, name, size, sha256, content_type, storage_key)
SELECT pg_temp.id('build', n), fence, 'dist/assets/' || file || '.js', 10000 + file,
       repeat(md5(n || '/' || file), 2), 'text/javascript', pg_temp.id('build', n) || '/' || fence || '/' || file
FROM past, generate_series(1, 3) file WHERE status = 'completed' AND mod(n, 5) = 0
"""

# A build of the second project with a single attempt: its log has many pages, and it has a full page of artifacts.
_LONG = """
CREATE TEMP TABLE long AS
SELECT n, fence, created_at, pg_temp.id('build', n) AS build FROM past
WHERE project = 2 AND status = 'completed' AND fence = 1 ORDER BY number DESC LIMIT 1;
DELETE FROM builds_logchunk WHERE build_id = (SELECT build FROM long);
INSERT INTO builds_logchunk (build_id, attempt, sequence, phase, stream, timestamp, text)
SELECT build, fence, sequence, CASE WHEN sequence < 500 THEN 'installation' ELSE 'build' END, 'stdout',
       created_at + sequence * interval '10 milliseconds',
       E'\\x1b[32mok\\x1b[0m ' || sequence || ' ' || repeat(md5(sequence::text), 6) || E'\n'
FROM long, generate_series(1, %(long)s) sequence;
DELETE FROM builds_artifact WHERE build_id = (SELECT build FROM long);
INSERT INTO builds_artifact (build_id, attempt, name, size, sha256, content_type, storage_key)
SELECT build, fence, 'dist/assets/' || file || '.js', 10000 + file, repeat(md5(file::text), 2), 'text/javascript',
       build || '/' || fence || '/' || file
FROM long, generate_series(1, %(many_artifacts)s) file;
"""

_RUNNING = """
INSERT INTO builds_build
       (id, project_id, revision_id, owner_id, number, priority, status, fence, faults, available_at, lease_expires_at,
        worker, phase, progress, plan, runtime, image, verdict_class, usage, egress, log_bytes, log_truncated,
        created_at, started_at)
SELECT pg_temp.id('running', n), project.id, revision.id, project.owner_id, n, 0, 'running', 1, 0, now(),
       now() + interval '1 day', 'host:' || n, 'build', 60, %(plan)s::jsonb, 'node', '', '', '{}', '[]', 0, false,
       now() - n * interval '1 second', now()
FROM generate_series(1, %(running)s) n
JOIN projects_project project ON project.id = pg_temp.id('project', %(projects)s + n)
JOIN projects_revision revision ON revision.project_id = project.id AND revision.number = 1;
INSERT INTO builds_attempt (build_id, number, worker, outcome, started_at)
SELECT pg_temp.id('running', n), 1, 'host:' || n, 'running', now() FROM generate_series(1, %(running)s) n;
"""

_QUEUED = """
INSERT INTO builds_build
       (id, project_id, revision_id, owner_id, number, priority, status, fence, faults, available_at, worker, phase,
        progress, runtime, image, verdict_class, usage, egress, log_bytes, log_truncated, created_at)
SELECT gen_random_uuid(), project.id, revision.id, project.owner_id, 1000 + n, 10 * (mod(n, 3) - 1), 'queued', 0, 0,
       now(), '', '', 0, '', '', '', '{}', '[]', 0, false, now() - n * interval '1 millisecond'
FROM generate_series(%(first)s, %(last)s) n
JOIN projects_project project ON project.name = 'project ' || (%(projects)s + 1 + mod(n, %(waiting)s))
JOIN projects_revision revision ON revision.project_id = project.id AND revision.number = 1
"""


# What the admin lists beside builds: for each finished build, a delivery to one of twenty endpoints, a generation and
# an entry of the audit log. A hundredth of the deliveries are pending.
_OTHER_TABLES = """
CREATE TEMP TABLE endpoint AS SELECT n, pg_temp.id('endpoint', n) AS id FROM generate_series(0, 19) n;
INSERT INTO builds_webhookendpoint
       (id, owner_id, origin, url, events, sealed_secret, previous_sealed_secret, disabled_reason, created_at,
        updated_at)
SELECT endpoint.id, owner.id, 'api', 'https://hooks.example.com/' || endpoint.n, '["build.failed"]', '', '', '',
       now() - interval '1 year', now()
FROM endpoint JOIN owner ON owner.n = endpoint.n;
INSERT INTO builds_delivery
       (id, endpoint_id, name, job_id, position, body, status, is_untried, tries, fence, next_try_at, give_up_at,
        created_at, finished_at)
SELECT pg_temp.id('delivery', past.n), endpoint.id, 'build.' || past.status, pg_temp.id('build', past.n), past.n,
       '\\x7b7d', CASE WHEN mod(past.n, 100) = 0 THEN 'pending' WHEN mod(past.n, 30) = 0 THEN 'failed'
                      ELSE 'delivered' END, false, 1, 1, now() + interval '1 day', now() + interval '3 days',
       finished_at, CASE WHEN mod(past.n, 100) = 0 THEN NULL ELSE finished_at END
FROM past JOIN endpoint ON endpoint.n = mod(past.n, 20);
INSERT INTO projects_generation
       (id, status, fence, faults, available_at, worker, created_at, started_at, finished_at, project_id, owner_id,
        kind, prompt, strategy, analysis, tests, auto_fix, max_tokens, provider, model, stage, input_tokens,
        output_tokens, cost, message, diff, error, fix_ending)
SELECT pg_temp.id('generation', past.n), CASE WHEN past.status = 'completed' THEN 'cancelled' ELSE 'failed' END, 1, 0,
       created_at, 'host:1', created_at, created_at, finished_at, pg_temp.id('project', past.project), owner.id,
       CASE WHEN mod(past.n, 3) = 0 THEN 'edit' ELSE 'new' END, 'an app', '{}', true, true, true, 200000, 'openai',
       'a model', 'code', 1000, 1000, 0.01, '', '',
       '{"code": "no_answer"}'::jsonb, ''
FROM past JOIN owner ON owner.n = pg_temp.owner_of(past.project);
INSERT INTO django_admin_log
       (action_time, user_id, content_type_id, object_id, object_repr, action_flag, change_message)
SELECT finished_at, owner.id, (SELECT id FROM django_content_type WHERE model = 'build'), pg_temp.id('build', past.n),
       'project ' || past.project || ' #' || past.number, 2, 'Retried.'
FROM past JOIN owner ON owner.n = mod(past.n, 20);
"""


def fill(url: str, size: Size, *, tester: str) -> None:
    """Fill a new, migrated database for the existing owner `tester`. The connection must be a superuser's."""
    values = _values(size) | {"tester": tester}
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        # Foreign keys are valid by construction; checking them would take most of the time.
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET maintenance_work_mem = '256MB'; SET synchronous_commit = off")
        _make_words(connection, values)
        with _without_indexes(connection):
            for statements in (_PROJECTS, _PAST, _BUILDS, _ATTEMPTS, _PHASES, _EVENTS, _CHUNKS, _ARTIFACTS):
                connection.execute(statements.encode(), values)
            connection.execute(_OTHER_TABLES.encode(), values)
        connection.execute(_LONG.encode(), values)
        connection.execute(_RUNNING.encode(), values)
        # As autovacuum would have done by then: update statistics and the visibility map.
        connection.execute("VACUUM ANALYZE")


def add_queued(url: str, size: Size, *, first: int, last: int) -> None:
    """Queue builds with the numbers from `first` to `last`, of ten owners in turn and three priorities."""
    values = _values(size) | {"first": first, "last": last}
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(_QUEUED.encode(), values)
        connection.execute("VACUUM ANALYZE builds_build")


def _make_words(connection: Connection, values: dict[str, object]) -> None:
    connection.execute(_OWNERS.encode(), values)
    connection.execute(_WORDS.encode(), values)


def _values(size: Size) -> dict[str, object]:
    return {
        "builds": size.builds,
        "projects": size.projects,
        "stride": size.stride,
        "chunks_of_each": size.chunks_of_each,
        "owners": OTHER_OWNERS,
        "waiting": WAITING_PROJECTS,
        "running": RUNNING,
        "long": LONG_LOG_CHUNKS,
        "many_artifacts": MANY_ARTIFACTS,
        "many_revisions": MANY_REVISIONS,
        "plan": json.dumps(_PLAN),
        "verdicts": json.dumps(_VERDICTS),
    }


@contextmanager
def _without_indexes(connection: Connection) -> Iterator[None]:
    """Drop all indexes but the primary keys for the block and recreate them at its end, which is much faster."""
    tables = [
        "builds_build",
        "builds_attempt",
        "builds_phaserun",
        "builds_buildevent",
        "builds_logchunk",
        "builds_artifact",
        "builds_delivery",
        "projects_generation",
        "django_admin_log",
    ]
    unique = connection.execute(
        "SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', conrelid::regclass, conname),"
        " format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', conrelid::regclass, conname, pg_get_constraintdef(oid))"
        " FROM pg_constraint WHERE contype = 'u' AND conrelid::regclass::text = ANY(%s)",
        [tables],
    ).fetchall()
    plain = connection.execute(
        "SELECT format('DROP INDEX %%s', indexrelid::regclass), pg_get_indexdef(indexrelid)"
        " FROM pg_index WHERE NOT indisprimary AND indrelid::regclass::text = ANY(%s)"
        " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)",
        [tables],
    ).fetchall()
    for drop, _ in unique + plain:
        connection.execute(str(drop).encode())
    yield
    for _, create in unique + plain:
        connection.execute(str(create).encode())


_PLAN = {
    "runtime": "node",
    "version": "22",
    "packageManager": "npm",
    "installCommand": "npm ci",
    "buildCommand": "npm run build",
    "outputs": ["dist"],
    "rootDir": "",
    "timeout": 300_000,
    "memory": 536_870_912,
    "cpus": 1,
    "reasons": ["package.json is there: this is a Node project.", "package-lock.json is there: npm installs from it."],
}
_LINES = ["src/main.ts:3:7 - error TS2322: Type 'string' is not assignable to type 'number'.", "1 error"]
_CODES = {
    "build": "build_failed",
    "limit": "out_of_memory",
    "infra": "attempts_exhausted",
    "policy": "unsafe_output",
    "cancelled": "cancelled",
}
_VERDICTS = {
    kind: verdict(code, phase="build", evidence=_LINES, exit_code=1).as_json() for kind, code in _CODES.items()
}
