"""What people's folders hold besides sources: version control, installed packages, caches, and what builds have made.

Left out where a person drops a folder; a program that sends such files by the API is told of them instead.
"""

from collections import Counter
from collections.abc import Iterable

from projects.files.paths import NewFile

FOLDERS = frozenset(
    [
        *(".git", ".hg", ".svn", "node_modules", "bower_components", ".venv", "venv", "__pycache__", "__MACOSX"),
        *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".cache", ".next", ".nuxt", ".parcel-cache", ".turbo"),
    ]
)
FILES = frozenset([".DS_Store", "Thumbs.db", "desktop.ini"])
# What a build makes anew; in a folder without a manifest it is the site itself.
_OUTPUTS, _MANIFEST = frozenset(["dist"]), "package.json"


class Sieve:
    """Says of each path whether it is left out, and counts those by what they were left out for."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()

    def holds_back(self, path: str) -> bool:
        reason = noise_in(path)
        if reason:
            self.left_out[reason] += 1
        return bool(reason)

    def without_outputs(self, files: Iterable[NewFile]) -> list[NewFile]:
        """The files without those that stand in a `dist` beside a package.json."""
        files = list(files)
        projects = {file.path.removesuffix(_MANIFEST) for file in files if file.path.split("/")[-1] == _MANIFEST}
        outputs = {f"{project}{name}": name for project in projects for name in _OUTPUTS}
        kept = []
        for file in files:
            found = next((name for folder, name in outputs.items() if file.path.startswith(f"{folder}/")), "")
            if found:
                self.left_out[found] += 1
            else:
                kept.append(file)
        return kept


def noise_in(path: str) -> str:
    """The folder or file that makes a path noise; empty when it is none."""
    *folders, name = path.split("/")
    return next((folder for folder in folders if folder in FOLDERS), name if name in FILES else "")
