"""The Bun runtime."""

from collections.abc import Mapping

from builds.runtimes.bun import image
from builds.runtimes.bun.projects import bun_plan, by_lockfile
from builds.runtimes.bun.symptoms import TOOL_PATTERNS
from builds.runtimes.node.manifest import MANIFEST
from builds.runtimes.node.registry import NPM
from builds.runtimes.node.symptoms import WEB_TOOLS
from builds.runtimes.plans import TOOLS, Plan, SourceTree, StrategyRequest
from builds.runtimes.rootfs import RootFilesystem, Workshop
from builds.runtimes.runtime import Rank, Runtime, Sign
from projects.environment import ReservedFor


class Bun(Runtime):
    """Bun installs npm packages, runs scripts, bundles, and stands in for Node where a tool calls it."""

    name = "bun"
    title = "Bun"
    subject = "Bun"
    versions = ("1",)
    default_version = "1"

    suggestion = "a package.json with a bun.lock (Bun)"
    manifests = (MANIFEST,)
    source_suffixes = (".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".vue", ".svelte")

    tool_folders = (f"{TOOLS}/node_modules/.bin", image.AS_NODE)
    variables = {"DO_NOT_TRACK": "1"}  # no crash reports: builds cannot reach their server
    never_output = ("node_modules", ".git", ".cache", ".parcel-cache")

    package_index = NPM  # Bun reads npm's names of these settings
    ca_variables = ("NODE_EXTRA_CA_CERTS",)
    reserved_variables = {
        ReservedFor.PROGRAMS: "BUN_OPTIONS",
        ReservedFor.PACKAGE_MANAGERS: "BUN_CONFIG_.*|BUN_INSTALL.*",
    }

    tool_patterns = TOOL_PATTERNS + WEB_TOOLS

    public_image = "oven/bun:{version}-slim"
    trial = f"bun --version && {image.AS_NODE}/node -p process.versions.bun"
    trial_start = "{version}."

    def signs(self) -> tuple[Sign, ...]:
        return (Sign(Rank.LOCKFILE, by_lockfile),)

    def plan(self, tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> Plan:
        return bun_plan(self, tree, dependencies, strategy)

    def lay_out(self, workshop: Workshop, version: str) -> RootFilesystem:
        return image.lay_out(workshop, version)


BUN = Bun()
