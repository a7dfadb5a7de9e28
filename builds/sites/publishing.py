"""Actions on sites: publish a build, make another release live, take a site down, preview a build."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils import timezone
from django.utils.text import slugify

from builds.models import Artifact, Build, EncodedArtifact, Preview, Release, Site, SiteName
from builds.site_names import MAX_SLUG, slug_fault
from builds.sites import rules
from builds.sites.compression import compress
from builds.sites.lookup import forget_sites
from chef.jobs.models import Status
from chef.refusals import Reason, RefusalError
from chef.storage.deletion import discard_keys
from projects.models import Project

_INDEX = "index.html"
_MOST_PAGES = 20_000
_MOST_OF_NAME = MAX_SLUG - 13  # of a project's name: leaves room for a suffix that makes it unique


class NotServableError(RefusalError):
    """The build has no output that a browser can open; the text says what to do."""

    code = "not_servable"


class InvalidSlugError(RefusalError):
    """A site cannot have this name."""

    code, status = "invalid_slug", 400

    def __init__(self, detail: str) -> None:
        super().__init__(detail, reasons=[Reason(self.code, detail, ("slug",))])


class SlugTakenError(RefusalError):
    """The name is or was used by another site."""

    code = "slug_taken"

    def __init__(self, slug: str) -> None:
        detail = f"The name {slug!r} is or was used by another site: choose another name."
        super().__init__(detail, reasons=[Reason(self.code, detail, ("slug",))])


@dataclass(frozen=True)
class _Output:
    """A build's output as it will be served."""

    root: str
    single_page: bool
    rules: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def columns(self) -> dict[str, Any]:
        return {"root": self.root, "single_page": self.single_page, "rules": self.rules}


def publish_build(
    build: Build, *, by: User, slug: str = "", single_page: bool | None = None
) -> tuple[Release, list[str]]:
    """Make a release of a completed build, and make it live. Returns (release, warnings about its rules).

    Raises NotServableError, InvalidSlugError and SlugTakenError; nothing is changed then.
    """
    if slug and (fault := slug_fault(slug)):
        raise InvalidSlugError(fault)
    output = _output_of(build, single_page)
    compress(_below(build, output.root).filter(encoded=None))
    with transaction.atomic():
        project = Project.objects.select_for_update().get(pk=build.project_id)
        _refuse_pruned(Build.objects.only("pruned_at").get(pk=build.pk))  # it may have been pruned since we looked
        site = Site.objects.filter(project=project).select_related("name").first()
        name = site.name if site and slug in ("", site.name_id) else _take_name(project, slug)
        last = project.releases.aggregate(last=Max("number"))["last"] or 0
        release = Release.objects.create(
            project=project, number=last + 1, build=build, created_by=by, **output.columns()
        )
        Site.objects.update_or_create(project=project, defaults={"name": name, "live": release})
        transaction.on_commit(forget_sites)
    return release, output.warnings


def build_to_publish(project: Project) -> Build:
    """The project's last completed build. Raises NotServableError when there is none."""
    build = project.builds.filter(status=Status.COMPLETED).order_by("-number").first()
    if build is None:
        raise NotServableError("The project has no completed build yet: wait for one, then publish it.")
    return build


def activate_release(release: Release) -> None:
    """Make a release live, newer or older. Idempotent."""
    with transaction.atomic():
        Site.objects.filter(project=release.project_id).update(live=release, changed_at=timezone.now())
        transaction.on_commit(forget_sites)


def take_down(project: Project) -> None:
    """Take the site down. The releases and their permanent names stay. Idempotent."""
    with transaction.atomic():
        Site.objects.filter(project=project).update(live=None, changed_at=timezone.now())
        transaction.on_commit(forget_sites)


def make_preview(build: Build, *, by: User, seconds: int, single_page: bool | None = None) -> Preview:
    """Serve a completed build's output under an unguessable name for a limited time. Raises NotServableError."""
    output = _output_of(build, single_page)
    expires_at = timezone.now() + timedelta(seconds=seconds)
    return Preview.objects.create(
        build=build, token=secrets.token_hex(16), expires_at=expires_at, created_by=by, **output.columns()
    )


def forget_old_previews() -> int:
    """Delete expired previews. Returns how many."""
    return Preview.objects.filter(expires_at__lt=timezone.now()).delete()[0]


def stored_keys(project: Project) -> list[str]:
    """Where the compressed forms of a project's artifacts are kept."""
    rows = EncodedArtifact.objects.filter(artifact__build__project=project)
    return list(rows.values_list("storage_key", flat=True))


def delete_releases(project: Project) -> None:
    """Delete the project's sites with the stored bytes that only they need. Call it in that transaction."""
    transaction.on_commit(partial(discard_keys, stored_keys(project)))
    transaction.on_commit(forget_sites)
    Site.objects.filter(project=project).delete()
    project.releases.all().delete()


# --- What is served ----------------------------------------------------------------------------------------------


def _output_of(build: Build, single_page: bool | None) -> _Output:
    if build.status != Status.COMPLETED:
        raise NotServableError(f"The build is {build.status}: only a completed build can be opened in a browser.")
    _refuse_pruned(build)
    root = _root_of(build)
    found, warnings = rules.parse(
        _content(build, root, rules.HEADERS_FILE), _content(build, root, rules.REDIRECTS_FILE)
    )
    return _Output(root, _is_single_page(build, root) if single_page is None else single_page, found, warnings)


def _refuse_pruned(build: Build) -> None:
    if build.pruned_at:
        raise NotServableError("The operator has removed this build's artifacts: build the revision again.")


def _root_of(build: Build) -> str:
    """The first output folder with an index page; if there is none, the topmost folder that has one."""
    outputs = [output.strip("/") for output in (build.plan or {}).get("outputs", [])]
    pages = list(_artifacts(build).filter(name__endswith=_INDEX).values_list("name", flat=True)[:_MOST_PAGES])
    folders = [page.removesuffix(_INDEX).rstrip("/") for page in pages if page.rpartition("/")[2] == _INDEX]
    if not folders:
        raise NotServableError(
            f"The build's output has no {_INDEX}: make the build write one, and name its folder in `outputs`."
        )
    by_output = [output for output in ("" if each == "." else each for each in outputs) if output in folders]
    return by_output[0] if by_output else min(folders, key=lambda folder: (folder.count("/"), folder))


def _is_single_page(build: Build, root: str) -> bool:
    """Whether it looks like one: a single page that loads a script, and no 404 page."""
    pages = list(_below(build, root).filter(name__endswith=".html").values_list("name", flat=True)[:2])
    page = _content(build, root, _INDEX) or b""
    return len(pages) == 1 and b"<script" in page


def _content(build: Build, root: str, name: str) -> bytes | None:
    row = _artifacts(build).filter(name=_join(root, name), size__lte=rules.MAX_BYTES + 1).first()
    if row is None:
        return None
    with default_storage.open(row.storage_key) as file:
        return bytes(file.read())


def _artifacts(build: Build) -> "QuerySet[Artifact]":
    return Artifact.objects.filter(build=build, attempt=build.fence)


def _below(build: Build, root: str) -> "QuerySet[Artifact]":
    rows = _artifacts(build)
    return rows.filter(name__startswith=f"{root}/") if root else rows


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


# --- What it is called -------------------------------------------------------------------------------------------


def _take_name(project: Project, slug: str) -> SiteName:
    """The requested slug, or one made from the project's name. Raises SlugTakenError."""
    for candidate in [slug] if slug else _candidates(project):
        if name := _taken(project, candidate):
            return name
    raise SlugTakenError(slug)


def _candidates(project: Project) -> Sequence[str]:
    own, words = project.pk.hex, re.findall("[a-z0-9]+", slugify(project.name)) or ["site"]
    while len(words) > 1 and len("-".join(words)) > _MOST_OF_NAME:
        words.pop()
    name = "-".join(words)[:_MOST_OF_NAME]
    return [each for each in (name, f"{name}-{own[:6]}", f"{name}-{own[:12]}", own) if not slug_fault(each)]


def _taken(project: Project, slug: str) -> SiteName | None:
    """The name, if the project has it or can take it; None if it belongs to another project."""
    name, _ = SiteName.objects.select_for_update().get_or_create(
        slug=slug, defaults={"owner_id": project.owner_id, "project": project}
    )
    if name.project_id is None and name.owner_id == project.owner_id:  # of a deleted project of the same owner
        name.project = project
        name.save(update_fields=["project"])
    return name if name.project_id == project.pk else None
