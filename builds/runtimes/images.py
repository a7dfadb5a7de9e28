"""The runtimes' images on this machine's engine: which there should be, and how a missing one is had.

A registry's image is taken when a registry answers; else the image is made here from packages. Either way it is tried
out as a build would run it, and only then gets the tag that builds look for, so that a tag never stands for an image
that does not run.
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
from builds.sandbox.images import ImageNotOfferedError, ImageStore, RegistryUnreachableError, TrialFailedError

TAGS = "chef-runtime/*"
# Two cores and one disk are the usual machine; more at once only wait for each other.
_BUILDS_AT_ONCE = 2

Report = Callable[[str], None]


class PreparationError(Exception):
    """Some images could be had neither way. The text has a line for each cause, with what to do."""


@dataclass(frozen=True)
class RuntimeImage:
    """One version of one runtime, and the names of its image: ours, and the public one behind it."""

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
    """An image that is ready: how it was had, its id, and the seconds that took."""

    image: RuntimeImage
    how: Literal["present", "pulled", "built locally"]
    image_id: str
    seconds: float = 0.0

    def __str__(self) -> str:
        took = "" if self.how == "present" else f" in {self.seconds:.0f} s"
        return f"{self.image.name}: {self.how}{took}, {self.image_id[:19]}"


def runtime_images(names: Sequence[str] = ()) -> list[RuntimeImage]:
    """The images by names such as `node:20` or `node` (every version); all without a name.

    Raises UnknownRuntimeError.
    """
    found: dict[RuntimeImage, None] = {}  # a set that keeps its order
    for name in names or tuple(RUNTIMES):
        runtime, _, version = name.partition(":")
        versions = (resolve_version(runtime, version),) if version else find_runtime(runtime).versions
        found.update(dict.fromkeys(RuntimeImage(runtime, each) for each in versions))
    return list(found)


def prepare(
    images: Sequence[RuntimeImage], *, store: ImageStore, force: bool = False, pull: bool = True, report: Report = print
) -> list[Prepared]:
    """Make every image ready, telling `report` a line for each, and return them in the order they became so.

    Those present are left alone unless `force`. Raises PreparationError after all were tried, and SandboxError.
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
    """The registries that installations may reach; the prepared images tell what this machine cannot.

    Asks the images once, and this machine's package managers only if `fresh` or first: see `registries.discover`.
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
    """Pull what the registry has, until it is found unreachable; `reasons` keeps why for each that it has not."""
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
    """Raises RegistryUnreachableError, ImageNotOfferedError, or TrialFailedError when it is not what its name says."""
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
    """Build images from packages, a few at a time. Raises PreparationError when all have ended."""
    built: list[Prepared] = []
    failures: dict[str, list[str]] = {}  # what went wrong → the images concerned, often all of them
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
            pool.shutdown(wait=False, cancel_futures=True)  # interrupted: what has not started need not
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
    """Tag an image once its own tools have run; remove the one it replaces if unused. Raises TrialFailedError."""
    runtime = find_runtime(image.runtime)
    said = store.try_out(candidate, runtime.trial)
    if not said.startswith(runtime.trial_start.format(version=image.version)):
        raise TrialFailedError(f"{said.splitlines()[0] if said else 'nothing'} is not {image.name}")
    before = store.find(image.tag)
    store.tag(candidate, image.tag)
    if before not in {None, candidate}:
        store.remove(str(before))


def _registry_prefix() -> str:
    registry = str(settings.RUNTIME_REGISTRY).strip("/")
    return f"{registry}/" if registry else ""


def _default_registries(runtime: Runtime, store: ImageStore) -> list[str]:
    """The registries' URLs that a runtime's image uses by itself, the index first; none when there is no such image."""
    tag = runtime_tag(runtime.name, "")
    try:
        return store.try_out(tag, runtime.index_query).split() if store.find(tag) else []
    except TrialFailedError:
        return []
