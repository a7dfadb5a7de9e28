"""Root file systems of the runtimes, built from packages where no registry has the images.

The runtimes decide what their images hold; this module has the common parts. Debian packages come from the archive
that apt on this machine is configured for: no host is named here, and apt verifies what it downloads. Does not know
Docker: the result is a tar stream.
"""

import os
import platform
import re
import shutil
import subprocess
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

from builds.sandbox.contract import SYSTEM_PATH

# The public images use this release too, so that a build finds the same C library everywhere.
RELEASE, RELEASE_NUMBER = "bookworm", "12"

# What the public slim images have and builds use. No git: builds cannot reach a git host.
BASE_PACKAGES = (
    "base-files base-passwd bash bzip2 ca-certificates coreutils dash debianutils diffutils findutils grep gzip "
    "libatomic1 libc-bin libstdc++6 mawk mount netbase sed tar tzdata usr-is-merged util-linux xz-utils"
)
_NATIVE_PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

# Left out of every image: traces of this machine (its mirror, name and proxy), devices, and files no build reads.
_LEFT_OUT = (
    "./dev/*",
    "./etc/apt",
    "./etc/hostname",
    "./etc/resolv.conf",
    "./usr/share/doc/*/*hangelog*",
    "./usr/share/info",
    "./usr/share/lintian",
    "./usr/share/locale",
    "./usr/share/man",
    "./var/cache/*",
    "./var/lib/apt",
    "./var/log/*",
)
# Builds do not run as root, and tools that look up their user need a name for the UID.
_BUILDER = ("chef:x:10001:10001:Chef:/tmp:/bin/sh\n", "chef:x:10001:\n")
# /bin and others are links into /usr, as in current Debian; the packages' own scripts are not run.
_MERGE_USR = 'for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done'

_TOOL_SECONDS = 300
_REMAINS_SECONDS = 3600
_CHUNK_BYTES = 1024 * 1024


class UnbuildableError(Exception):
    """This machine cannot build the root file system. The text says what is missing and what to do."""


@dataclass(frozen=True)
class RootFilesystem:
    """A folder with all files of an image, and the image's environment."""

    folder: Path
    environment: Mapping[str, str]

    def stream(self) -> Iterator[bytes]:
        """A tar of the folder, owned by root. Raises UnbuildableError if tar fails, before the stream ends."""
        argv = ["tar", "--create", "--numeric-owner", "--owner=0", "--group=0", "--sort=name"]
        argv.append("--mode=a+rX")  # regardless of this process's umask: builds do not run as root
        argv += [f"--exclude={pattern}" for pattern in _LEFT_OUT]
        argv += [f"--directory={self.folder}", "."]
        with subprocess.Popen(argv, stdout=PIPE, stderr=DEVNULL) as tar:  # noqa: S603  (our own argv)
            assert tar.stdout is not None
            try:
                while chunk := tar.stdout.read(_CHUNK_BYTES):
                    yield chunk
            finally:
                tar.stdout.close()  # ends tar if the reader has gone
        # 1: a file changed while it was read. Another image's thread has hard-linked it; its content is the same.
        if tar.returncode not in (0, 1):
            raise UnbuildableError(
                f"tar failed with exit code {tar.returncode} while packing the image. Is the disk full?"
            )


class Workshop:
    """A temporary folder where root file systems are built; shared parts are built once.

    Thread-safe. `folder` must be on a disk with about 1 GB free; `architecture` is Debian's name for it.
    """

    def __init__(self, *, folder: Path, architecture: str) -> None:
        self._folder = folder
        self.architecture = architecture
        self._parts: dict[str, Future[Path]] = {}
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for remains in self._folder.glob("images-*"):  # left by a killed process
            if remains.stat().st_mtime < time.time() - _REMAINS_SECONDS:
                shutil.rmtree(remains, ignore_errors=True)
        self._temporary = tempfile.TemporaryDirectory(prefix="images-", dir=self._folder)
        self._path = Path(self._temporary.name)
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._temporary.cleanup()

    def make(self, lay_out: Callable[[Self, str], RootFilesystem], version: str) -> RootFilesystem:
        """The root file system of one version, by a runtime's `lay_out`. Raises UnbuildableError."""
        _require_tools()
        return lay_out(self, version)

    @property
    def is_native(self) -> bool:
        """Whether this machine can run the programs of the images."""
        return _NATIVE_PROCESSORS.get(platform.machine()) == self.architecture

    def root(self, folder: Path, **environment: str) -> RootFilesystem:
        """A folder as a root file system; `environment` adds to the variables of every image."""
        return RootFilesystem(folder, {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", **environment})

    def once(self, key: str, make: Callable[[Path], None]) -> Path:
        """The folder that `make` has filled for the key, called only once. Raises what `make` raised."""
        with self._guard:
            first = key not in self._parts
            part = self._parts.setdefault(key, Future())
        if first:
            path = self._path / f"part-{len(self._parts)}-{threading.get_ident()}"
            try:
                path.mkdir()
                make(path)
            except BaseException as fault:
                part.set_exception(fault)  # for threads that wait, and for later calls
                raise
            part.set_result(path)
        return part.result()

    def debian(self, packages: str) -> Path:
        """A folder with these Debian packages unpacked and configured."""
        return self.once(packages, lambda folder: self._lay_debian(folder, packages))

    def run(self, argv: list[str], *, folder: Path | None = None, variables: Mapping[str, str] | None = None) -> str:
        """A tool's output. Raises UnbuildableError with its last lines if it fails or times out."""
        return _run(argv, folder=folder or self._path, variables=variables)

    def overlay(self, source: Path, folder: Path) -> None:
        """Hard-link the files of `source` into `folder`: images share the parts, which are never modified."""
        folder.mkdir(parents=True, exist_ok=True)
        self.run(["cp", "--archive", "--link", f"{source}/.", str(folder)])

    def _lay_debian(self, folder: Path, packages: str) -> None:
        sources = folder.with_suffix(".list")
        sources.write_text("".join(f"deb {source} main\n" for source in debian_sources()))
        argv = ["mmdebstrap", "--variant=extract", "--mode=root", "--format=directory", "--quiet"]
        argv += [f"--architectures={self.architecture}", f"--setup-hook={_MERGE_USR}"]
        argv += [f"--aptopt={option}" for option in _apt_network_options()]
        self.run([*argv, f"--include={packages}", RELEASE, str(folder), str(sources)])
        _configure(folder)


def not_in_release(runtime: str, version: str) -> UnbuildableError:
    """The error to raise for a version that Debian does not package."""
    return UnbuildableError(
        f"Debian {RELEASE_NUMBER} has no {runtime} {version}. Set RUNTIME_REGISTRY to a registry that has it."
    )


def debian_sources() -> list[str]:
    """This machine's Debian archives for our release, as "URI suite". Raises UnbuildableError if there are none."""
    form = "$(ORIGIN)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)"
    argv = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    targets = _run(argv) or _run([*argv[:2], "--no-release-info", *argv[2:]])
    found: dict[str, None] = {}  # an ordered set
    for origin, uri, suite, component in (line.split("\t") for line in targets.splitlines()):
        series, _, pocket = suite.partition("-")
        # Before the first `apt-get update` the origin is unknown; the suite's name then identifies Debian's archives.
        ours = origin == "Debian" or (origin == "$(ORIGIN)" and series in {RELEASE, _machine_release()})
        if ours and component == "main" and pocket in {"", "updates", "security"}:
            found[f"{uri} {RELEASE}{'-' if pocket else ''}{pocket}"] = None
    if not found:
        raise UnbuildableError(
            "apt on this machine has no Debian archive configured, so the images cannot be built here. "
            "Set RUNTIME_REGISTRY to a registry that has them, or run this on Debian."
        )
    return list(found)


def without_credentials(text: str) -> str:
    """The text with user names and passwords removed from its URLs."""
    return re.sub(r"(?<=://)[^/\s@]+@", "", text)


def _require_tools() -> None:
    if shutil.which("apt-get") is None:
        raise UnbuildableError(
            "This is not a Debian machine: there is no apt-get. Set RUNTIME_REGISTRY to a reachable registry."
        )
    if os.geteuid() != 0:
        raise UnbuildableError("Only root can build a root file system: run this as root, or set RUNTIME_REGISTRY.")
    if shutil.which("mmdebstrap") is None:
        raise UnbuildableError(
            "mmdebstrap is not installed: run `apt-get install mmdebstrap`, or set RUNTIME_REGISTRY."
        )


def _configure(folder: Path) -> None:
    """Do the work of the packages' own scripts, which the variant `extract` does not run."""
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
    """apt's proxies and certificates: mmdebstrap starts with an empty configuration."""
    dump = _run(["apt-config", "dump"]).splitlines()
    return [line for line in dump if re.match(r"Acquire::https?::.*\S \"[^\"]+\";$", line)]


def _run(argv: list[str], *, folder: Path | None = None, variables: Mapping[str, str] | None = None) -> str:
    """A tool's output, see `Workshop.run`."""
    environment = {**os.environ, **(variables or {})}
    with subprocess.Popen(  # noqa: S603  (our own argv)
        argv, cwd=folder, env=environment, text=True, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    ) as tool:
        try:
            output, errors = tool.communicate(timeout=_TOOL_SECONDS)
        except BaseException as fault:
            tool.terminate()  # on SIGTERM mmdebstrap ends its own children, on SIGKILL it could not
            if isinstance(fault, subprocess.TimeoutExpired):
                raise UnbuildableError(f"{Path(argv[0]).name} timed out after {_TOOL_SECONDS} s.") from fault
            raise
    if tool.returncode != 0:
        last_lines = " ".join((errors.strip() or output.strip()).split("\n")[-3:])
        raise UnbuildableError(f"{Path(argv[0]).name} failed: {without_credentials(last_lines)[-600:]}")
    return output
