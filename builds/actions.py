"""The verbs on builds. API, pages and admin call these, and so does `builds.generations`, after a generation."""

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
    """A new project with its environment, its first revision and its first build, all or nothing.

    `upload` is what projects.actions.add_revision takes. Raises its InvalidUploadError, and what queue_build raises.
    """
    project = create_project(by=by, name=name)
    set_environment(project, env=env, secrets=secrets)
    return submit_revision(project, by=by, priority=priority, is_external=is_external, **upload)


@transaction.atomic
def submit_project_with_webhook(*, webhook_url: str | None, **submission: Any) -> tuple[Build, str | None]:
    """The same, and an endpoint that is told of the results of its builds, with the endpoint's secret.

    Raises TooManyEndpointsError too.
    """
    build = submit_project(**submission)
    return build, set_project_webhook(build.project, webhook_url) if webhook_url else None


@transaction.atomic
def change_project(project: Project, **changes: Any) -> str | None:
    """What projects.actions.update_project changes; and `webhook_url`, which None takes away.

    Returns the secret of a webhook that is new. Raises TooManyEndpointsError, and what update_project raises.
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
    """A new snapshot of a project, and its build. Raises like submit_project."""
    return queue_build(add_revision(project, **upload), by=by, priority=priority, is_external=is_external)


@transaction.atomic
def submit_upload(upload: Upload, *, by: User, strategy: Mapping[str, Any], **of_new_project: Any) -> Build:
    """Build what was kept, which is then not kept any more: of two who ask at once, one gets a build.

    Of an upload for no project, `of_new_project` is what submit_project takes. Raises Upload.DoesNotExist for who comes
    second, and what submit_project raises.
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
    """The last revision's files as a new one that is built in another way. Raises like build_again."""
    return queue_build(with_strategy(_last_revision(project), strategy), by=by)


def _last_revision(project: Project) -> Revision:
    revision = project.revisions.order_by("-number").first()
    if revision is None:
        raise NothingToBuildError
    return revision


class NoExternalBuilderError(RefusalError):
    """This installation has no external builders that could take the build."""

    code = "no_outside_builder"

    def __init__(self) -> None:
        super().__init__(
            'This installation has no builders outside of it: send `"queue": "local"`, or have the operator set '
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
    """Queue a build of a revision. A worker is woken up after the commit; when that fails, the reaper does it later.

    `is_external`: whether builders outside of this system shall take it; None is as of the project's last build.
    `origin` is where it comes from, as columns of the build: retry_of. Raises QueueFullError, OwnerQueueFullError,
    NoExternalBuilderError and QuarantinedError. Builds that a fault puts back do not come here: they are never refused.
    """
    # The project's row is always locked before the owner's: whoever adds a revision holds it already.
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
    """Queue a build that somebody was promised with a generation: it is not refused, however full the queue is.

    Of a project in quarantine, it waits until that is over.

    `origin`: generation and repair_of.
    """
    return _queued(revision, by=by, **origin)


def _queued(revision: Revision, *, by: User, **columns: Any) -> Build:
    # The project's row is the lock that keeps two builds from taking one number.
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
    """Cancel a build that has not ended. False when it has, were it only a moment ago: it is left as it is then.

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
    """Take a running build from its worker and have it claimed anew; no attempt is counted against it.

    False when it does not run, were it only for a moment. The worker finds its lease gone within a second, and removes
    its container; whatever it still writes is refused, since the build does not run under its fence any more.
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
    """Let nothing of a project run until it is released. Returns how many builds were stopped and wait now."""
    with transaction.atomic():
        put_in_quarantine(project, by=by, reason=reason)
        # Locked: a claim that has begun is over then, and is undone; one that has not finds the quarantine.
        active = list(project.builds.active().select_for_update().order_by("pk"))
        return sum(hand_back_build(build) for build in active)


def release_project(project: Project) -> bool:
    """Let a project's builds run again. False when it was not in quarantine."""
    with transaction.atomic():
        released = bool(Quarantine.objects.filter(project=project).delete()[0])
        if released:
            LOCAL_BUILDS.wake_up_on_commit(LOCAL_BUILDS.jobs().filter(project=project, status=Status.QUEUED).count())
    return released


class BuildNotFinishedError(RefusalError):
    """The build has not ended, so there is nothing to try again."""

    code = "build_not_finished"


def retry_build(build: Build, *, by: User) -> Build:
    """Build a revision again, in the same queue. Raises BuildNotFinishedError, and what queue_build raises."""
    if not build.is_terminal:
        raise BuildNotFinishedError(f"The build is {build.status}: wait for its end, or cancel it first.")
    return queue_build(
        build.revision, by=by, priority=Priority(build.priority), is_external=build.is_external, retry_of=build
    )


def delete_project(project: Project, *, by: User) -> None:
    """Cancel what runs, then delete the project with all that belongs to it, stored bytes included.

    A worker that still runs one of its builds finds its lease gone, and removes its own container and outputs.
    """
    with transaction.atomic():
        # The lock under which builds are queued: none can come in between.
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
