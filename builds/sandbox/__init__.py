"""The sandbox that builds run in: the contract, and its implementation on Docker."""

from builds.sandbox.contract import Sandbox


def open_sandbox() -> Sandbox:
    """The engine that this installation uses. Raises EngineFault when it does not answer."""
    # Imported here: the web process reads the contract's constants and has no use for the SDK.
    from builds.sandbox.docker_sandbox import DockerSandbox

    return DockerSandbox()
