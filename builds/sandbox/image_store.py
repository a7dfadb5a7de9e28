"""Runtime images in the Docker engine: find, pull, import, try out, tag and remove them.

Which images are needed is up to `builds.runtimes.image_preparation`, how their files are made to
`builds.runtimes.rootfs`.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import requests
from django.conf import settings

from builds.sandbox import workspace_tar
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

# A registry that takes longer than this for one manifest would be too slow for all the layers.
REGISTRY_SECONDS = 8
# Of silence, not in total: the engine reports progress several times a second while it downloads and unpacks.
PULL_SILENCE_SECONDS = 60
IMPORT_SECONDS = 180
TRIAL_SECONDS = 60
_TRIAL_FOLDER = "/tmp"  # noqa: S108  (inside the container, not this machine's)

IMAGE_LABEL = "chef.runtime"
TRIAL_LABEL = "chef.trial"
# Long enough that nothing of a running preparation is mistaken for leftovers of a killed one.
_REMAINS_AFTER = "15m"


class RegistryUnreachableError(Exception):
    """The registry did not respond, or the connection broke: other images will fail too."""


class ImageNotOfferedError(Exception):
    """The registry responded, but does not have this image or denies access to it."""


class TrialFailedError(Exception):
    """An image's tools do not run in a sealed container. The text is their output."""


class ImageStore:
    """The images in the sandbox's engine. Every call raises SandboxError if the engine fails."""

    def __init__(self) -> None:
        with _engine_faults("be reached"):
            first_process().require(architecture())
            self._api = new_client()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._api.close()

    def architecture(self) -> str:
        """The engine's processor by Debian's name: `amd64`, `arm64`."""
        return architecture()

    def ids(self, pattern: str) -> dict[str, str]:
        """The image id (`sha256:...`) by tag, for tags whose repository matches, e.g. `chef-runtime/*`."""
        with _engine_faults("list its images"):
            images = self._api.images(filters={"reference": pattern})
        return {tag: image["Id"] for image in images for tag in image["RepoTags"] or ()}

    def find(self, reference: str) -> str | None:
        """The id of the engine's image with that name, or None."""
        with _engine_faults(f"look up {reference}"):
            try:
                return str(self._api.inspect_image(reference)["Id"])
            except ImageNotFound:
                return None

    def ask_registry(self, reference: str) -> None:
        """Check quickly that the registry responds. Raises RegistryUnreachableError or ImageNotOfferedError.

        If a registry drops packets, a pull is silent for half a minute; this asks only for one manifest.
        """
        with _engine_faults("be reached"), contextlib.closing(new_client()) as api:
            api.timeout = REGISTRY_SECONDS
            try:
                api.inspect_distribution(reference)
            except APIError as fault:
                raise _refusal(fault.status_code, fault.explanation or str(fault)) from fault
            except requests.RequestException as fault:
                raise RegistryUnreachableError(f"no response within {REGISTRY_SECONDS} s") from fault

    def pull(self, reference: str) -> str:
        """Pull an image and return its id. Raises RegistryUnreachableError or ImageNotOfferedError.

        The SDK's `pull` has no time-out, so the same request is made here with one.
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
            raise RegistryUnreachableError(
                f"no progress for {PULL_SILENCE_SECONDS} s, or the connection broke, while pulling"
            ) from fault
        image = self.find(reference)
        if image is None:
            raise ImageNotOfferedError(f"{reference} is not in the engine after its pull")
        return image

    def import_tar(self, stream: Iterable[bytes], *, name: str, environment: Mapping[str, str]) -> str:
        """Make an untagged image of one layer from a tar stream, and return its id.

        Errors of the stream are raised here and leave no image: the engine sees an incomplete request.
        """
        changes = [f"ENV {key}={value}" for key, value in environment.items()]
        changes += [f"LABEL {IMAGE_LABEL}={name}", 'CMD ["sh"]']
        with _engine_faults(f"import {name}"):
            answer = self._api.post(
                self._url("/images/create"),
                params={"fromSrc": "-", "changes": changes},
                headers={"Content-Type": "application/x-tar"},
                data=iter(stream),  # an iterator is streamed; a list would be sent as a form
                timeout=IMPORT_SECONDS,
            )
        message = _last_message(answer)
        if not answer.ok or "error" in message:
            raise SandboxError(f"Docker could not import {name}: {message.get('error') or message.get('message')}")
        return str(message["status"])

    def tag(self, image: str, tag: str) -> None:
        """Point `tag` to the image with that id."""
        repository, version = parse_repository_tag(tag)
        with _engine_faults(f"tag {tag}"):
            self._api.tag(image, repository, version)

    def remove(self, image: str) -> bool:
        """Remove an image by id or tag. False if it is missing, has other tags or is in use."""
        with _engine_faults(f"remove {image}"):
            try:
                self._api.remove_image(image)
            except APIError as fault:
                if fault.status_code in {404, 409}:
                    return False
                raise
        return True

    def try_out(self, image: str, script: str) -> str:
        """The output of a shell script in the image, run the way builds are: unprivileged, read-only root, no network.

        Raises TrialFailedError if the script fails, takes over `TRIAL_SECONDS`, or the image has no /bin/sh.
        """
        with _engine_faults(f"try out {image}"):
            container = self._create_trial(image, script)["Id"]
            try:
                self._api.put_archive(container, WORKSPACE, workspace_tar.workspace_stream([], {}, uid=UID))
                self._api.start(container)
                code = self._api.wait(container, timeout=2 * TRIAL_SECONDS)["StatusCode"]
                output = self._api.logs(container, stdout=True, stderr=code != 0).decode(errors="replace").strip()
            except APIError as fault:
                # Fails here if no container can run from the image: an error of the image, not the engine.
                raise TrialFailedError(fault.explanation or str(fault)) from fault
            finally:
                self._api.remove_container(container, force=True, v=True)
        if code != 0:
            raise TrialFailedError(f"exit code {code}: {output[-500:]}")
        return output

    def discard_remains(self) -> None:
        """Remove leftovers of a killed preparation: untagged images and ended containers."""
        with _engine_faults("remove leftovers of an earlier run"):
            self._api.prune_containers(filters={"label": [TRIAL_LABEL], "until": _REMAINS_AFTER})
            self._api.prune_volumes(
                filters={"label": [TRIAL_LABEL]}
            )  # volumes of existing containers are in use and stay
            self._api.prune_images(filters={"dangling": True, "label": [IMAGE_LABEL], "until": _REMAINS_AFTER})

    def _create_trial(self, image: str, script: str) -> dict[str, Any]:
        limits = self._api.create_host_config(
            # Unnamed, so that it is removed with its container.
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
            # Replaces the image's entry point, as for builds. The deadline applies even if this process dies.
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
            # The status was sent before the error occurred, so only the text shows its cause.
            unknown = any(words in message["error"] for words in ("not found", "unknown", "no matching manifest"))
            raise _refusal(404 if unknown else 500, message["error"])


def _refusal(status: int | None, message: str) -> RegistryUnreachableError | ImageNotOfferedError:
    """The error for a status: 404 for a missing or private image, 500 for an unreachable registry."""
    text = " ".join(message.split())
    return ImageNotOfferedError(text) if status in {401, 403, 404} else RegistryUnreachableError(text)


def _last_message(answer: requests.Response) -> dict[str, Any]:
    lines: Sequence[str] = answer.text.strip().splitlines()
    try:
        message = json.loads(lines[-1]) if lines else {}
    except json.JSONDecodeError:
        message = {"message": lines[-1]}
    return message if isinstance(message, dict) else {}
