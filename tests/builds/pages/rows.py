"""Builds that have run, for pages to show."""

from datetime import timedelta

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone

from builds.models import Artifact, Build
from chef.jobs.models import Status

PLAN = {
    "runtime": "node",
    "version": "22",
    "installCommand": "npm ci",
    "buildCommand": "npm run build",
    "outputs": ["dist"],
    "rootDir": "",
}


def completed(build: Build, *, seconds: float = 4, page: bytes = b"<h1>hi</h1>") -> Build:
    """The build, completed, with its rows and files."""
    start = timezone.now() - timedelta(hours=1)
    Build.objects.filter(pk=build.pk).update(
        status=Status.COMPLETED,
        fence=1,
        plan=PLAN,
        started_at=start,
        finished_at=start + timedelta(seconds=seconds),
    )
    key = default_storage.save(f"{build.pk}/index.html", ContentFile(page))
    Artifact.objects.create(
        build=build, attempt=1, name="dist/index.html", size=len(page), sha256="0" * 64, content_type="text/html",
        storage_key=key,
    )  # fmt: skip
    build.refresh_from_db()
    return build


def more_builds(build: Build, count: int) -> list[Build]:
    start = timezone.now() - timedelta(hours=1)
    rows = [
        Build(
            project=build.project,
            revision=build.revision,
            owner=build.owner,
            number=number,
            status=Status.COMPLETED,
            plan=PLAN,
            started_at=start,
            finished_at=start + timedelta(seconds=number),
        )
        for number in range(2, count + 2)
    ]
    return Build.objects.bulk_create(rows)


def path_of(build: Build, page: str = "") -> str:
    return f"/projects/{build.project_id}{page}"
