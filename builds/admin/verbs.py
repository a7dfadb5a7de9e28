"""Staff operations on builds, and on projects as far as they affect builds. Each calls the same action as the API."""

from django.contrib.auth.models import User
from django.template.defaultfilters import filesizeformat

from builds.actions import (
    cancel_build,
    delete_project,
    hand_back_build,
    quarantine_project,
    release_project,
    retry_build,
)
from builds.models import Build
from builds.pruning import prune_build
from builds.pruning import why_not as why_not_prune
from builds.sites.publishing import publish_build
from chef.jobs.models import Status
from chef.refusals import RefusalError
from projects.admin.operations import Operation
from projects.models import Project

OPERATE = "builds.operate_build"


def _why_not_retry(build: Build) -> str:
    if not build.is_terminal:
        return f"It is {build.status}: only what has ended can be retried."
    return _why_held(build.project)


def _why_held(project: Project) -> str:
    return "Its project is in quarantine: release it first." if is_held(project) else ""


def is_held(project: Project) -> bool:
    """Whether it is in quarantine; read the project with select_related("quarantine")."""
    return hasattr(project, "quarantine")


def _retry(build: Build, by: User, reason: str) -> str:
    again = retry_build(build, by=by)
    return f"Retried as #{again.number} ({again.pk})."


def _cancel(build: Build, by: User, reason: str) -> str:
    was = build.status
    if not cancel_build(build, by=by):
        raise RefusalError(f"It has ended meanwhile: it is {build.status}.")
    return f"Cancelled; it was {was}."


def _hand_back(build: Build, by: User, reason: str) -> str:
    worker, attempt = build.worker, build.fence
    if not hand_back_build(build):
        raise RefusalError(f"It does not run any more: it is {build.status}.")
    return f"Handed back to the queue: attempt {attempt} was taken from {worker}."


def _publish(build: Build, by: User, reason: str) -> str:
    release, warnings = publish_build(build, by=by)
    return " ".join([f"Published as release {release.number}, which is live now.", *warnings])


def _prune(build: Build, by: User, reason: str) -> str:
    freed = prune_build(build)
    kept, logged = filesizeformat(freed.artifact_bytes), filesizeformat(freed.log_bytes)
    return f"Pruned: {freed.artifacts} artifacts of {kept} and {logged} of log are gone."


def _quarantine(project: Project, by: User, reason: str) -> str:
    stopped = quarantine_project(project, by=by, reason=reason)
    return f"Put in quarantine; {stopped} running builds were stopped and wait now."


def _release(project: Project, by: User, reason: str) -> str:
    if not release_project(project):
        raise RefusalError("It is not in quarantine any more.")
    return "Released from quarantine: its builds run again."


def _why_not_publish(build: Build) -> str:
    if build.status != Status.COMPLETED:
        return f"It is {build.status}: only what has completed can be published."
    return "It has been pruned: its artifacts are gone." if build.pruned_at else ""


def _delete(project: Project, by: User, reason: str) -> str:
    name = project.name
    delete_project(project, by=by)
    return f"Deleted the project {name} with all that belonged to it."


BUILD_OPERATIONS: tuple[Operation[Build], ...] = (
    Operation(
        name="retry",
        label="Retry",
        icon="retry",
        permission=OPERATE,
        explain="Each is built again: a new build of the same revision, in the same queue. This one stays as it is.",
        why_not=_why_not_retry,
        do=_retry,
    ),
    Operation(
        name="cancel",
        label="Cancel",
        icon="stop",
        permission=OPERATE,
        explain="Each ends as cancelled, at once. What runs is stopped within seconds, and its outputs are lost.",
        why_not=lambda build: f"It has ended: it is {build.status}." if build.is_terminal else "",
        do=_cancel,
        is_dangerous=True,
    ),
    Operation(
        name="hand-back",
        label="Hand back to the queue",
        icon="up",
        permission=OPERATE,
        explain="Each is taken from its worker and waits for another one; it starts from the beginning. No attempt is "
        "counted against it, and whatever its worker still writes is refused.",
        why_not=lambda build: "" if build.status == Status.RUNNING else f"It does not run: it is {build.status}.",
        do=_hand_back,
    ),
    Operation(
        name="quarantine",
        label="Quarantine its project",
        icon="warning",
        permission=OPERATE,
        explain="Of the project of each, nothing is built or generated until it is released. Builds that run are "
        "stopped and wait; new ones are refused. The owner is told that the operator has done it, not why.",
        why_not=lambda build: "Its project is in quarantine already." if is_held(build.project) else "",
        do=lambda build, by, reason: _quarantine(build.project, by, reason),
        asks_reason=True,
        is_dangerous=True,
    ),
    Operation(
        name="release",
        label="Release its project",
        icon="check",
        permission=OPERATE,
        explain="The project of each comes out of quarantine, and its builds run again.",
        why_not=lambda build: "" if is_held(build.project) else "Its project is not in quarantine.",
        do=lambda build, by, reason: _release(build.project, by, reason),
    ),
    Operation(
        name="publish",
        label="Publish",
        icon="rocket",
        permission=OPERATE,
        explain="Each becomes a new release of its project, which is live at once in place of the one before.",
        why_not=_why_not_publish,
        do=_publish,
        is_atomic=False,  # files are compressed and stored first
    ),
    Operation(
        name="prune",
        label="Prune",
        icon="trash",
        permission=OPERATE,
        explain="The log and the artifacts of each are removed for good. The record of what happened stays. What is "
        "published, or previewed just now, is left out.",
        why_not=why_not_prune,
        do=_prune,
        is_dangerous=True,
    ),
)

PROJECT_OPERATIONS: tuple[Operation[Project], ...] = (
    Operation(
        name="quarantine",
        label="Quarantine",
        icon="warning",
        permission=OPERATE,
        explain="Of each, nothing is built or generated until it is released. Builds that run are stopped and wait; "
        "new ones are refused. The owner is told that the operator has done it, not why.",
        why_not=lambda project: "It is in quarantine already." if is_held(project) else "",
        do=_quarantine,
        asks_reason=True,
        is_dangerous=True,
    ),
    Operation(
        name="release",
        label="Release",
        icon="check",
        permission=OPERATE,
        explain="Each comes out of quarantine, and its builds run again.",
        why_not=lambda project: "" if is_held(project) else "It is not in quarantine.",
        do=_release,
    ),
    Operation(
        name="delete",
        label="Delete",
        icon="trash",
        permission="projects.delete_project",
        explain="Each is deleted with its revisions, builds, logs, artifacts, releases and webhooks, for good. What "
        "runs is cancelled, and its site is taken down.",
        why_not=lambda project: "",
        do=_delete,
        is_dangerous=True,
    ),
)
