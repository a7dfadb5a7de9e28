"""The verbs on builds. API, pages, admin and tasks all call these."""

from functools import partial
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max

from builds.models import Build, BuildEvent, Priority, Status, TransitionRefused
from builds.queue import ring
from builds.verdicts import verdict
from projects.actions import add_revision, create_project
from projects.models import Project, Revision


@transaction.atomic
def submit_project(*, by: User, name: str, priority: Priority = Priority.NORMAL, **upload: Any) -> Build:
    """A new project, its first revision and its first build, all or nothing.

    `upload` is what projects.actions.add_revision takes. Raises its UploadRefused.
    """
    project = create_project(by=by, name=name)
    return queue_build(add_revision(project, **upload), by=by, priority=priority)


@transaction.atomic
def queue_build(
    revision: Revision, *, by: User, priority: Priority = Priority.NORMAL, retry_of: Build | None = None
) -> Build:
    """Queue a build of a revision. The bell rings after the commit; when it cannot, the reaper rings later."""
    # The project's row is the lock that keeps two builds from taking one number.
    project = Project.objects.select_for_update().get(pk=revision.project_id)
    last = project.builds.aggregate(last=Max("number"))["last"] or 0
    build = Build.objects.create(
        project=project,
        revision=revision,
        owner_id=project.owner_id,
        number=last + 1,
        priority=priority,
        retry_of=retry_of,
    )
    BuildEvent.objects.create(
        build=build,
        kind=BuildEvent.Kind.STATUS,
        to_status=Status.QUEUED,
        fence=0,
        data={"by": by.get_username()},
    )
    transaction.on_commit(partial(ring))
    return build


def cancel_build(build: Build, *, by: User) -> Build:
    """Cancel a build that has not ended; one that has is left as it is. The worker notices within a second."""
    while not build.is_terminal:
        reason = verdict("cancelled", phase=build.phase, evidence=[f"cancelled by {by.get_username()}"])
        try:
            build.transition_to(Status.CANCELLED, verdict=reason.as_json())
        except TransitionRefused:
            build.refresh_from_db()
    return build
