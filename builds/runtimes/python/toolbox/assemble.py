"""Runs inside the build container, in the folder of a Python project that is not a package.

Checks that every source file compiles, then makes `dist`: the dependencies and the project's files together at the top
level, so that the folder runs wherever the same Python does. If both have a file, the project's wins.
"""

import argparse
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

# Never needed at run time: version control, caches, virtual environments, other tools' dependencies.
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
    """Sorted paths relative to `folder`. Links are not followed: their targets may be outside the project."""
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT and here / name not in without)
        for name in sorted(names):
            path = here / name
            if path.is_file() and not path.is_symlink() and not name.endswith((".pyc", ".pyo")):
                yield path.relative_to(folder)


def check(path: Path) -> bool:
    """Whether a file compiles. If not, print where and why, as Python does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        lines = traceback.format_exception_only(fault)
        # For a file with a NUL, or nested too deeply, Python names no line.
        place = "" if isinstance(fault, SyntaxError) and fault.lineno else f'  File "{path}", line 1\n'
        sys.stderr.write(place + "".join(lines))
        return False
    return True


def copy(source: Path, target: Path, names: list[Path]) -> None:
    """Copy files with their relative paths, replacing a file that is in the way of a folder and vice versa."""
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
    sources = list(regular_files(project, without=frozenset({options.output, options.deps})))
    # Check every file, so that one run reports every error.
    broken = [path for path in sources if path.suffix == ".py" and not check(path)]
    if broken:
        return 1
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    dependencies = list(regular_files(options.deps)) if options.deps.is_dir() else []
    copy(options.deps, options.output, dependencies)
    copy(project, options.output, sources)
    print(f"{len(sources)} files of the project and {len(dependencies)} of its dependencies are in {options.output}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
