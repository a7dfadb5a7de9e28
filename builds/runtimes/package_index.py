"""Package indexes: how to read a package manager's registry settings on this machine, and how to apply them in a
container.

Runtimes whose package managers share settings share one of these objects. Names no registry.
"""

import contextlib
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import urlsplit

_TOOL_SECONDS = 20
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class IndexSettings:
    """A package manager's configuration: URLs, the index first, then hosts that its pages or lockfiles name.

    `options` has further settings by their names in `PackageIndex.options`.
    """

    urls: Sequence[str] = ()
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)


class PackageIndex(ABC):
    """One kind of package registry, as used by a runtime's package managers."""

    name: ClassVar[str]  # the key of its stored settings
    options: ClassVar[tuple[str, ...]] = ()
    # The environment variables of this process that affect the answers.
    inputs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def configured(self) -> IndexSettings:
        """What this machine's package manager is configured to use; no URLs if it is not configured."""

    def default_urls(self) -> list[str]:
        """What this machine's package manager uses without any configuration; empty if unknown."""
        return []

    def hosts(self, settings: IndexSettings) -> list[str]:
        """The URLs that installations have to reach."""
        return [*settings.urls]

    @abstractmethod
    def environment(self, settings: IndexSettings) -> dict[str, str]:
        """The environment that points an installation's package managers there."""


def tool_output(argv: Sequence[str]) -> str:
    """A tool's output, or empty if it fails. Runs outside any project, whose configuration must not apply."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        tool = subprocess.run(  # noqa: S603  (our own argv)
            argv, cwd="/", capture_output=True, text=True, timeout=_TOOL_SECONDS, stdin=subprocess.DEVNULL, check=True
        )
        return tool.stdout
    return ""


def http_urls(*texts: str) -> list[str]:
    """The http(s) URLs among the words: a file index exists only on this machine, not in containers."""
    words = [word for text in texts for word in text.split()]
    return [word for word in words if host_and_port(word) is not None]


def host_and_port(url: str) -> tuple[str, int] | None:
    """The host and port of an http(s) URL, or None for any other text."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.scheme in _PORTS and parts.hostname and port else None
