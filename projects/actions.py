"""The verbs on projects. API, pages and admin call these; these write the database, in one transaction each."""

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
    """Change what is given. Of the environment, the named variables are set, and removed where they are None."""
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
    """Keep a snapshot as the project's next revision.

    Raises InvalidUploadError when the files are not within the limits; nothing is kept then.
    """
    check_files(files, generated=len(dependencies))
    # The project's row is the lock that keeps two uploads from taking one number.
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
def bring_back(revision: Revision) -> Revision:
    """The files of an earlier revision as the project's newest one: history is never taken away."""
    return _made_again(revision, strategy=revision.strategy, origin=Revision.Origin.REPAIR)


@transaction.atomic
def with_strategy(revision: Revision, strategy: Mapping[str, Any]) -> Revision:
    """The files of a revision as the project's newest one, to be built in another way."""
    return _made_again(revision, strategy=strategy, origin=Revision.Origin.UPLOAD)


def _made_again(revision: Revision, *, strategy: Mapping[str, Any], origin: Revision.Origin) -> Revision:
    return add_revision(
        revision.project,
        files=[NewFile(file.path, bytes(file.content), file.executable) for file in revision.files.all()],
        dependencies=revision.dependencies,
        strategy=strategy,
        origin=origin,
    )


def _batches(files: Iterable[NewFile]) -> Iterator[list[NewFile]]:
    """The files in groups of a megabyte or so: a statement is in memory several times over while it is sent."""
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
