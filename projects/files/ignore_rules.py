"""Ignore rules: what folders hold besides sources, such as version control, installed packages, caches, build outputs.

They apply where a person drops a folder or an archive; the API does not drop files silently and reports them instead.
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
# A build creates it again; in a folder without a manifest it is the site itself.
_OUTPUTS, _MANIFEST = frozenset(["dist"]), "package.json"


class IgnoreRules:
    """Decides for each path whether it is ignored, and counts the ignored ones by rule."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()

    def ignores(self, path: str) -> bool:
        reason = ignored_name(path)
        if reason:
            self.left_out[reason] += 1
        return bool(reason)

    def without_outputs(self, files: Iterable[NewFile]) -> list[NewFile]:
        """The files without those in a `dist` beside a package.json."""
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


def ignored_name(path: str) -> str:
    """The folder or file name by which a path is ignored; empty when it is not."""
    *folders, name = path.split("/")
    return next((folder for folder in folders if folder in FOLDERS), name if name in FILES else "")
