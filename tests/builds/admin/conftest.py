"""Staff users of each role, and builds in each state."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from builds.models import Artifact, Attempt, Build, LogChunk, PhaseRun
from builds.queue.claims import claim
from builds.verdicts.evidence import verdict
from chef.jobs.models import Status

ROLES = ("viewer", "operator", "administrator")
BUILDS = "/admin/builds/build/"

StaffOf = Callable[[str], Client]
MakeBuild = Callable[..., Build]


@pytest.fixture
def staff_of(db: None) -> StaffOf:
    """A client signed in as staff with a role; "nobody" has no permissions."""

    def make(role: str) -> Client:
        user, _ = User.objects.get_or_create(username=role, defaults={"is_staff": True})
        user.groups.set(Group.objects.filter(name=role))
        client = Client()
        client.force_login(user)
        return client

    return make


@pytest.fixture
def operator(staff_of: StaffOf) -> Client:
    return staff_of("operator")


@pytest.fixture
def ended_build(queue_build: Callable[..., Build]) -> MakeBuild:
    """A build that has ended: completed, or failed with a verdict. It has a log and, if completed, an artifact."""

    def make(code: str = "", *, took: float = 5, **options: Any) -> Build:
        build = queue_build(**options)
        lease = claim("host:1")
        assert lease
        assert lease.build == build
        now = timezone.now()
        PhaseRun.objects.create(
            attempt=Attempt.objects.get(build=build),
            name="build",
            status="failed" if code else "completed",
            exit_code=2 if code else 0,
            started_at=now - timedelta(seconds=took),
            finished_at=now,
        )
        shown: dict[str, Any] = {"build": build, "attempt": 1, "phase": "build", "timestamp": now}
        LogChunk.objects.create(**shown, sequence=1, stream="stdout", text="building\n" * 10)
        LogChunk.objects.create(**shown, sequence=2, stream="stderr", text="\x1b[31mthe end of it\x1b[0m\n")
        if code:
            why = verdict(code, phase="build", evidence=["line 3 is wrong"], exit_code=2)
            lease.end(Status.FAILED, verdict=why.as_json())
        else:
            Artifact.objects.create(
                build=build,
                attempt=1,
                name="dist/index.html",
                size=100,
                sha256="0" * 64,
                content_type="text/html",
                storage_key=f"{build.pk}/1/0",
            )
            lease.end(Status.COMPLETED, plan={"runtime": "static", "version": "1", "outputs": ["dist"]})
        build.refresh_from_db()
        return build

    return make


def operate(client: Client, name: str, *pks: Any, page: str = BUILDS, **fields: str) -> Any:
    """POST the confirmation page of an operation; returns the page that it redirects to."""
    return client.post(f"{page}operate/{name}/", {"id": [str(pk) for pk in pks], **fields}, follow=True)
