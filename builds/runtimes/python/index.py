"""The package index that pip on this machine is configured to use."""

import ast
import os
import shutil
import sys

from builds.runtimes.package_index import IndexSettings, PackageIndex, http_urls, tool_output

# pip has no command that prints its default; its own modules hold the URLs of the index and of its files.
_DEFAULT = (
    "from pip._internal.models.index import PyPI; print(PyPI.simple_url); print('https://' + PyPI.file_storage_domain)"
)
QUERY = f'python -c "{_DEFAULT}"'


class PythonIndex(PackageIndex):
    """The index of Python packages, with extra indexes and the hosts that pip trusts without a certificate."""

    name = "pip"
    options = ("extra", "trusted")
    inputs = ("PIP_CONFIG_FILE", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_TRUSTED_HOST")

    def configured(self) -> IndexSettings:
        found = _configuration()
        extra, trusted = http_urls(found.get("extra-index-url", "")), found.get("trusted-host", "").split()
        return IndexSettings(http_urls(found.get("index-url", ""))[:1], {"extra": extra, "trusted": trusted})

    def default_urls(self) -> list[str]:
        return http_urls(_pip_output("-c", _DEFAULT))

    def hosts(self, settings: IndexSettings) -> list[str]:
        return [*settings.urls, *settings.options["extra"]]

    def environment(self, settings: IndexSettings) -> dict[str, str]:
        values = {
            "PIP_INDEX_URL": settings.urls[:1],
            "PIP_EXTRA_INDEX_URL": settings.options["extra"],
            "PIP_TRUSTED_HOST": settings.options["trusted"],
        }
        return {name: " ".join(value) for name, value in values.items() if value}


def _configuration() -> dict[str, str]:
    """pip's settings by option; later sources win: its files, their `install` section, the environment."""
    found: dict[str, str] = {}
    lines = _pip_output("-m", "pip", "config", "list").splitlines()
    for section in ("global", "install", ":env:"):
        for line in lines:
            name, _, value = line.partition("=")
            if name.startswith(f"{section}."):
                found[name.removeprefix(f"{section}.")] = _unquoted(value)
    if not lines:
        # Without pip on this machine, its variables still apply to the pip in the image.
        options = ("index-url", "extra-index-url", "trusted-host")
        found = {option: os.environ.get(f"PIP_{option.upper().replace('-', '_')}", "") for option in options}
    return found


def _pip_output(*arguments: str) -> str:
    """The output of pip from the first interpreter that has it: some virtual environments have none."""
    for python in dict.fromkeys(filter(None, (sys.executable, shutil.which("python3"), shutil.which("python")))):
        if output := tool_output([python, *arguments]):
            return output
    return ""


def _unquoted(value: str) -> str:
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value


PIP_INDEX = PythonIndex()
