"""Static files straight from the repository, without collectstatic."""

from functools import cache

from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import StaticFilesStorage


class PlainStaticFiles(StaticFilesStorage):
    """Refuses URLs of missing files, as the production storage does. Raises ValueError."""

    def url(self, name: str | None) -> str:
        if name and not _exists(name):
            raise ValueError(f"there is no static file {name!r}")
        return super().url(name)


@cache
def _exists(name: str) -> bool:
    return finders.find(name.partition("#")[0].partition("?")[0]) is not None
