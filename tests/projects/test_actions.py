"""Revisions are stored completely, in statements of bounded size."""

from collections.abc import Mapping
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from projects.actions import add_revision, create_project
from projects.files.limits import InvalidUploadError
from projects.files.paths import NewFile
from projects.models import Project, Revision, SourceFile

UPLOAD: Mapping[str, Any] = {"dependencies": {}, "strategy": {}}


@pytest.fixture
def project(owner: User) -> Project:
    return create_project(by=owner, name="project")


def test_a_revision_of_many_and_large_files_is_stored_completely(project: Project) -> None:
    files = [NewFile(f"small{number}", b"%d" % number, executable=number % 2 == 0) for number in range(450)]
    files += [NewFile("large", bytes(1024**2)), NewFile("half", bytes(600_000)), NewFile("another", bytes(600_000))]

    revision = add_revision(project, files=files, **UPLOAD)

    stored = {(file.path, bytes(file.content), file.size, file.executable) for file in revision.files.all()}
    assert stored == {(file.path, file.content, len(file.content), file.executable) for file in files}
    assert (revision.file_count, revision.total_bytes) == (453, sum(len(file.content) for file in files))


def test_no_statement_is_much_larger_than_one_file(project: Project) -> None:
    sizes = []

    def record(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        contents = (getattr(each, "obj", each) for each in params or ())  # psycopg wraps bytes
        sizes.append(sum(len(each) for each in contents if isinstance(each, bytes)))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(record):
        add_revision(project, files=[NewFile(f"{number}", bytes(300_000)) for number in range(20)], **UPLOAD)

    assert sum(sizes) == 20 * 300_000
    assert max(sizes) <= 1024**2


def test_a_refused_revision_is_not_stored(project: Project) -> None:
    with pytest.raises(InvalidUploadError, match="leaves the project"):
        add_revision(project, files=[NewFile("ok", b"x"), NewFile("../x", b"x")], **UPLOAD)

    assert not Revision.objects.exists()
    assert not SourceFile.objects.exists()
