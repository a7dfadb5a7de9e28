"""npm's registry, as npm on this machine is set up: pnpm, Yarn and others that install from it share the settings."""

import os
import shutil

from builds.runtimes.package_index import IndexSettings, PackageIndex, http_urls, tool_output


class NpmRegistry(PackageIndex):
    """The registry of npm's packages."""

    name = "npm"
    inputs = ("npm_config_registry", "NPM_CONFIG_REGISTRY", "NPM_CONFIG_USERCONFIG", "NPM_CONFIG_GLOBALCONFIG")

    def configured(self) -> IndexSettings:
        """The registry that the environment or this machine's npm names; nothing without either."""
        variables = {name.lower(): value for name, value in os.environ.items() if value}
        if from_environment := variables.get("npm_config_registry"):
            return IndexSettings(http_urls(from_environment)[:1])
        npm = shutil.which("npm")
        return IndexSettings(http_urls(tool_output([npm, "config", "get", "registry"]))[:1] if npm else [])

    def environment(self, settings: IndexSettings) -> dict[str, str]:
        if not settings.urls:
            return {}
        # Corepack and Yarn 2 and later have settings of their own; npm, pnpm and Yarn 1 share npm's.
        names = ("npm_config_registry", "COREPACK_NPM_REGISTRY", "YARN_NPM_REGISTRY_SERVER")
        return dict.fromkeys(names, settings.urls[0].rstrip("/"))


NPM = NpmRegistry()
