"""Bun's image: the root file system of the recipe, and the image in the engine."""

import subprocess
from pathlib import Path

import pytest

from builds.runtimes.bun import image
from builds.runtimes.bun.runtime import BUN
from builds.runtimes.image_preparation import prepare, runtime_images
from builds.runtimes.rootfs import UnbuildableError, Workshop
from builds.sandbox.image_store import ImageStore

pytestmark = pytest.mark.slow


def test_recipe_adds_bun_to_debian_and_as_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "debian" / "etc").mkdir(parents=True)
    monkeypatch.setattr(Workshop, "debian", lambda *_: tmp_path / "debian")

    with ImageStore() as store:
        architecture = store.architecture()
    with Workshop(folder=tmp_path / "workshop", architecture=architecture) as workshop:
        root = BUN.lay_out(workshop, "1")
        version = subprocess.run([root.folder / "usr/local/bin/bun", "--version"], capture_output=True, text=True)
        as_node = root.folder / image.AS_NODE.lstrip("/") / "node"

        assert version.stdout.startswith("1.")
        assert (root.folder / "etc").is_dir()
        assert str((root.folder / "usr/local/bin/bunx").readlink()) == "bun"
        assert str(as_node.readlink()) == "/usr/local/bin/bun"
        assert root.environment["BUN_VERSION"] == "1"


def test_unsupported_processor_is_refused(tmp_path: Path) -> None:
    with (
        Workshop(folder=tmp_path, architecture="s390x") as workshop,
        pytest.raises(UnbuildableError, match="npm has no Bun package for s390x"),
    ):
        BUN.lay_out(workshop, "1")


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        (BUN.trial, "1."),
        ("bunx --version", "1."),
        (f"PATH={image.AS_NODE}:$PATH; printf '#!/usr/bin/env node\\nconsole.log(7)' > x; sh -c 'node x'", "7"),
    ],
)
def test_image_runs_its_tools_sealed(script: str, printed: str) -> None:
    with ImageStore() as store:
        prepare(runtime_images(["bun"]), store=store)

        assert store.try_out("chef-runtime/bun:1", script).startswith(printed)
