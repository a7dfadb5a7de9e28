"""npm's registry, as configured for npm on this machine. pnpm, Yarn and others share these settings."""

import os
import shutil

from builds.runtimes.package_index import IndexSettings, PackageIndex, http_urls, tool_output


class NpmRegistry(PackageIndex):
    """The registry of npm packages."""

    name = "npm"
    inputs = ("npm_config_registry", "NPM_CONFIG_REGISTRY", "NPM_CONFIG_USERCONFIG", "NPM_CONFIG_GLOBALCONFIG")

    def configured(self) -> IndexSettings:
        """The registry from the environment or from this machine's npm; empty without either."""
        variables = {name.lower(): value for name, value in os.environ.items() if value}
        if from_environment := variables.get("npm_config_registry"):
            return IndexSettings(http_urls(from_environment)[:1])
        npm = shutil.which("npm")
        return IndexSettings(http_urls(tool_output([npm, "config", "get", "registry"]))[:1] if npm else [])

    def environment(self, settings: IndexSettings) -> dict[str, str]:
        if not settings.urls:
            return {}
        # Corepack and Yarn from version 2 on have their own settings; npm, pnpm and Yarn 1 share npm's.
        names = ("npm_config_registry", "COREPACK_NPM_REGISTRY", "YARN_NPM_REGISTRY_SERVER")
        return dict.fromkeys(names, settings.urls[0].rstrip("/"))


NPM = NpmRegistry()
