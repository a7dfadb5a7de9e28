"""Where package installations may connect to: the registries configured on this machine, or in the images.

No registry is named here, so that a private mirror works unchanged. Asking package managers takes a second, so their
answers are stored in the data folder, readable only by its owner: URLs may contain a user name and a password. These
reach the installation phase, where they are needed, but never a log or the list of hosts.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from builds.runtimes.catalogue import RUNTIMES, package_indexes
from builds.runtimes.package_index import IndexSettings, PackageIndex, host_and_port, http_urls
from builds.sandbox.contract import Registries

# By an index's name: a function returning the default URLs of package managers in our images, the index first.
Defaults = Mapping[str, Callable[[], list[str]]]


@dataclass(frozen=True)
class _Answer:
    """What is stored of one index: its settings, and the default URLs when nothing is configured."""

    settings: IndexSettings
    default: list[str]


_Answers = dict[str, _Answer]


def discover(*, defaults: Defaults | None = None, fresh: bool = False) -> Registries:
    """The registries of this installation, and `settings.EGRESS_ALLOWED_HOSTS`. Cheap, unless `fresh` or first.

    Each of the defaults is called until it returns URLs, which are stored.
    Raises ImproperlyConfigured for an invalid host in the settings.
    """
    defaults = defaults or {}
    inputs, known = _read()
    if fresh or inputs != _fingerprint() or any(not known[name].default for name in defaults):
        known = _ask(known, defaults)
        _write(known)
    return Registries(
        hosts=_hosts(known),
        environment=_environment(known),
        proxy_variables=_names(runtime.proxy_variables for runtime in RUNTIMES.values()),
        ca_variables=_names(runtime.ca_variables for runtime in RUNTIMES.values()),
    )


def forget() -> None:
    """Delete the stored answers, those of the images' package managers too."""
    _file().unlink(missing_ok=True)


def _names(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


def _ask(known: _Answers, defaults: Defaults) -> _Answers:
    indexes = package_indexes().values()
    kept = {index.name: known[index.name].default if index.name in known else [] for index in indexes}
    with ThreadPoolExecutor() as pool:  # each starts an interpreter, which takes most of the time
        configured = {index.name: pool.submit(index.configured) for index in indexes}
        local = {index.name: pool.submit(index.default_urls) for index in indexes if not kept[index.name]}
    answers = {}
    for index in indexes:
        default = kept[index.name] or local[index.name].result() or _of_image(index, defaults)
        found = configured[index.name].result()
        answers[index.name] = _Answer(IndexSettings(_with_companions(found.urls, default), found.options), default)
    return answers


def _of_image(index: PackageIndex, defaults: Defaults) -> list[str]:
    return http_urls(*defaults[index.name]()) if index.name in defaults else []


def _with_companions(configured: Iterable[str], default: list[str]) -> list[str]:
    """The configured index, or the default one with its companions; a private mirror has no companions.

    Companions are hosts that an index's pages or lockfiles name: a file host, or another manager's registry.
    """
    urls = [*configured]
    if not urls:
        return default
    is_default = bool(default) and host_and_port(urls[0]) == host_and_port(default[0])
    return urls + default[1:] if is_default else urls


def _hosts(answers: _Answers) -> frozenset[tuple[str, int]]:
    indexes = package_indexes()
    urls = [url for name, answer in answers.items() for url in indexes[name].hosts(answer.settings)]
    pairs = (host_and_port(url) for url in urls)
    return frozenset(pair for pair in pairs if pair) | _allowed_hosts(settings.EGRESS_ALLOWED_HOSTS)


def _allowed_hosts(entries: Iterable[str]) -> frozenset[tuple[str, int]]:
    """(host, port) pairs from "host" (port 443) and "host:port"."""
    found = set()
    for entry in entries:
        pair = host_and_port(f"https://{entry}")
        if pair is None or set(entry) & set("/@?#"):
            raise ImproperlyConfigured(f"EGRESS_ALLOWED_HOSTS: {entry!r} must be a host or host:port.")
        found.add(pair)
    return frozenset(found)


def _environment(answers: _Answers) -> dict[str, str]:
    """The environment that points an installation's package managers to the allowed registries."""
    indexes = package_indexes()
    parts = [indexes[name].environment(answer.settings) for name, answer in answers.items()]
    return {name: value for part in parts for name, value in part.items()}


# --- Stored answers ----------------------------------------------------------------------------------------------


def _fingerprint() -> str:
    names = [name for index in package_indexes().values() for name in index.inputs]
    inputs = [f"{name}={os.environ.get(name, '')}" for name in names]
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()


def _file() -> Path:
    return Path(settings.DATA_DIR) / "registries.json"


def _read() -> tuple[str, _Answers]:
    """The stored answers with the fingerprint of their environment; both empty if they cannot be read."""
    try:
        kept = json.loads(_file().read_text())
        return kept["inputs"], {name: _answer_of(index, kept) for name, index in package_indexes().items()}
    except (OSError, ValueError, TypeError, KeyError):
        return "", {}


def _answer_of(index: PackageIndex, kept: Mapping[str, list[str]]) -> _Answer:
    options = {option: kept[f"{index.name}_{option}"] for option in index.options}
    return _Answer(IndexSettings(kept[index.name], options), kept[f"{index.name}_default"])


def _write(answers: _Answers) -> None:
    """Store the answers atomically: many workers may read while one writes."""
    kept: dict[str, object] = {"inputs": _fingerprint()}
    for name, answer in answers.items():
        kept |= {name: [*answer.settings.urls], f"{name}_default": answer.default}
        kept |= {f"{name}_{option}": [*values] for option, values in answer.settings.options.items()}
    # A data folder that is not writable costs a second at each start, but must not prevent it.
    with contextlib.suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix="registries-", dir=_file().parent)  # readable only by its owner
        with os.fdopen(handle, "w") as file:
            json.dump(kept, file, indent=1)
        os.replace(temporary, _file())
