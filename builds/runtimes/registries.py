"""Where package installations may go: what the package managers on this machine, or in the images, are set up to use.

No registry is named here, so that a private mirror works unchanged. Asking package managers takes a second, so their
answers are kept in the data folder, for their owner's eyes: URLs may carry a user name and a password. Those reach the
installation phase, where they are needed, and never a log or the list of hosts.
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

# By an index's name: what gives the URLs that package managers in our images use by default, the index first.
Defaults = Mapping[str, Callable[[], list[str]]]


@dataclass(frozen=True)
class _Answer:
    """What is kept of one index: its settings, and the URLs that would be used if nothing were configured."""

    settings: IndexSettings
    default: list[str]


_Answers = dict[str, _Answer]


def discover(*, defaults: Defaults | None = None, fresh: bool = False) -> Registries:
    """The registries of this installation, and `settings.EGRESS_ALLOWED_HOSTS`. Cheap, unless `fresh` or first.

    Each of the defaults is called until it has an answer, which is kept.
    Raises ImproperlyConfigured for a host in the settings that is none.
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
    """Have everything asked anew, the images' package managers too."""
    _file().unlink(missing_ok=True)


def _names(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


def _ask(known: _Answers, defaults: Defaults) -> _Answers:
    indexes = package_indexes().values()
    kept = {index.name: known[index.name].default if index.name in known else [] for index in indexes}
    with ThreadPoolExecutor() as pool:  # each starts an interpreter, which is all of the time that this takes
        configured = {index.name: pool.submit(index.configured) for index in indexes}
        own = {index.name: pool.submit(index.default_urls) for index in indexes if not kept[index.name]}
    answers = {}
    for index in indexes:
        default = kept[index.name] or own[index.name].result() or _of_image(index, defaults)
        found = configured[index.name].result()
        answers[index.name] = _Answer(IndexSettings(_with_companions(found.urls, default), found.options), default)
    return answers


def _of_image(index: PackageIndex, defaults: Defaults) -> list[str]:
    return http_urls(*defaults[index.name]()) if index.name in defaults else []


def _with_companions(configured: Iterable[str], default: list[str]) -> list[str]:
    """The configured index, or the default one; the default one's companions come with it, a private mirror has none.

    Companions are hosts that an index's pages or lock files name: a file host, or another manager's own registry.
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
    """Pairs from "host" (its HTTPS port) and "host:port"."""
    found = set()
    for entry in entries:
        pair = host_and_port(f"https://{entry}")
        if pair is None or set(entry) & set("/@?#"):
            raise ImproperlyConfigured(f"EGRESS_ALLOWED_HOSTS: {entry!r} must be a host, or host:port.")
        found.add(pair)
    return frozenset(found)


def _environment(answers: _Answers) -> dict[str, str]:
    """What an installation needs so that its package managers go where they may."""
    indexes = package_indexes()
    parts = [indexes[name].environment(answer.settings) for name, answer in answers.items()]
    return {name: value for part in parts for name, value in part.items()}


# --- What is kept ------------------------------------------------------------------------------------------------


def _fingerprint() -> str:
    names = [name for index in package_indexes().values() for name in index.inputs]
    inputs = [f"{name}={os.environ.get(name, '')}" for name in names]
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()


def _file() -> Path:
    return Path(settings.DATA_DIR) / "registries.json"


def _read() -> tuple[str, _Answers]:
    """The fingerprint of the environment that the kept answers are of, and they; nothing when they cannot be used."""
    try:
        kept = json.loads(_file().read_text())
        return kept["inputs"], {name: _answer_of(index, kept) for name, index in package_indexes().items()}
    except (OSError, ValueError, TypeError, KeyError):
        return "", {}


def _answer_of(index: PackageIndex, kept: Mapping[str, list[str]]) -> _Answer:
    options = {option: kept[f"{index.name}_{option}"] for option in index.options}
    return _Answer(IndexSettings(kept[index.name], options), kept[f"{index.name}_default"])


def _write(answers: _Answers) -> None:
    """Keep the answers, whole or not at all: many workers may read while one writes."""
    kept: dict[str, object] = {"inputs": _fingerprint()}
    for name, answer in answers.items():
        kept |= {name: [*answer.settings.urls], f"{name}_default": answer.default}
        kept |= {f"{name}_{option}": [*values] for option, values in answer.settings.options.items()}
    # A data folder that cannot be written costs a second at each start; that is no reason not to start.
    with contextlib.suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix="registries-", dir=_file().parent)  # readable by its owner alone
        with os.fdopen(handle, "w") as file:
            json.dump(kept, file, indent=1)
        os.replace(temporary, _file())
