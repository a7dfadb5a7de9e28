"""The runtimes' images, with the real engine, Debian's own registry server and real packages.

One image is built here, under a name of its own: the tags that builds use are only inspected.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from builds.runtimes.catalogue import RUNTIMES
from builds.runtimes.image_preparation import PreparationError, RuntimeImage, prepare, runtime_images
from builds.runtimes.node.image import npm_package, tool_variables
from builds.runtimes.python.runtime import PYTHON
from builds.runtimes.rootfs import RootFilesystem, UnbuildableError, Workshop, debian_sources, without_credentials
from builds.sandbox import image_store
from builds.sandbox.image_store import ImageNotOfferedError, ImageStore, RegistryUnreachableError, TrialFailedError
from tests.installation import until
from tests.ports import free_port

pytestmark = pytest.mark.once

CLOSED = "127.0.0.1:1"  # nothing listens on tcpmux


# The name of this run's images: other runs may prepare theirs in the same engine.
OWN = f"chef-test-{uuid.uuid4().hex[:8]}"


class OwnImage(RuntimeImage):
    """A runtime's image under the tests' own tag."""

    @property
    def tag(self) -> str:
        return f"{OWN}/{self.runtime}:{self.version}"


STATIC = OwnImage("static", "12")


@pytest.fixture(scope="module")
def store() -> Iterator[ImageStore]:
    with ImageStore() as store:
        yield store


@pytest.fixture(scope="module")
def ready(store: ImageStore) -> None:
    """Every runtime's image is in the engine."""
    prepare(runtime_images(), store=store)


@pytest.fixture(scope="module")
def built(store: ImageStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str], Path]]:
    """The static image, built once without a reachable registry: its id, the reported lines, the data folder."""
    folder, lines = tmp_path_factory.mktemp("data"), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.conf.settings.DATA_DIR", folder)
        patch.setattr("django.conf.settings.RUNTIME_REGISTRY", CLOSED)
        [prepared] = prepare([STATIC], store=store, report=lines.append)
    yield prepared.image_id, lines, folder
    forget(store, STATIC.tag)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of an empty registry server."""
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    configuration = folder / "config.yml"
    configuration.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with subprocess.Popen(["docker-registry", "serve", str(configuration)], stderr=subprocess.DEVNULL) as server:
        until(lambda: is_open(port), seconds=10, what="the registry listens")
        yield f"127.0.0.1:{port}"
        server.terminate()


@pytest.fixture
def nothing_left(store: ImageStore, settings: Settings, tmp_path: Path) -> Iterator[None]:
    """After each test the engine has the same images as before, and the data folder no temporary files."""
    settings.DATA_DIR = tmp_path
    before = images_in_engine()
    yield
    assert images_in_engine() == before
    assert list(tmp_path.glob("images-*")) == []


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def images_in_engine() -> set[tuple[str, tuple[str, ...]]]:
    """Ids and tags of this module's images, including untagged leftovers of a preparation."""
    with contextlib.closing(docker.from_env()) as client:
        tagged = client.api.images(filters={"reference": f"{OWN}/*"})
        dangling = client.api.images(filters={"dangling": True, "label": image_store.IMAGE_LABEL})
    untagged = [image for image in dangling if image["Labels"][image_store.IMAGE_LABEL].startswith(f"{OWN}/")]
    return {(image["Id"], tuple(image["RepoTags"] or ())) for image in (*tagged, *untagged)}


def forget(store: ImageStore, *tags: str) -> None:
    for tag in tags:
        store.remove(tag)


def push(image: str, reference: str) -> None:
    repository, _, tag = reference.rpartition(":")
    with contextlib.closing(docker.from_env()) as client:
        client.images.get(image).tag(repository, tag)
        pushed = client.images.push(repository, tag)
        client.images.remove(reference)
    assert '"error"' not in pushed


# In the engine ------------------------------------------------------------------------------------------------------


@pytest.mark.docker
@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize(
    ("tag", "script", "expected"),
    [
        ("chef-runtime/node:18", "node --version", "v18."),
        ("chef-runtime/node:22", "npm --version && npx --version && yarn --version && corepack --version", "10."),
        ("chef-runtime/node:24", "node --version && npm --version", "v24."),
        ("chef-runtime/python:3.11", "python -m pip --version", "pip "),
        ("chef-runtime/python:3.11", "python -m venv /tmp/env && /tmp/env/bin/python -m pip --version", "pip "),
        ("chef-runtime/static:12", "echo x | grep x | sed s/x/found/ | tar --version", "tar "),
    ],
)
def test_image_runs_its_tools_sealed(store: ImageStore, tag: str, script: str, expected: str) -> None:
    printed = store.try_out(tag, script)

    assert printed.startswith(expected)


@pytest.mark.docker
@pytest.mark.usefixtures("ready")
def test_trial_is_unprivileged_read_only_and_without_network(store: ImageStore) -> None:
    script = "id -u; touch /usr/x 2>/dev/null || echo read-only; ls /sys/class/net; grep NoNewPrivs /proc/self/status"

    printed = store.try_out("chef-runtime/static:12", script)

    assert printed.split() == ["10001", "read-only", "lo", "NoNewPrivs:", "1"]


@pytest.mark.docker
@pytest.mark.usefixtures("ready")
def test_failed_trial_reports_the_tools_output_and_leaves_no_container(store: ImageStore, settings: Settings) -> None:
    settings.INSTALLATION = OWN
    with contextlib.closing(docker.from_env()) as client:
        with pytest.raises(TrialFailedError, match="exit code 3: no such luck"):
            store.try_out("chef-runtime/static:12", "echo no such luck >&2; exit 3")

        own: dict[str, str | list[str] | bool] = {"label": f"{image_store.TRIAL_LABEL}={OWN}"}
        assert client.containers.list(all=True, filters=own) == []


@pytest.mark.docker
@pytest.mark.usefixtures("ready", "nothing_left")
def test_present_images_are_skipped_quickly(store: ImageStore, settings: Settings) -> None:
    settings.RUNTIME_REGISTRY = CLOSED
    lines: list[str] = []

    started = time.monotonic()
    prepared = prepare(runtime_images(), store=store, report=lines.append)

    assert time.monotonic() - started < 1
    assert {each.how for each in prepared} == {"present"}
    assert lines[0].startswith("node 18: present, sha256:")


# From packages ------------------------------------------------------------------------------------------------------


@pytest.mark.docker
def test_unreachable_registry_falls_back_to_packages(store: ImageStore, built: tuple[str, list[str], Path]) -> None:
    image, lines, folder = built

    assert store.find(STATIC.tag) == image
    assert [line.split(" (")[0].split(" in ")[0] for line in lines] == [
        "No registry can be reached",
        "static 12: built locally",
    ]
    assert list(folder.iterdir()) == []


@pytest.mark.docker
def test_built_image_has_no_traces_of_this_machine(store: ImageStore, built: tuple[str, list[str], Path]) -> None:
    image, _, _ = built

    printed = store.try_out(image, "find / -xdev -name '*.list' -path '*apt*'; ls /etc/apt 2>&1; whoami")

    assert printed.splitlines() == ["ls: cannot access '/etc/apt': No such file or directory", "chef"]


@pytest.mark.docker
@pytest.mark.usefixtures("nothing_left")
def test_image_that_fails_its_trial_is_removed_again(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "root").mkdir()
    empty = RootFilesystem(tmp_path / "root", {})
    monkeypatch.setattr(Workshop, "make", lambda *_: empty)

    with pytest.raises(
        PreparationError,
        match=r"static 12: not pulled \(pulling is off\) and not built: exit code 127: chef-init: cannot run /bin/sh: ",
    ):
        prepare([STATIC], store=store, pull=False, force=True)


@pytest.mark.docker
@pytest.mark.usefixtures("nothing_left")
def test_interrupted_stream_makes_no_image(store: ImageStore) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"x" * 512
        raise UnbuildableError("the disk is full")

    with pytest.raises(UnbuildableError, match="the disk is full"):
        store.import_tar(breaking(), name=STATIC.tag, environment={})


@pytest.mark.docker
@pytest.mark.usefixtures("nothing_left")
def test_machine_without_registry_and_packages_says_what_is_missing(
    store: ImageStore, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings.RUNTIME_REGISTRY = CLOSED
    for tool in ("apt-get", "apt-config"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(tmp_path))
    lines: list[str] = []

    with pytest.raises(PreparationError) as failure:
        prepare([OwnImage("node", "18"), OwnImage("node", "20")], store=store, report=lines.append)

    assert str(failure.value).startswith("node 18, node 20: not pulled (")
    assert "mmdebstrap is not installed: run `apt-get install mmdebstrap`" in str(failure.value)
    assert len(lines) == 1, "the registry was asked once"


def test_version_missing_from_the_distribution_is_refused(tmp_path: Path) -> None:
    workshop = Workshop(folder=tmp_path, architecture="amd64")

    with workshop, pytest.raises(UnbuildableError, match=r"Debian 12 has no python 3\.9"):
        workshop.make(PYTHON.lay_out, "3.9")


def test_workshop_removes_leftovers_of_a_killed_one(tmp_path: Path) -> None:
    old, new = tmp_path / "images-old", tmp_path / "images-new"
    old.mkdir()
    new.mkdir()
    os.utime(old, (0, 0))

    with Workshop(folder=tmp_path, architecture="amd64"):
        pass

    assert list(tmp_path.iterdir()) == [new]


@pytest.mark.network
def test_node_packages_are_downloaded_without_npm_on_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for tool in ("tar", "gzip"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    with Workshop(folder=tmp_path, architecture="amd64") as workshop:
        package = npm_package(workshop, "yarn@1", only="package.json")

        assert (package / "package.json").read_text().startswith('{\n  "name": "yarn"')


def test_only_debians_own_archives_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "deb http://mirror.test/debian bookworm main contrib\n"
        "deb http://mirror.test/debian bookworm-backports main\n"
        "deb http://mirror.test/security bookworm-security main\n"
        "deb http://vendor.test/apt stable main\n"
    )
    (tmp_path / "lists").mkdir()
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list"; Dir::Etc::sourceparts "-";'
        f'Dir::State::lists "{tmp_path}/lists";'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))

    sources = debian_sources()

    assert sources == ["http://mirror.test/debian/ bookworm", "http://mirror.test/security/ bookworm-security"]


def test_certificate_authority_of_the_environment_reaches_npm_and_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/own-ca.pem")
    monkeypatch.setenv("PIP_CERT", "/etc/pip-ca.pem")
    monkeypatch.delenv("NODE_EXTRA_CA_CERTS", raising=False)

    variables = tool_variables()

    assert variables == {"NODE_EXTRA_CA_CERTS": "/etc/own-ca.pem"}  # existing values stay


def test_credentials_are_removed_from_tools_output() -> None:
    text = "GET https://user:secret@mirror.test/x and http://token@other.test: 401"

    assert without_credentials(text) == "GET https://mirror.test/x and http://other.test: 401"


# From a registry ----------------------------------------------------------------------------------------------------


@pytest.mark.docker
def test_registry_image_is_pulled_and_gets_our_tag(
    store: ImageStore, built: tuple[str, list[str], Path], registry: str, settings: Settings
) -> None:
    image, _, _ = built
    settings.RUNTIME_REGISTRY = f"{registry}/"
    other = type("Pulled", (OwnImage,), {"tag": property(lambda self: f"{OWN}/pulled:12")})("static", "12")
    push(image, other.public)

    [prepared] = prepare([other], store=store, force=True)

    assert str(prepared).startswith("static 12: pulled in ")
    assert store.find(other.tag) == prepared.image_id == image
    forget(store, other.tag, other.public)


@pytest.mark.docker
@pytest.mark.usefixtures("nothing_left")
def test_pulled_image_that_does_not_run_is_removed_again(
    store: ImageStore, registry: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings.RUNTIME_REGISTRY = registry
    node = OwnImage("node", "20")
    tiny = store.import_tar([b"\0" * 10_240], name=f"{OWN}/tiny:1", environment={})
    push(tiny, node.public)
    monkeypatch.setenv("PATH", str(tmp_path))  # so that it is not built instead

    with pytest.raises(PreparationError, match=r"node 20: not pulled .* and not built: This is not a Debian machine"):
        prepare([node], store=store, force=True)

    assert store.find(node.public) is None


@pytest.mark.docker
def test_missing_image_differs_from_a_silent_registry(store: ImageStore, registry: str) -> None:
    with pytest.raises(ImageNotOfferedError):
        store.ask_registry(f"{registry}/nobody:1")
    with pytest.raises(ImageNotOfferedError):
        store.pull(f"{registry}/nobody:1")


@pytest.mark.docker
def test_silent_registry_is_given_up_quickly(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_store, "REGISTRY_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()

        with pytest.raises(RegistryUnreachableError, match="no response within 1 s"):
            store.ask_registry(f"127.0.0.1:{silent.getsockname()[1]}/debian:bookworm-slim")

    assert time.monotonic() - started < 3


# The command --------------------------------------------------------------------------------------------------------


def test_every_runtime_has_an_image_to_prepare() -> None:
    named = {(image.runtime, image.version) for image in runtime_images()}

    assert named == {(name, version) for name, runtime in RUNTIMES.items() for version in runtime.versions}


@pytest.mark.docker
@pytest.mark.usefixtures("ready", "nothing_left")
def test_command_prepares_the_requested_images(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("prepare_runtimes", runtime=["node:20", "static"])

    images_said, registries_said = capsys.readouterr().out.rsplit("package registries: ", 1)
    assert [line.split(",")[0] for line in images_said.splitlines()] == ["node 20: present", "static 12: present"]
    assert ":443" in registries_said
    assert (settings.DATA_DIR / "registries.json").is_file()


def test_command_refuses_an_unknown_runtime_and_lists_the_known() -> None:
    with pytest.raises(CommandError, match="node, bun, python, static"):
        call_command("prepare_runtimes", runtime=["cobol"])


def test_built_parts_are_made_once_even_when_they_fail(tmp_path: Path) -> None:
    calls: list[Path] = []

    def fail(folder: Path) -> None:
        calls.append(folder)
        raise UnbuildableError("no network")

    with Workshop(folder=tmp_path, architecture="amd64") as workshop:
        for _ in range(2):
            with pytest.raises(UnbuildableError, match="no network"):
                workshop.once("base", fail)

    assert len(calls) == 1
