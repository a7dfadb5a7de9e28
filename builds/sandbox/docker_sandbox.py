"""The Docker sandbox: one container per phase, one volume per attempt, nothing else shared.

`container` creates containers, `execution` watches them.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings

from builds.sandbox import container, workspace_tar
from builds.sandbox.chef_init import first_process
from builds.sandbox.contract import (
    APP_DIR,
    WORKSPACE,
    Command,
    Egress,
    Identity,
    ImageMissingError,
    InputFile,
    Limits,
    Outcome,
    Output,
    OutputMissingError,
    OutputUnsafeError,
    Registries,
    SandboxError,
    Watch,
)
from builds.sandbox.egress import EgressProxy
from builds.sandbox.engine import FAULTS, APIClient, ImageNotFound, NotFound, architecture, guarded, new_client
from builds.sandbox.execution import Execution

# Go's os.FileMode bits, which the engine reports for a path
_MODE_DIR = 1 << 31
_MODE_SPECIAL = (1 << 27) | (1 << 26) | (1 << 25) | (1 << 24) | (1 << 21) | (1 << 19)  # links, devices, pipes, sockets


class DockerSandbox:
    """See builds.sandbox.contract.Sandbox. `registries` is called before each command that may reach them."""

    @guarded
    def __init__(self, registries: Callable[[], Registries]) -> None:
        first_process().require(architecture())
        self._client, self._registries = new_client(), registries

    @guarded
    def image_id(self, tag: str) -> str:
        try:
            image = self._client.inspect_image(tag)
        except ImageNotFound:
            raise ImageMissingError(f"the image {tag} is not on this engine") from None
        if image["Config"].get("Volumes"):
            # A VOLUME of the image would be writable and outside our limits.
            raise ImageMissingError(f"the image {tag} declares volumes and cannot be used")
        return str(image["Id"])

    @guarded
    def open(self, identity: Identity, *, image: str, limits: Limits) -> "DockerWorkspace":
        return DockerWorkspace(self._client, identity, image=image, limits=limits, registries=self._registries)

    @guarded
    def leftovers(self) -> list[Identity]:
        mark = {"label": f"chef.installation={settings.INSTALLATION}"}
        labels = [c["Labels"] for c in self._client.containers(all=True, filters=mark)]
        labels += [v["Labels"] or {} for v in self._client.volumes(filters=mark)["Volumes"] or []]
        labels += [n["Labels"] or {} for n in self._client.networks(filters=mark)]
        return sorted(
            {_identity(each) for each in labels if "chef.build" in each}, key=lambda i: (str(i.build), i.fence)
        )

    @guarded
    def remove(self, identity: Identity) -> None:
        remove_all(self._client, identity)


def labels_of(identity: Identity) -> dict[str, str]:
    return {
        "chef.installation": settings.INSTALLATION,
        "chef.build": str(identity.build),
        "chef.attempt": str(identity.fence),
        "chef.fence": str(identity.fence),
    }


def _identity(labels: Mapping[str, str]) -> Identity:
    return Identity(UUID(labels["chef.build"]), int(labels["chef.fence"]))


def remove_all(client: APIClient, identity: Identity) -> None:
    """Remove everything with the attempt's labels, containers first: a volume in use cannot be removed."""
    mark = {"label": [f"{name}={value}" for name, value in labels_of(identity).items()]}
    for found in client.containers(all=True, filters=mark):
        container.remove(client, found["Id"])
    for volume in client.volumes(filters=mark)["Volumes"] or []:
        with contextlib.suppress(NotFound):
            client.remove_volume(volume["Name"], force=True)
    for network in client.networks(filters=mark):
        with contextlib.suppress(NotFound):
            client.remove_network(network["Id"])


class DockerWorkspace:
    """See builds.sandbox.contract.Workspace.

    Files go in and outputs come out through a container that mounts the volume and is never started.
    """

    def __init__(
        self,
        client: APIClient,
        identity: Identity,
        *,
        image: str,
        limits: Limits,
        registries: Callable[[], Registries],
    ) -> None:
        self._client, self._registries = client, registries
        self._identity = identity
        volume = f"chef-{settings.INSTALLATION}-{identity.build}-{identity.fence}"
        self._blueprint = container.Blueprint(image, volume, labels_of(identity), limits)
        client.create_volume(volume, labels=labels_of(identity))
        self._holder = container.create(client, self._blueprint, ["/bin/true"], environment={})

    @guarded
    def put(self, files: Iterable[InputFile], tools: Mapping[str, bytes]) -> None:
        self._client.put_archive(
            self._holder, WORKSPACE, workspace_tar.workspace_stream(files, tools, uid=container.UID)
        )

    @contextlib.contextmanager
    def take(self, path: str) -> Iterator[Output]:
        parts = path.split("/") if path not in ("", ".") else []
        # A folder above the output could be a link; the project's folder cannot, since root owns its parent.
        for depth in range(1, len(parts)):
            stream, mode = self._open("/".join(parts[:depth]))
            stream.close()
            if not mode & _MODE_DIR:
                raise OutputMissingError(path)  # a file has no children
        stream, mode = self._open("/".join(parts))
        try:
            yield Output(bool(mode & _MODE_DIR), _engine_stream(stream))
        finally:
            stream.close()

    @guarded
    def _open(self, path: str) -> tuple[Any, int]:
        """The engine's tar stream of a path in the project, and its mode. Each call mounts the volume again."""
        try:
            stream, stat = self._client.get_archive(self._holder, f"{APP_DIR}/{path}".rstrip("/"), 256 * 1024)
        except NotFound:
            raise OutputMissingError(path) from None
        if stat["mode"] & _MODE_SPECIAL:
            stream.close()
            raise OutputUnsafeError(path)
        return stream, stat["mode"]

    @guarded
    def remove(self) -> None:
        remove_all(self._client, self._identity)

    @guarded
    def run(self, command: Command, watch: Watch) -> Outcome:
        if not command.with_registries:
            return self._run(command, watch, egress_folder=None, extra={})
        registries = self._registries()
        folder = settings.BUILD_DIR / f"{self._identity.build.hex[:12]}-{self._identity.fence}"
        with EgressProxy(folder=folder, allowed=registries.hosts) as proxy:
            outcome = self._run(command, watch, egress_folder=folder, extra=container.egress_environment(registries))
            outcome.egress = [Egress(e.host, e.port, e.allowed, e.count) for e in proxy.report()]
        return outcome

    def _run(self, command: Command, watch: Watch, *, egress_folder: Path | None, extra: Mapping[str, str]) -> Outcome:
        created = container.create(
            self._client,
            self._blueprint,
            container.argv_of(command, watch.seconds_left(), forwarded=egress_folder is not None),
            environment={**container.base_environment(), **extra, **command.environment},
            folder=container.folder_of(command),
            egress_folder=egress_folder,
        )
        try:
            return Execution(self._client, created, self._blueprint.limits, watch).to_the_end()
        finally:
            container.remove(self._client, created)


def _engine_stream(stream: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from stream
    except FAULTS as fault:
        raise SandboxError(str(fault)) from fault
