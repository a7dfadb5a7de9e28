"""Where package installations may go: what npm and pip on this machine, or in the images, are set up to use.

No registry is named here, so that a private mirror works unchanged. Asking package managers takes a second, so their
answers are kept in the data folder, for their owner's eyes: URLs may carry a user name and a password. Those reach the
installation phase, where they are needed, and never a log or the list of hosts.
"""

import ast
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from builds.sandbox.contract import Registries

# What of the environment can change an answer: the file is of use only where these are the same.
_INPUTS = (
    "npm_config_registry",
    "NPM_CONFIG_REGISTRY",
    "NPM_CONFIG_USERCONFIG",
    "NPM_CONFIG_GLOBALCONFIG",
    "PIP_CONFIG_FILE",
    "PIP_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_TRUSTED_HOST",
)
# pip has no command that tells its default; its own modules say where the index is, and where the index's files are.
PIP_DEFAULT = (
    "from pip._internal.models.index import PyPI; print(PyPI.simple_url); print('https://' + PyPI.file_storage_domain)"
)
_TOOL_SECONDS = 20
_PORTS = {"https": 443, "http": 80}

Defaults = Callable[[], list[str]]


class _Answers(TypedDict):
    """What is kept: URLs, the index first; and what the package managers would use if nothing were configured."""

    inputs: str
    npm: list[str]
    pip: list[str]
    pip_extra: list[str]
    pip_trusted: list[str]
    npm_default: list[str]
    pip_default: list[str]


def discover(
    *, npm_default: Defaults | None = None, pip_default: Defaults | None = None, fresh: bool = False
) -> Registries:
    """The registries of this installation, and `settings.EGRESS_ALLOWED_HOSTS`. Cheap, unless `fresh` or first.

    The two callables give the URLs that the package managers in our images use by default, the index first; each is
    called until it has an answer, which is kept. Raises ImproperlyConfigured for a host in the settings that is none.
    """
    known = _read()
    if known is None or fresh or known["inputs"] != _fingerprint() or _lacks(known, npm_default, pip_default):
        known = _ask(known, npm_default, pip_default)
        _write(known)
    return Registries(_hosts(known), _environment(known))


def forget() -> None:
    """Have everything asked anew, the images' package managers too."""
    _file().unlink(missing_ok=True)


def _lacks(known: _Answers, npm_default: Defaults | None, pip_default: Defaults | None) -> bool:
    """Whether a default is still unknown that can be had now."""
    return bool((npm_default and not known["npm_default"]) or (pip_default and not known["pip_default"]))


def _ask(known: _Answers | None, npm_default: Defaults | None, pip_default: Defaults | None) -> _Answers:
    npm_defaults = known["npm_default"] if known else []
    pip_defaults = known["pip_default"] if known else []
    with ThreadPoolExecutor(3) as pool:  # each starts an interpreter, which is all of the time that this takes
        npm, pip = pool.submit(_npm_registry), pool.submit(_pip_configuration)
        pip_own = None if pip_defaults else pool.submit(_pip_output, "-c", PIP_DEFAULT)
    options = pip.result()
    if not npm_defaults and npm_default:
        npm_defaults = _urls(*npm_default())
    if pip_own:
        pip_defaults = _urls(pip_own.result()) or _urls(*(pip_default() if pip_default else []))
    return _Answers(
        inputs=_fingerprint(),
        npm=_with_companions(npm.result(), npm_defaults),
        pip=_with_companions(_urls(options.get("index-url", ""))[:1], pip_defaults),
        pip_extra=_urls(options.get("extra-index-url", "")),
        pip_trusted=options.get("trusted-host", "").split(),
        npm_default=npm_defaults,
        pip_default=pip_defaults,
    )


def _with_companions(configured: list[str], defaults: list[str]) -> list[str]:
    """The configured index, or the default one; the default one's companions come with it, a private mirror has none.

    Companions are hosts that an index's pages or lock files name: pip's file host, Yarn's own registry.
    """
    if not configured:
        return defaults
    is_default = bool(defaults) and _pair(configured[0]) == _pair(defaults[0])
    return configured + defaults[1:] if is_default else configured


def _npm_registry() -> list[str]:
    """The registry that the environment or this machine's npm names; nothing without either."""
    variables = {name.lower(): value for name, value in os.environ.items() if value}
    if from_environment := variables.get("npm_config_registry"):
        return _urls(from_environment)[:1]
    npm = shutil.which("npm")
    return _urls(_output([npm, "config", "get", "registry"]))[:1] if npm else []


def _pip_configuration() -> dict[str, str]:
    """pip's own settings by option, the strongest source last: its files, their `install` section, the environment."""
    found: dict[str, str] = {}
    lines = _pip_output("-m", "pip", "config", "list").splitlines()
    for section in ("global", "install", ":env:"):
        for line in lines:
            name, _, value = line.partition("=")
            if name.startswith(f"{section}."):
                found[name.removeprefix(f"{section}.")] = _unquoted(value)
    if not lines:
        # Without pip on this machine, its variables are still meant for the pip in the image.
        options = ("index-url", "extra-index-url", "trusted-host")
        found = {option: os.environ.get(f"PIP_{option.upper().replace('-', '_')}", "") for option in options}
    return found


def _pip_output(*arguments: str) -> str:
    """What pip says in the first interpreter that has it: an environment made by other tools has none."""
    for python in dict.fromkeys(filter(None, (sys.executable, shutil.which("python3"), shutil.which("python")))):
        if said := _output([python, *arguments]):
            return said
    return ""


def _output(argv: list[str]) -> str:
    """What a tool prints, or nothing when it fails. Run away from any project, whose configuration is not ours."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        tool = subprocess.run(  # noqa: S603  (our own argv)
            argv, cwd="/", capture_output=True, text=True, timeout=_TOOL_SECONDS, stdin=subprocess.DEVNULL, check=True
        )
        return tool.stdout
    return ""


def _urls(*texts: str) -> list[str]:
    """The http(s) URLs among the words: a file index is of this machine, and no container sees it."""
    words = [word for text in texts for word in text.split()]
    return [word for word in words if _pair(word) is not None]


def _pair(url: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.scheme in _PORTS and parts.hostname and port else None


def _hosts(answers: _Answers) -> frozenset[tuple[str, int]]:
    pairs = (_pair(url) for url in (*answers["npm"], *answers["pip"], *answers["pip_extra"]))
    return frozenset(pair for pair in pairs if pair) | _allowed_hosts(settings.EGRESS_ALLOWED_HOSTS)


def _allowed_hosts(entries: Iterable[str]) -> frozenset[tuple[str, int]]:
    """Pairs from "host" (its HTTPS port) and "host:port"."""
    found = set()
    for entry in entries:
        pair = _pair(f"https://{entry}")
        if pair is None or set(entry) & set("/@?#"):
            raise ImproperlyConfigured(f"EGRESS_ALLOWED_HOSTS: {entry!r} must be a host, or host:port.")
        found.add(pair)
    return frozenset(found)


def _environment(answers: _Answers) -> dict[str, str]:
    """What an installation needs so that its package managers go where they may."""
    found = {}
    if answers["npm"]:
        # Corepack and Yarn 2 and later have settings of their own; npm, pnpm and Yarn 1 share npm's.
        for name in ("npm_config_registry", "COREPACK_NPM_REGISTRY", "YARN_NPM_REGISTRY_SERVER"):
            found[name] = answers["npm"][0].rstrip("/")
    if answers["pip"]:
        found["PIP_INDEX_URL"] = answers["pip"][0]
    if answers["pip_extra"]:
        found["PIP_EXTRA_INDEX_URL"] = " ".join(answers["pip_extra"])
    if answers["pip_trusted"]:
        found["PIP_TRUSTED_HOST"] = " ".join(answers["pip_trusted"])
    return found


def _fingerprint() -> str:
    inputs = [f"{name}={os.environ.get(name, '')}" for name in _INPUTS]
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()


def _unquoted(value: str) -> str:
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value


def _file() -> Path:
    return Path(settings.DATA_DIR) / "registries.json"


def _read() -> _Answers | None:
    """What is kept, or None when there is nothing, or what an older version kept."""
    try:
        answers: _Answers = json.loads(_file().read_text())
        return answers if set(answers) == set(_Answers.__annotations__) else None
    except (OSError, ValueError, TypeError):
        return None


def _write(answers: _Answers) -> None:
    """Keep the answers, whole or not at all: many workers may read while one writes."""
    # A data folder that cannot be written costs a second at each start; that is no reason not to start.
    with contextlib.suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="registries-", dir=_file().parent)  # readable by its owner alone
        with os.fdopen(handle, "w") as file:
            json.dump(answers, file, indent=1)
        os.replace(name, _file())
