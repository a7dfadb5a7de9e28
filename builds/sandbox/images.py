"""Runtime images in the Docker engine: find, pull, import, try out, tag and remove them.

Which images are wanted, and how their files are made, is for `builds.runtimes.images` and `builds.runtimes.rootfs`.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import requests
from django.conf import settings

from builds.sandbox import tar
from builds.sandbox.chef_init import first_process
from builds.sandbox.container import UID, shell_argv
from builds.sandbox.contract import WORKSPACE, SandboxError
from builds.sandbox.engine import (
    FAULTS,
    APIError,
    ImageNotFound,
    Mount,
    architecture,
    get_config_header,
    new_client,
    parse_repository_tag,
    resolve_repository_name,
)

# A registry that takes longer than this to name one manifest would keep a new user waiting for every layer.
REGISTRY_SECONDS = 8
# Of silence, not in all: the engine tells its progress several times a second while it downloads and unpacks.
PULL_SILENCE_SECONDS = 60
IMPORT_SECONDS = 180
TRIAL_SECONDS = 60
_TRIAL_FOLDER = "/tmp"  # noqa: S108  (the container's own; nothing of this machine is mounted)

IMAGE_LABEL = "chef.runtime"
TRIAL_LABEL = "chef.trial"
# Long enough that no image or container of a preparation under way can be taken for what a dead one has left.
_REMAINS_AFTER = "15m"


class RegistryUnreachableError(Exception):
    """The engine got no answer from the registry, or lost it half-way: other images will fare no better."""


class ImageNotOfferedError(Exception):
    """The registry answered, and does not have (or does not give us) this image."""


class TrialFailedError(Exception):
    """An image does not run its own tools in a sealed container. The text is what they said."""


class ImageStore:
    """The images of the sandbox's engine. Every call raises SandboxError when the engine fails."""

    def __init__(self) -> None:
        with _engine_faults("be reached"):
            first_process().require(architecture())
            self._api = new_client()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._api.close()

    def architecture(self) -> str:
        """The engine's processor in Debian's words: `amd64`, `arm64`."""
        return architecture()

    def ids(self, pattern: str) -> dict[str, str]:
        """The image id (`sha256:...`) behind each tag whose repository matches, e.g. `chef-runtime/*`."""
        with _engine_faults("list its images"):
            images = self._api.images(filters={"reference": pattern})
        return {tag: image["Id"] for image in images for tag in image["RepoTags"] or ()}

    def find(self, reference: str) -> str | None:
        """The id of the image that the engine has under that name, or None."""
        with _engine_faults(f"look up {reference}"):
            try:
                return str(self._api.inspect_image(reference)["Id"])
            except ImageNotFound:
                return None

    def ask_registry(self, reference: str) -> None:
        """Whether the registry answers at all, told quickly. Raises RegistryUnreachableError or ImageNotOfferedError.

        A pull of a name whose registry drops packets is silent for half a minute; this asks for one manifest only.
        """
        with _engine_faults("be reached"), contextlib.closing(new_client()) as api:
            api.timeout = REGISTRY_SECONDS
            try:
                api.inspect_distribution(reference)
            except APIError as fault:
                raise _refusal(fault.status_code, fault.explanation or str(fault)) from fault
            except requests.RequestException as fault:
                raise RegistryUnreachableError(f"no answer within {REGISTRY_SECONDS} s") from fault

    def pull(self, reference: str) -> str:
        """Pull an image and return its id. Raises RegistryUnreachableError or ImageNotOfferedError.

        The SDK's own `pull` has no time-out at all, so the same request is made here with one.
        """
        repository, tag = parse_repository_tag(reference)
        registry, _ = resolve_repository_name(repository)
        credentials = get_config_header(self._api, registry)
        try:
            answer = self._api.post(
                self._url("/images/create"),
                params={"fromImage": repository, "tag": tag or "latest"},
                headers={"X-Registry-Auth": credentials} if credentials else {},
                timeout=PULL_SILENCE_SECONDS,
                stream=True,
            )
            with answer:
                _follow(answer)
        except requests.RequestException as fault:
            raise RegistryUnreachableError(f"silent for {PULL_SILENCE_SECONDS} s, or gone, while pulling") from fault
        image = self.find(reference)
        if image is None:
            raise ImageNotOfferedError(f"{reference} is not in the engine after its pull")
        return image

    def import_tar(self, stream: Iterable[bytes], *, name: str, environment: Mapping[str, str]) -> str:
        """Make an untagged image of one layer from a tar stream, and return its id.

        Whatever the stream raises is raised here, and leaves no image: the engine sees a body that breaks off.
        """
        changes = [f"ENV {key}={value}" for key, value in environment.items()]
        changes += [f"LABEL {IMAGE_LABEL}={name}", 'CMD ["sh"]']
        with _engine_faults(f"import {name}"):
            answer = self._api.post(
                self._url("/images/create"),
                params={"fromSrc": "-", "changes": changes},
                headers={"Content-Type": "application/x-tar"},
                data=iter(stream),  # an iterator is sent as it comes; a list would be taken for a form
                timeout=IMPORT_SECONDS,
            )
        message = _last_message(answer)
        if not answer.ok or "error" in message:
            raise SandboxError(f"Docker could not import {name}: {message.get('error') or message.get('message')}")
        return str(message["status"])

    def tag(self, image: str, tag: str) -> None:
        """Let `tag` stand for the image with that id."""
        repository, version = parse_repository_tag(tag)
        with _engine_faults(f"tag {tag}"):
            self._api.tag(image, repository, version)

    def remove(self, image: str) -> bool:
        """Remove an image by id or tag. False when it is gone already, has other tags or is in use."""
        with _engine_faults(f"remove {image}"):
            try:
                self._api.remove_image(image)
            except APIError as fault:
                if fault.status_code in {404, 409}:
                    return False
                raise
        return True

    def try_out(self, image: str, script: str) -> str:
        """What a shell script prints in the image, run as builds are: unprivileged, read-only root, no network.

        Raises TrialFailedError when the script fails, takes over `TRIAL_SECONDS`, or the image has no /bin/sh.
        """
        with _engine_faults(f"try out {image}"):
            container = self._create_trial(image, script)["Id"]
            try:
                self._api.put_archive(container, WORKSPACE, tar.workspace_stream([], {}, uid=UID))
                self._api.start(container)
                code = self._api.wait(container, timeout=2 * TRIAL_SECONDS)["StatusCode"]
                said = self._api.logs(container, stdout=True, stderr=code != 0).decode(errors="replace").strip()
            except APIError as fault:
                # An image that no container can be made of fails here: the image's fault, not the engine's.
                raise TrialFailedError(fault.explanation or str(fault)) from fault
            finally:
                self._api.remove_container(container, force=True, v=True)
        if code != 0:
            raise TrialFailedError(f"exit {code}: {said[-500:]}")
        return said

    def discard_remains(self) -> None:
        """Remove what a preparation that was killed has left: an image it never tagged, a container that ended."""
        with _engine_faults("remove what an earlier run has left"):
            self._api.prune_containers(filters={"label": [TRIAL_LABEL], "until": _REMAINS_AFTER})
            self._api.prune_volumes(filters={"label": [TRIAL_LABEL]})  # those of containers that are there are in use
            self._api.prune_images(filters={"dangling": True, "label": [IMAGE_LABEL], "until": _REMAINS_AFTER})

    def _create_trial(self, image: str, script: str) -> dict[str, Any]:
        limits = self._api.create_host_config(
            # Without a name, so that it goes with its container.
            mounts=[Mount(WORKSPACE, None, type="volume", labels={TRIAL_LABEL: "1"})],
            network_mode="none",
            read_only=True,
            tmpfs={_TRIAL_FOLDER: "size=64m,mode=1777"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit="512m",
            pids_limit=128,
            init=not first_process().reaps,
        )
        container: dict[str, Any] = self._api.create_container(
            image,
            # In place of the image's own entry point, and as builds are started. The deadline outlives us.
            entrypoint=shell_argv(script, TRIAL_SECONDS),
            command=[],
            user=f"{UID}:{UID}",
            working_dir=_TRIAL_FOLDER,
            environment={"HOME": _TRIAL_FOLDER},
            labels={TRIAL_LABEL: settings.INSTALLATION},
            healthcheck={"test": ["NONE"]},
            host_config=limits,
        )
        return container

    def _url(self, path: str) -> str:
        return f"{self._api.base_url}/v{self._api.api_version}{path}"


@contextlib.contextmanager
def _engine_faults(doing: str) -> Iterator[None]:
    try:
        yield
    except FAULTS as fault:
        raise SandboxError(f"Docker could not {doing}: {fault}") from fault


def _follow(answer: requests.Response) -> None:
    """Read a pull to its end. Raises RegistryUnreachableError or ImageNotOfferedError."""
    if not answer.ok:
        raise _refusal(answer.status_code, str(_last_message(answer).get("message")))
    for line in answer.iter_lines():
        message = json.loads(line) if line else {}
        if "error" in message:
            # The status went out before the fault was known, so the words alone tell whose it is.
            unknown = any(words in message["error"] for words in ("not found", "unknown", "no matching manifest"))
            raise _refusal(404 if unknown else 500, message["error"])


def _refusal(status: int | None, message: str) -> RegistryUnreachableError | ImageNotOfferedError:
    """The engine answers 404 for an image that is not there or not ours, and 500 for a registry that is not."""
    text = " ".join(message.split())
    return ImageNotOfferedError(text) if status in {401, 403, 404} else RegistryUnreachableError(text)


def _last_message(answer: requests.Response) -> dict[str, Any]:
    lines: Sequence[str] = answer.text.strip().splitlines()
    try:
        message = json.loads(lines[-1]) if lines else {}
    except json.JSONDecodeError:
        message = {"message": lines[-1]}
    return message if isinstance(message, dict) else {}
