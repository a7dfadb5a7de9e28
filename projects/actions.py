"""Actions on projects, each in one transaction: for `builds.actions`, `builds.fix_loop` and `projects.generations`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max

from projects.environment import Secret, set_environment
from projects.files.limits import check_files
from projects.files.paths import NewFile
from projects.models import Project, Revision, SourceFile

BATCH_BYTES, BATCH_FILES = 1024**2, 200


@transaction.atomic
def create_project(*, by: User, name: str) -> Project:
    return Project.objects.create(owner=by, name=name)


@transaction.atomic
def update_project(
    project: Project,
    *,
    name: str | None = None,
    env: Mapping[str, str | None] | None = None,
    secrets: Mapping[str, Secret | None] | None = None,
) -> Project:
    """Change the given fields. Named variables of the environment are set, or removed if None."""
    if name is not None:
        project.name = name
    project.save(update_fields=["name", "updated_at"])
    set_environment(project, env=env, secrets=secrets)
    return project


@transaction.atomic
def add_revision(
    project: Project,
    *,
    files: Sequence[NewFile],
    dependencies: Mapping[str, str],
    strategy: Mapping[str, Any],
    origin: Revision.Origin = Revision.Origin.UPLOAD,
) -> Revision:
    """Store the files as the project's next revision.

    Raises InvalidUploadError when the files exceed the limits; nothing is stored then.
    """
    check_files(files, generated=len(dependencies))
    # Lock the project's row, so that two uploads cannot get the same number.
    Project.objects.select_for_update().get(pk=project.pk)
    last = project.revisions.aggregate(last=Max("number"))["last"] or 0
    revision = Revision.objects.create(
        project=project,
        number=last + 1,
        origin=origin,
        strategy=dict(strategy),
        dependencies=dict(dependencies),
        file_count=len(files),
        total_bytes=sum(len(file.content) for file in files),
    )
    for batch in _batches(files):
        SourceFile.objects.bulk_create(
            SourceFile(
                revision=revision,
                path=file.path,
                content=file.content,
                size=len(file.content),
                executable=file.executable,
            )
            for file in batch
        )
    return revision


@transaction.atomic
def restore(revision: Revision) -> Revision:
    """Restore an earlier revision's files as a new revision; history is never deleted."""
    return _copied(revision, strategy=revision.strategy, origin=Revision.Origin.REPAIR)


@transaction.atomic
def with_strategy(revision: Revision, strategy: Mapping[str, Any]) -> Revision:
    """A revision's files as a new revision, with another strategy request."""
    return _copied(revision, strategy=strategy, origin=Revision.Origin.UPLOAD)


def _copied(revision: Revision, *, strategy: Mapping[str, Any], origin: Revision.Origin) -> Revision:
    return add_revision(
        revision.project,
        files=[NewFile(file.path, bytes(file.content), file.executable) for file in revision.files.all()],
        dependencies=revision.dependencies,
        strategy=strategy,
        origin=origin,
    )


def _batches(files: Iterable[NewFile]) -> Iterator[list[NewFile]]:
    """The files in batches of about a megabyte: a statement is held in memory several times while it is sent."""
    batch: list[NewFile] = []
    size = 0
    for file in files:
        if batch and (size + len(file.content) > BATCH_BYTES or len(batch) == BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += len(file.content)
    if batch:
        yield batch
