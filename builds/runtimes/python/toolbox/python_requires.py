"""Runs inside the installation container, in a Python package's folder, after `pip install build`.

Installs the package's build requirements, because the build phase has no network: first those in [build-system], then
those that the backend reports once it can be imported. Exits with the exit code of what failed.
"""

import os
import subprocess
import sys
from collections.abc import Collection, Mapping

from build import BuildBackendException, BuildException, ProjectBuilder

DISTRIBUTIONS = ("sdist", "wheel")


def install(requirements: Collection[str]) -> None:
    """Install them with pip, configured by the environment. Raises SystemExit with pip's exit code if it fails."""
    if not requirements:
        return
    wanted = sorted(requirements)
    print(f"Installing the build requirements: {', '.join(wanted)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "pip", "install", *wanted], check=False)  # noqa: S603  (our own argv)
    if done.returncode:
        raise SystemExit(done.returncode)


def run_hook(command: Collection[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None) -> None:
    """Run a backend's hook with its output in the log, where an error in setup.py shows its line."""
    environment = {**os.environ, **(extra_environ or {})}
    subprocess.run(list(command), cwd=cwd, env=environment, check=True)  # noqa: S603  (what `build` asks for)


def main(folder: str) -> None:
    try:
        builder = ProjectBuilder(folder, runner=run_hook)
        install(builder.build_system_requires)
        for distribution in DISTRIBUTIONS:
            # setup.py may ask for more: it runs for the first time here, with the requirements above installed.
            install(builder.get_requires_for_build(distribution))
    except (BuildException, BuildBackendException) as fault:
        raise SystemExit(f"ERROR: {fault}") from fault


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".")
