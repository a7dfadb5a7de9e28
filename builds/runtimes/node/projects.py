"""Plans for projects with a package.json, or without one if the request names dependencies."""

from collections.abc import Mapping

from builds.runtimes.node.managers import PackageManager, choose_manager
from builds.runtimes.node.manifest import PackageProject, read_project
from builds.runtimes.node.outputs import output_candidates, present_output
from builds.runtimes.node.versions import choose_version
from builds.runtimes.plans import Plan, SourceTree, StrategyRequest, command
from builds.runtimes.runtime import Runtime


def node_plan(runtime: Runtime, tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> Plan:
    """The plan for a folder of Node sources. Raises DetectionError."""
    project = read_project(tree, dependencies)
    version, why_version = choose_version(runtime, project, strategy)
    manager = choose_manager(tree, project.manifest, strategy)
    return package_plan(runtime, project, manager, strategy, version=version, why_version=why_version)


def package_plan(
    runtime: Runtime,
    project: PackageProject,
    manager: PackageManager,
    strategy: StrategyRequest,
    *,
    version: str,
    why_version: str,
) -> Plan:
    """The plan for a project whose package manager and version are known."""
    build, outputs, why_build = _build(project, manager, strategy)
    return Plan(
        runtime=runtime.name,
        version=version,
        package_manager=manager.name,
        install_command=_installation(project, manager, strategy),
        build_command=build,
        outputs=strategy.outputs or outputs,
        outputs_chosen=bool(strategy.outputs),
        root_dir=project.tree.root,
        exclude=runtime.left_out(project.tree),
        generated=project.generated,
        reasons=(why_version, manager.reason, *project.reasons, why_build),
    )


def _installation(project: PackageProject, manager: PackageManager, strategy: StrategyRequest) -> str | None:
    if strategy.install_command is not None:
        asked = command(strategy.install_command, None)
        return " && ".join(part for part in (manager.bootstrap, asked) if part) or None
    if project.needs_installation or manager.lockfile:
        return manager.install_command(frozen=not project.has_new_manifest)
    return manager.bootstrap


def _build(
    project: PackageProject, manager: PackageManager, strategy: StrategyRequest
) -> tuple[str | None, tuple[str, ...], str]:
    """The build command, the output candidates, and the reason."""
    script = project.scripts.get("build")
    candidates = output_candidates(project.tree, project.dependencies, strategy.build_command or script)
    if strategy.build_command is not None:
        return command(strategy.build_command, None), candidates, "The strategy sets the build command."
    if script is not None:
        return manager.run_command("build"), candidates, f"package.json has a build script: {script}"
    if strategy.outputs:
        return None, (), "There is no build script, and the strategy names the outputs, so nothing is built."
    if folder := present_output(project.tree):
        return None, (folder,), f"There is no build script, and {folder} exists already, so nothing is built."
    if not project.is_given:
        return None, (".",), "The dependencies include no known build tool, so the files are the output."
    # The package manager reports that the script is missing, and lists the existing ones.
    return manager.run_command("build"), candidates, "package.json has no build script, so the build will fail."
