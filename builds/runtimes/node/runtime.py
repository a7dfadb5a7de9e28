"""The Node runtime."""

from collections.abc import Mapping

from builds.runtimes.node import image
from builds.runtimes.node.manifest import MANIFEST
from builds.runtimes.node.projects import node_plan
from builds.runtimes.node.registry import NPM
from builds.runtimes.node.symptoms import NPM_AND_OTHERS, WEB_TOOLS
from builds.runtimes.plans import TOOLS, Plan, SourceTree, StrategyRequest
from builds.runtimes.rootfs import RootFilesystem, Workshop
from builds.runtimes.runtime import Rank, Runtime, Sign
from projects.environment import ReservedFor


class Node(Runtime):
    """Node.js with npm, pnpm or Yarn."""

    name = "node"
    title = "Node"
    subject = "Node"
    versions = ("18", "20", "22", "24")
    default_version = "22"

    suggestion = "a package.json (Node)"
    manifests = (MANIFEST,)
    source_suffixes = (".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".vue", ".svelte")

    tool_folders = (f"{TOOLS}/node_modules/.bin",)
    variables = {
        "npm_config_update_notifier": "false",
        "npm_config_fund": "false",
        "npm_config_audit": "false",
    }
    never_output = ("node_modules", ".git", ".npm", ".cache", ".parcel-cache", ".pnpm-store", ".pnp.cjs", ".yarn")

    package_index = NPM
    index_query = "npm config get registry; yarn config get registry || true"
    proxy_variables = ("YARN_HTTP_PROXY", "YARN_HTTPS_PROXY")  # Yarn from version 2 on reads only these names
    ca_variables = ("NODE_EXTRA_CA_CERTS", "npm_config_cafile")
    reserved_variables = {
        ReservedFor.PROGRAMS: "NODE_OPTIONS",
        ReservedFor.EGRESS: "NODE_EXTRA_CA_CERTS",
        ReservedFor.PACKAGE_MANAGERS: "NPM_CONFIG_.*|YARN_NPM_.*|COREPACK_.*",
    }

    tool_patterns = NPM_AND_OTHERS + WEB_TOOLS

    public_image = "node:{version}-bookworm-slim"
    trial = "node --version && npm --version"
    trial_start = "v{version}."

    def signs(self) -> tuple[Sign, ...]:
        return (Sign(Rank.MANIFEST, _by_manifest), Sign(Rank.DEPENDENCIES, _by_dependencies))

    def plan(self, tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> Plan:
        return node_plan(self, tree, dependencies, strategy)

    def lay_out(self, workshop: Workshop, version: str) -> RootFilesystem:
        return image.lay_out(workshop, version)


def _by_manifest(tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> str | None:
    return "Node, because there is a package.json." if MANIFEST in tree else None


def _by_dependencies(tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> str | None:
    return "Node, because the request names dependencies." if dependencies else None


NODE = Node()
