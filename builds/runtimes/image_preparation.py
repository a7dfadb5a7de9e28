"""The runtimes' images in this machine's engine: which are needed, and how a missing one is provided.

An image is pulled if a registry can be reached; otherwise it is built here from packages. Either way it is tried out
the way a build would run it, and only then gets the tag that builds use, so that a tag never points to an image that
does not run.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from typing import Literal

from django.conf import settings

from builds.runtimes.catalogue import RUNTIMES, find_runtime, resolve_version, runtime_tag
from builds.runtimes.registries import discover
from builds.runtimes.rootfs import UnbuildableError, Workshop, without_credentials
from builds.runtimes.runtime import Runtime
from builds.sandbox.contract import Registries, SandboxError
from builds.sandbox.image_store import ImageNotOfferedError, ImageStore, RegistryUnreachableError, TrialFailedError

TAGS = "chef-runtime/*"
# A typical machine has two cores and one disk; more builds at once would only slow each other down.
_BUILDS_AT_ONCE = 2

Report = Callable[[str], None]


class PreparationError(Exception):
    """Some images could neither be pulled nor built. The text has a line for each cause, with what to do."""


@dataclass(frozen=True)
class RuntimeImage:
    """One version of one runtime, and the names of its image: our tag and the public image."""

    runtime: str
    version: str

    @property
    def name(self) -> str:
        return f"{self.runtime} {self.version}"

    @property
    def tag(self) -> str:
        return runtime_tag(self.runtime, self.version)

    @property
    def public(self) -> str:
        return f"{_registry_prefix()}{find_runtime(self.runtime).image(self.version)}"


@dataclass(frozen=True)
class Prepared:
    """An image that is ready: how it was obtained, its id, and the seconds that took."""

    image: RuntimeImage
    how: Literal["present", "pulled", "built locally"]
    image_id: str
    seconds: float = 0.0

    def __str__(self) -> str:
        took = "" if self.how == "present" else f" in {self.seconds:.0f} s"
        return f"{self.image.name}: {self.how}{took}, {self.image_id[:19]}"


def runtime_images(names: Sequence[str] = ()) -> list[RuntimeImage]:
    """The images for names such as `node:20` or `node` (every version); all images without names.

    Raises UnknownRuntimeError.
    """
    found: dict[RuntimeImage, None] = {}  # an ordered set
    for name in names or tuple(RUNTIMES):
        runtime, _, version = name.partition(":")
        versions = (resolve_version(runtime, version),) if version else find_runtime(runtime).versions
        found.update(dict.fromkeys(RuntimeImage(runtime, each) for each in versions))
    return list(found)


def prepare(
    images: Sequence[RuntimeImage], *, store: ImageStore, force: bool = False, pull: bool = True, report: Report = print
) -> list[Prepared]:
    """Make every image ready, reporting a line for each, and return them in the order of completion.

    Present images are kept unless `force`. Raises PreparationError after all have been tried, and SandboxError.
    """
    present = {} if force else store.ids(TAGS)
    ready = [Prepared(image, "present", present[image.tag]) for image in images if image.tag in present]
    for prepared in ready:
        report(str(prepared))
    missing = _without(images, ready)
    if not missing:
        return ready
    store.discard_remains()
    reasons = dict.fromkeys(missing, "pulling is off")
    if pull:
        ready += _pull(missing, store, reasons, report)
    ready += _build(_without(missing, ready), store, reasons, report)
    return ready


def discover_registries(*, store: ImageStore, fresh: bool = False) -> Registries:
    """The registries that installations may reach; the prepared images supply what this machine cannot.

    The answers are cached, see `registries.discover`; `fresh` asks this machine's package managers again.
    """
    defaults = {
        runtime.package_index.name: partial(_default_registries, runtime, store)
        for runtime in RUNTIMES.values()
        if runtime.package_index and runtime.index_query
    }
    return discover(defaults=defaults, fresh=fresh)


def _without(images: Sequence[RuntimeImage], ready: Sequence[Prepared]) -> list[RuntimeImage]:
    done = {prepared.image for prepared in ready}
    return [image for image in images if image not in done]


def _pull(
    images: Sequence[RuntimeImage], store: ImageStore, reasons: dict[RuntimeImage, str], report: Report
) -> list[Prepared]:
    """Pull images until the registry turns out to be unreachable; `reasons` receives why an image was not pulled."""
    pulled = []
    for position, image in enumerate(images):
        try:
            if position == 0:
                store.ask_registry(image.public)
            pulled.append(_pull_one(image, store))
        except RegistryUnreachableError as fault:
            reasons.update(dict.fromkeys(images[position:], without_credentials(str(fault))))
            report(f"No registry can be reached ({reasons[image]}).")
            break
        except (ImageNotOfferedError, TrialFailedError) as fault:
            reasons[image] = without_credentials(str(fault))
        else:
            report(str(pulled[-1]))
    return pulled


def _pull_one(image: RuntimeImage, store: ImageStore) -> Prepared:
    """Raises RegistryUnreachableError, ImageNotOfferedError, or TrialFailedError if it does not match its name."""
    started = time.monotonic()
    before = store.find(image.public)
    candidate = store.pull(image.public)
    try:
        _adopt(candidate, image, store)
    except TrialFailedError:
        if candidate != before:
            store.remove(image.public)
        raise
    return Prepared(image, "pulled", candidate, time.monotonic() - started)


def _build(
    images: Sequence[RuntimeImage], store: ImageStore, reasons: dict[RuntimeImage, str], report: Report
) -> list[Prepared]:
    """Build images from packages, a few at a time. Raises PreparationError after the last if any failed."""
    built: list[Prepared] = []
    failures: dict[str, list[str]] = {}  # cause → the affected images, often all of them
    if not images:
        return built
    with (
        Workshop(folder=settings.DATA_DIR, architecture=store.architecture()) as workshop,
        ThreadPoolExecutor(_BUILDS_AT_ONCE) as pool,
    ):
        running = {pool.submit(_build_one, image, workshop, store): image for image in images}
        try:
            for done in as_completed(running):
                image = running[done]
                try:
                    built.append(done.result())
                    report(str(built[-1]))
                except (UnbuildableError, TrialFailedError, SandboxError, OSError) as fault:
                    why = f"not pulled ({reasons[image]}) and not built: {fault}"
                    failures.setdefault(why, []).append(image.name)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # interrupted: do not start the rest
            raise
    if failures:
        raise PreparationError("\n".join(f"{', '.join(sorted(names))}: {why}" for why, names in failures.items()))
    return built


def _build_one(image: RuntimeImage, workshop: Workshop, store: ImageStore) -> Prepared:
    started = time.monotonic()
    root = workshop.make(find_runtime(image.runtime).lay_out, image.version)
    image_id = store.import_tar(root.stream(), name=image.tag, environment=root.environment)
    try:
        _adopt(image_id, image, store)
    except BaseException:
        store.remove(image_id)
        raise
    return Prepared(image, "built locally", image_id, time.monotonic() - started)


def _adopt(candidate: str, image: RuntimeImage, store: ImageStore) -> None:
    """Give an image our tag if its tools run. Raises TrialFailedError. The previous image is removed if unused."""
    runtime = find_runtime(image.runtime)
    output = store.try_out(candidate, runtime.trial)
    if not output.startswith(runtime.trial_start.format(version=image.version)):
        raise TrialFailedError(f"{output.splitlines()[0] if output else 'nothing'} is not {image.name}")
    before = store.find(image.tag)
    store.tag(candidate, image.tag)
    if before not in {None, candidate}:
        store.remove(str(before))


def _registry_prefix() -> str:
    registry = str(settings.RUNTIME_REGISTRY).strip("/")
    return f"{registry}/" if registry else ""


def _default_registries(runtime: Runtime, store: ImageStore) -> list[str]:
    """The registry URLs that a runtime's image uses by default, the index first; empty without an image."""
    tag = runtime_tag(runtime.name, "")
    try:
        return store.try_out(tag, runtime.index_query).split() if store.find(tag) else []
    except TrialFailedError:
        return []
