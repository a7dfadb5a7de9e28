"""Runs inside the build container, in the folder of a Python project that is no package.

Checks that every source file compiles, then makes `dist`: the dependencies, with the project's files beside them at the
top, so that the folder runs wherever the same Python does. Where both have a file, the project's wins.
"""

import argparse
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

# Never part of what runs: version control, caches, virtual environments, other tools' dependencies.
LEFT_OUT = {
    ".chef",
    ".git",
    ".hg",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".svn",
    ".tox",
    ".venv",
    "__pycache__",
    "node_modules",
    "venv",
}


def regular_files(folder: Path, *, without: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Paths relative to `folder`, in order. Links are not followed: what they point to is not the project's."""
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT and here / name not in without)
        for name in sorted(names):
            path = here / name
            if path.is_file() and not path.is_symlink() and not name.endswith((".pyc", ".pyo")):
                yield path.relative_to(folder)


def check(path: Path) -> bool:
    """Whether a file compiles. If not, say where and why, as Python does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        lines = traceback.format_exception_only(fault)
        # A file with a NUL, or nested too deeply, has no line to point to.
        place = "" if isinstance(fault, SyntaxError) and fault.lineno else f'  File "{path}", line 1\n'
        sys.stderr.write(place + "".join(lines))
        return False
    return True


def copy(source: Path, target: Path, names: list[Path]) -> None:
    """Copy files, whole paths. What is in the way, a file for a folder or the reverse, gives way."""
    for name in names:
        place = target / name
        for parent in reversed(place.relative_to(target).parents[:-1]):
            if (target / parent).is_file():
                (target / parent).unlink()
        if place.is_dir():
            shutil.rmtree(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, place)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deps", type=Path, default=Path("/workspace/tools/deps"))
    parser.add_argument("--output", type=Path, default=Path("dist"))
    options = parser.parse_args()

    project = Path()
    own = list(regular_files(project, without=frozenset({options.output, options.deps})))
    # Every file is checked, so that one run tells of every fault.
    broken = [path for path in own if path.suffix == ".py" and not check(path)]
    if broken:
        return 1
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    brought = list(regular_files(options.deps)) if options.deps.is_dir() else []
    copy(options.deps, options.output, brought)
    copy(project, options.output, own)
    print(f"{len(own)} files of the project and {len(brought)} of its dependencies are in {options.output}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
