"""Static files as they are in the repository, without collecting them."""

from functools import cache

from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import StaticFilesStorage


class PlainStaticFiles(StaticFilesStorage):
    """Links only to existing files, as Chef's own storage does: a template that names a missing file fails."""

    def url(self, name: str | None) -> str:
        if name and not _is_there(name):
            raise ValueError(f"no static file is called {name!r}")
        return super().url(name)


@cache
def _is_there(name: str) -> bool:
    return finders.find(name.partition("#")[0].partition("?")[0]) is not None
