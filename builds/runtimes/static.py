"""Static sites: nothing is installed or built unless the strategy sets commands."""

from collections.abc import Mapping

from builds.runtimes.plans import Plan, SourceTree, StrategyRequest, command
from builds.runtimes.rootfs import BASE_PACKAGES, RELEASE_NUMBER, RootFilesystem, Workshop, not_in_release
from builds.runtimes.runtime import Rank, Runtime, Sign

_PAGE = "index.html"
_SUFFIXES = (
    *(".html", ".htm", ".css", ".js", ".mjs", ".json", ".map", ".svg", ".png", ".jpg", ".jpeg", ".gif", ".webp"),
    *(".avif", ".ico", ".woff", ".woff2", ".ttf", ".otf", ".txt", ".xml", ".md", ".webmanifest", ".pdf", ".wasm"),
    *(".mp3", ".mp4", ".webm", ".ogg", ".wav", ".csv"),
)


class Static(Runtime):
    """A static site on plain Debian. Its version is Debian's, which is irrelevant to the user."""

    name = "static"
    title = "Static site"
    subject = "A static site"
    versions = (RELEASE_NUMBER,)
    default_version = RELEASE_NUMBER
    shows_version = False

    suggestion = "an index.html (a static site)"
    entry_files = (_PAGE,)
    source_suffixes = (".html", ".css")
    finished_folders = ("public", "dist")

    public_image = "debian:bookworm-slim"
    trial = "cat /etc/debian_version"
    trial_start = "{version}."

    def signs(self) -> tuple[Sign, ...]:
        return (Sign(Rank.ENTRY_FILE, _by_page), Sign(Rank.ALL_FILES, _by_all_files))

    def plan(self, tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> Plan:
        """The plan for files that are served unchanged; `dependencies` are ignored."""
        folder = self._site_folder(tree)
        return Plan(
            runtime=self.name,
            version=self.known_version(strategy.version or "", source="strategy.version"),
            install_command=command(strategy.install_command, None),
            build_command=command(strategy.build_command, None),
            outputs=strategy.outputs or (folder,),
            outputs_chosen=bool(strategy.outputs),
            root_dir=tree.root,
            exclude=self.left_out(tree),
            reasons=(f"Nothing is built: {'all files are' if folder == '.' else f'{folder}/ is'} the output.",),
        )

    def lay_out(self, workshop: Workshop, version: str) -> RootFilesystem:
        if version != RELEASE_NUMBER:
            raise not_in_release(self.name, version)
        return workshop.root(workshop.debian(BASE_PACKAGES))

    def _site_folder(self, tree: SourceTree) -> str:
        if _PAGE in tree:
            return "."
        return next((folder for folder in self.finished_folders if f"{folder}/{_PAGE}" in tree), ".")


def _by_page(tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> str | None:
    return "A static site, because there is an index.html and nothing to build." if _PAGE in tree else None


def _by_all_files(tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> str | None:
    visible = [path for path in tree.files if not path.startswith(".")]
    sites = [path for path in visible if path.lower().endswith(_SUFFIXES)]
    if tree.with_suffix(".html", ".htm", ".css", ".js") and len(sites) == len(visible):
        return "A static site, because all files are pages, styles, scripts and media."
    return None


STATIC = Static()
