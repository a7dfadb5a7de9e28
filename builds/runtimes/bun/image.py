"""The Bun image, built from packages: a Debian base, and Bun from npm's registry."""

from pathlib import Path

from builds.runtimes.node.image import npm_package
from builds.runtimes.rootfs import BASE_PACKAGES, RootFilesystem, UnbuildableError, Workshop

# Tools' scripts call `node`. The public image has Bun under that name in this folder, and so does ours.
AS_NODE = "/usr/local/bun-node-fallback-bin"
# The baseline build also runs on processors without AVX2.
_PROCESSORS = {"amd64": "x64-baseline", "arm64": "aarch64"}


def lay_out(workshop: Workshop, version: str) -> RootFilesystem:
    """The root file system with the newest Bun of a release line. Raises UnbuildableError."""
    folder = workshop.once(f"bun {version}", lambda folder: _fill(folder, workshop, version))
    return workshop.root(folder, BUN_VERSION=version)


def _fill(folder: Path, workshop: Workshop, version: str) -> None:
    processor = _PROCESSORS.get(workshop.architecture)
    if processor is None:
        raise UnbuildableError(f"npm has no Bun package for {workshop.architecture}. Set RUNTIME_REGISTRY instead.")
    package = npm_package(workshop, f"@oven/bun-linux-{processor}@{version}", only="bin/bun")
    workshop.overlay(workshop.debian(BASE_PACKAGES), folder)
    commands, as_node = folder / "usr/local/bin", folder / AS_NODE.lstrip("/")
    for each in (commands, as_node):
        each.mkdir(parents=True, exist_ok=True)
    (package / "bin/bun").rename(commands / "bun")
    (commands / "bun").chmod(0o755)
    (commands / "bunx").symlink_to("bun")
    (as_node / "node").symlink_to("/usr/local/bin/bun")
