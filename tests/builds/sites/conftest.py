from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from builds import actions
from builds.models import Build
from builds.sites import lookup
from projects.files.paths import NewFile
from tests.builds.sites.outputs import complete


@pytest.fixture(autouse=True)
def nothing_known(settings: Settings) -> None:
    settings.SITES_DOMAIN = "sites.test:3001"
    lookup.forget_sites()


@pytest.fixture
def make_build(owner: User, queue_build: Callable[..., Build]) -> Callable[..., Build]:
    """A completed build with output files by name, of a new project or of another build's."""

    def make(
        files: Mapping[str, str | bytes], *, outputs: Sequence[str] = ("dist",), of: Build | None = None, **options: Any
    ) -> Build:
        if of is None:
            build = queue_build(**options)
        else:
            source = NewFile("index.html", b"x")
            build = actions.submit_revision(of.project, by=owner, files=[source], dependencies={}, strategy={})
        return complete(build, files, outputs=outputs)

    return make
