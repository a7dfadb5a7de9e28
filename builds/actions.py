"""Actions on builds. API, pages and admin call these, and so does `builds.generations`, after a generation."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from builds.artifacts import discard_attempt
from builds.models import Artifact, Build, BuildEvent, Priority
from builds.queue.claims import LOCAL_BUILDS, queue_of
from builds.sites.publishing import delete_releases
from builds.verdicts.evidence import verdict
from builds.webhooks.endpoints import delete_endpoints_of, set_project_webhook
from builds.webhooks.outbox import tell_of
from chef.jobs.capacity import refuse_when_full
from chef.jobs.models import Status, TransitionRefusedError
from chef.refusals import RefusalError
from chef.storage.deletion import discard_keys
from projects.actions import add_revision, create_project, update_project, with_strategy
from projects.environment import Secret, set_environment
from projects.files.uploads import files_of
from projects.generations.actions import cancel_generation
from projects.models import Project, Quarantine, Revision, Upload
from projects.quarantine import put_in_quarantine, refuse_in_quarantine


@transaction.atomic
def submit_project(
    *,
    by: User,
    name: str,
    priority: Priority = Priority.NORMAL,
    is_external: bool = False,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, Secret] | None = None,
    **upload: Any,
) -> Build:
    """Create a project with its environment, first revision and first build, all or nothing.

    `upload` is what projects.actions.add_revision takes. Raises its InvalidUploadError, and what queue_build raises.
    """
    project = create_project(by=by, name=name)
    set_environment(project, env=env, secrets=secrets)
    return submit_revision(project, by=by, priority=priority, is_external=is_external, **upload)


@transaction.atomic
def submit_project_with_webhook(*, webhook_url: str | None, **submission: Any) -> tuple[Build, str | None]:
    """Like submit_project, plus an endpoint that receives the results of its builds, and the endpoint's secret.

    Raises TooManyEndpointsError too.
    """
    build = submit_project(**submission)
    return build, set_project_webhook(build.project, webhook_url) if webhook_url else None


@transaction.atomic
def change_project(project: Project, **changes: Any) -> str | None:
    """Change what projects.actions.update_project changes, and `webhook_url`, which None removes.

    Returns the secret of a new webhook. Raises TooManyEndpointsError, and what update_project raises.
    """
    has_webhook, url = "webhook_url" in changes, changes.pop("webhook_url", None)
    update_project(project, **changes)
    return set_project_webhook(project, url) if has_webhook else None


@transaction.atomic
def submit_revision(
    project: Project,
    *,
    by: User,
    priority: Priority = Priority.NORMAL,
    is_external: bool | None = None,
    **upload: Any,
) -> Build:
    """Create a project's next revision and its build. Raises what submit_project raises."""
    return queue_build(add_revision(project, **upload), by=by, priority=priority, is_external=is_external)


@transaction.atomic
def submit_upload(upload: Upload, *, by: User, strategy: Mapping[str, Any], **of_new_project: Any) -> Build:
    """Build an upload and delete it: of two concurrent requests, only one gets a build.

    For an upload without a project, `of_new_project` holds the arguments for submit_project. Raises Upload.DoesNotExist
    for the second request, and what submit_project raises.
    """
    locked = Upload.objects.select_for_update(of=("self",)).select_related("project").get(pk=upload.pk)
    revision: dict[str, Any] = {"files": files_of(locked), "dependencies": {}, "strategy": strategy}
    if locked.project:
        build = submit_revision(locked.project, by=by, **revision)
    else:
        build = submit_project(by=by, **revision, **of_new_project)
    locked.delete()
    return build


class NothingToBuildError(RefusalError):
    """The project has no files yet."""

    code = "no_files"

    def __init__(self) -> None:
        super().__init__("The project has no files yet: wait for its generation, or send files as a revision.")


def build_again(project: Project, *, by: User) -> Build:
    """Build the project's last revision. Raises NothingToBuildError, and what queue_build raises."""
    return queue_build(_last_revision(project), by=by)


@transaction.atomic
def change_strategy(project: Project, strategy: Mapping[str, Any], *, by: User) -> Build:
    """Build the last revision's files as a new revision with another strategy. Raises what build_again raises."""
    return queue_build(with_strategy(_last_revision(project), strategy), by=by)


def _last_revision(project: Project) -> Revision:
    revision = project.revisions.order_by("-number").first()
    if revision is None:
        raise NothingToBuildError
    return revision


class NoExternalBuilderError(RefusalError):
    """This installation has no external builders."""

    code = "no_outside_builder"

    def __init__(self) -> None:
        super().__init__(
            'This installation has no external builders: send `"queue": "local"`, or have the operator set '
            "CHEF_WORKER_SECRET."
        )


@transaction.atomic
def queue_build(
    revision: Revision,
    *,
    by: User,
    priority: Priority = Priority.NORMAL,
    is_external: bool | None = None,
    **origin: Any,
) -> Build:
    """Queue a build of a revision. A worker is woken up after the commit; if that fails, the reaper does it later.

    `is_external`: whether it goes to external builders; None: like the project's last build. `origin`: columns that say
    where the build comes from, such as retry_of. Raises QueueFullError, OwnerQueueFullError, NoExternalBuilderError and
    QuarantinedError. Builds requeued after a fault do not pass through here: they are never refused.
    """
    # Always lock the project's row before the owner's: adding a revision has locked it already.
    project = Project.objects.select_for_update().get(pk=revision.project_id)
    refuse_in_quarantine(project)
    if is_external is None:
        is_external = bool(project.builds.order_by("-number").values_list("is_external", flat=True).first())
    if is_external and not settings.WORKER_SECRETS:
        raise NoExternalBuilderError
    refuse_when_full(queue_of(is_external=is_external), project.owner_id)
    return _queued(revision, by=by, priority=priority, is_external=is_external, **origin)


@transaction.atomic
def queue_promised_build(revision: Revision, *, by: User, **origin: Any) -> Build:
    """Queue a build that was promised with a generation: it is accepted even if the queue is full.

    If the project is in quarantine, the build waits until that is over.

    `origin`: generation and repair_of.
    """
    return _queued(revision, by=by, **origin)


def _queued(revision: Revision, *, by: User, **columns: Any) -> Build:
    # Lock the project's row, so that two builds cannot take the same number.
    project = Project.objects.select_for_update().get(pk=revision.project_id)
    last = project.builds.aggregate(last=Max("number"))["last"] or 0
    build = Build.objects.create(
        project=project,
        revision=revision,
        owner_id=project.owner_id,
        number=last + 1,
        **columns,
    )
    BuildEvent.objects.create(
        build=build,
        kind=BuildEvent.Kind.STATUS,
        to_status=Status.QUEUED,
        fence=0,
        data={"by": by.get_username()},
    )
    queue_of(is_external=build.is_external).wake_up_on_commit()
    return build


def cancel_build(build: Build, *, by: User) -> bool:
    """Cancel a build that has not ended. False if it has, and nothing changes then.

    The worker notices within a second.
    """
    while not build.is_terminal:
        reason = verdict("cancelled", phase=build.phase, evidence=[f"cancelled by {by.get_username()}"])
        try:
            build.transition_to(Status.CANCELLED, verdict=reason.as_json())
        except TransitionRefusedError:
            build.refresh_from_db()
        else:
            return True
    return False


def hand_back_build(build: Build) -> bool:
    """Take a running build from its worker and requeue it; no attempt is counted.

    False if it does not run. The worker finds its lease gone within a second, and removes its container; its further
    writes are refused, because the build no longer runs under its fence.
    """
    while build.status == Status.RUNNING:
        fence = build.fence
        try:
            with transaction.atomic():
                build.transition_to(
                    Status.QUEUED, outcome="handed_back", available_at=timezone.now(), phase="", progress=0
                )
                transaction.on_commit(partial(discard_attempt, build.pk, fence))
                queue_of(is_external=build.is_external).wake_up_on_commit()
        except TransitionRefusedError:
            build.refresh_from_db()
        else:
            return True
    return False


def quarantine_project(project: Project, *, by: User, reason: str) -> int:
    """Run nothing of a project until it is released. Returns how many builds were stopped and requeued."""
    with transaction.atomic():
        put_in_quarantine(project, by=by, reason=reason)
        # Locking waits for a claim in progress, which is undone below; later claims see the quarantine.
        active = list(project.builds.active().select_for_update().order_by("pk"))
        return sum(hand_back_build(build) for build in active)


def release_project(project: Project) -> bool:
    """Let a project's builds run again. False if it was not in quarantine."""
    with transaction.atomic():
        released = bool(Quarantine.objects.filter(project=project).delete()[0])
        if released:
            LOCAL_BUILDS.wake_up_on_commit(LOCAL_BUILDS.jobs().filter(project=project, status=Status.QUEUED).count())
    return released


class BuildNotFinishedError(RefusalError):
    """The build has not ended, so it cannot be retried."""

    code = "build_not_finished"


def retry_build(build: Build, *, by: User) -> Build:
    """Build a revision again, in the same queue. Raises BuildNotFinishedError, and what queue_build raises."""
    if not build.is_terminal:
        raise BuildNotFinishedError(f"The build is {build.status}: wait for its end, or cancel it first.")
    return queue_build(
        build.revision, by=by, priority=Priority(build.priority), is_external=build.is_external, retry_of=build
    )


def delete_project(project: Project, *, by: User) -> None:
    """Cancel its builds, then delete the project with everything that belongs to it, stored bytes included.

    A worker that still runs one of its builds finds its lease gone, and removes the container and outputs.
    """
    with transaction.atomic():
        # Queueing builds takes this lock too: none can be added meanwhile.
        Project.objects.select_for_update().get(pk=project.pk)
        for generation in project.generations.active():
            cancel_generation(generation, by=by)
        for build in project.builds.active():
            cancel_build(build, by=by)
        tell_of(project)
        delete_releases(project)
        delete_endpoints_of(project)
        keys = list(Artifact.objects.filter(build__project=project).values_list("storage_key", flat=True))
        project.builds.all().delete()
        project.delete()
        transaction.on_commit(partial(discard_keys, keys))
