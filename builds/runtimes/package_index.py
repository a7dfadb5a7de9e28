"""What a package index is: how a package manager on this machine is asked for its registry, and how one in a container
is sent there.

Runtimes whose package managers share their settings share one of these objects. Names no registry.
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
    """What a package manager is set up to use: URLs, the index first, then hosts that its pages or lockfiles name.

    `options` has the index's further settings by their names in `PackageIndex.options`.
    """

    urls: Sequence[str] = ()
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)


class PackageIndex(ABC):
    """One kind of package registry, as the package managers of a runtime know it."""

    name: ClassVar[str]  # what its settings are kept under
    options: ClassVar[tuple[str, ...]] = ()
    # What of this process's environment can change an answer.
    inputs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def configured(self) -> IndexSettings:
        """What this machine's package manager is set up to use; no URL where nobody has set it up."""

    def default_urls(self) -> list[str]:
        """What this machine's package manager would use without any settings, if it can say that."""
        return []

    def hosts(self, settings: IndexSettings) -> list[str]:
        """The URLs of all that installations have to reach."""
        return [*settings.urls]

    @abstractmethod
    def environment(self, settings: IndexSettings) -> dict[str, str]:
        """What an installation needs so that its package managers go there."""


def tool_output(argv: Sequence[str]) -> str:
    """What a tool prints, or nothing when it fails. Run away from any project, whose configuration is not ours."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        tool = subprocess.run(  # noqa: S603  (our own argv)
            argv, cwd="/", capture_output=True, text=True, timeout=_TOOL_SECONDS, stdin=subprocess.DEVNULL, check=True
        )
        return tool.stdout
    return ""


def http_urls(*texts: str) -> list[str]:
    """The http(s) URLs among the words: a file index is of this machine, and no container sees it."""
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
