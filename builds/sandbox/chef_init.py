"""chef-init, the first process of every container: compiled on first use, and again when its source changes.

On a machine that cannot compile it, a shell script replaces it, and `FirstProcess.warning` says so. Uses no settings
and only the standard library: the Dockerfile runs this module while building the image.
"""

import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from builds.sandbox.contract import SandboxError

_INSIDE = Path(__file__).resolve().with_name("inside")
SOURCE = _INSIDE / "chef_init.c"
FOLDER = _INSIDE / "compiled"
FLAGS = ("-std=c11", "-Os", "-static", "-s")
NAME = "init"  # in the toolbox

_COMPILERS = ("cc", "gcc", "clang")
_COMPILE_SECONDS = 60
_HINT = "Install a C compiler and a static C library (Debian: gcc and libc6-dev), or set CC."
# ELF's e_machine, by the names of Go and Debian, which the engine uses too.
_ARCHITECTURES = {3: "386", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64"}


class NotCompiledError(Exception):
    """chef-init cannot be compiled on this machine. The text says why."""


@dataclass(frozen=True)
class FirstProcess:
    """`files` are put into the toolbox by name; the one called `NAME` is run.

    `architecture` is the processor it is compiled for, such as `amd64`. It is empty for the fall-back script, which
    runs on any processor; `warning` then says why it is used and what to do.
    """

    files: Mapping[str, bytes]
    architecture: str = ""
    warning: str = ""

    @property
    def reaps(self) -> bool:
        """Whether it reaps orphaned processes; the script leaves that to the engine's init."""
        return not self.warning

    def require(self, engine: str) -> None:
        """Raises SandboxError if an engine on that processor cannot run it."""
        if self.architecture and self.architecture != engine:
            raise SandboxError(
                f"chef-init is compiled for {self.architecture} and the Docker Engine runs on {engine}. "
                f"Set CC to a compiler for {engine}, such as aarch64-linux-gnu-gcc, or use an engine on this processor."
            )


@functools.cache
def first_process() -> FirstProcess:
    """The first process of this installation's containers; compiled now if needed, which takes half a second."""
    try:
        content = compiled().read_bytes()
    except (NotCompiledError, OSError) as fault:
        return fall_back(str(fault))
    return FirstProcess(MappingProxyType({NAME: content}), architecture=architecture_of(content))


def fall_back(reason: str) -> FirstProcess:
    """The fall-back script, with the forwarders that it uses. `reason` is why the program was not compiled."""
    scripts = {NAME: "chef_init.sh", "forward.py": "forward.py", "forward.mjs": "forward.mjs"}
    files = {name: (_INSIDE / file).read_bytes() for name, file in scripts.items()}
    warning = f"chef-init was not compiled ({reason}): a slower shell script is used instead. {_HINT}"
    return FirstProcess(MappingProxyType(files), warning=warning)


def compiled() -> Path:
    """The program compiled from the current source. Raises NotCompiledError or OSError."""
    compiler = os.environ.get("CC", "")
    made_of = "\0".join((SOURCE.read_text(), *FLAGS, compiler)).encode()
    path = FOLDER / f"chef-init-{platform.machine()}-{hashlib.sha256(made_of).hexdigest()[:16]}"
    if not path.exists():
        argv = shlex.split(compiler) or [_find_compiler()]
        FOLDER.mkdir(exist_ok=True)
        # Compile elsewhere, then move: several processes may do this at once, and none may find half a program.
        with tempfile.TemporaryDirectory(dir=FOLDER) as aside:
            made = Path(aside) / "chef-init"
            _compile([*argv, *FLAGS, "-o", str(made), str(SOURCE)])
            architecture_of(made.read_bytes())
            made.chmod(0o755)
            made.replace(path)
    return path


def architecture_of(program: bytes) -> str:
    """The processor that a Linux program is for, such as `amd64`. Raises NotCompiledError for anything else."""
    if program[:4] != b"\x7fELF":
        raise NotCompiledError("the compiler does not build programs for Linux")
    machine = int.from_bytes(program[18:20], "little" if program[5] == 1 else "big")
    return _ARCHITECTURES.get(machine, f"ELF machine {machine}")


def _find_compiler() -> str:
    found = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if found is None:
        raise NotCompiledError("there is no C compiler")
    return found


def _compile(argv: list[str]) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_COMPILE_SECONDS, stdin=subprocess.DEVNULL)  # noqa: S603  (our own argv)
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise NotCompiledError(f"{argv[0]}: {fault}") from fault
    if done.returncode != 0:
        words = " ".join(done.stderr.split()) or "no reason given"
        raise NotCompiledError(f"{argv[0]} failed: {words[:300]}")


if __name__ == "__main__":
    try:
        print(compiled())
    except (NotCompiledError, OSError) as error:
        sys.exit(f"chef-init was not compiled: {error}. {_HINT}")
