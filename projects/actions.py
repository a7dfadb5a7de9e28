"""The verbs on projects. Doors call these; these write the database, in one transaction each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max

from projects.environment import Secret, set_environment
from projects.files.paths import Fault, told, upload_faults
from projects.models import Project, Revision, SourceFile

BATCH_BYTES, BATCH_FILES = 1024**2, 200


@dataclass(frozen=True)
class NewFile:
    """A source file on its way in: path, bytes, and whether it may be executed."""

    path: str
    content: bytes
    executable: bool = False


class UploadRefused(ValueError):
    """The files cannot be kept. `faults` names what is wrong with them; of very many, the first and their number."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = told(faults)
        super().__init__("; ".join(f"{fault.path or 'files'}: {fault.detail}" for fault in self.faults))


def limit_faults(sizes: Iterable[tuple[str, int]]) -> list[Fault]:
    """All that is wrong with (path, size in bytes) pairs, by what this installation allows."""
    return upload_faults(
        sizes,
        max_files=settings.MAX_FILES,
        max_file=settings.MAX_FILE_BYTES,
        max_total=settings.MAX_PROJECT_BYTES,
        max_path_bytes=settings.MAX_PATH_BYTES,
        max_depth=settings.MAX_PATH_DEPTH,
    )


def check_files(files: Sequence[NewFile], *, generated: int = 0) -> None:
    """Raise UploadRefused unless the files are within the limits; `generated` is how many more come by themselves."""
    faults = limit_faults((file.path, len(file.content)) for file in files)
    if not files and not generated:
        faults.append(Fault("no_files", "", "There is nothing to build: send at least one file."))
    if faults:
        raise UploadRefused(faults)


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

    Raises UploadRefused when the files are not within the limits; nothing is kept then.
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
