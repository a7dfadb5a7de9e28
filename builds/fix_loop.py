"""The fix loop: repairs a generation's failed build until it completes, or another repair has no prospects.

Each repair is a generation, and is built for real. The next step follows from the records alone, so any process may
take it at any time: the reaper does, every second. The decision itself is in projects.engine.repairs.decisions.
"""

import logging
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef

from builds.models import Build, LogChunk
from chef.jobs.models import Status
from chef.text.ansi import plain
from projects.actions import restore
from projects.engine.errors import Whose
from projects.engine.repairs.decisions import Built, Ending, decide
from projects.engine.repairs.fingerprints import Failure
from projects.engine.repairs.repair import MAX_LOG_CHARS
from projects.generations.actions import FailedBuild, GenerationUnderWayError, has_model, request_repair, tokens_left
from projects.models import Generation

logger = logging.getLogger(__name__)

LOG_CHUNKS = 200


def settle_fix_loops() -> int:
    """Advance every loop whose last build has ended. Returns how many got a repair or ended."""
    roots = Generation.objects.filter(status=Status.COMPLETED, auto_fix=True, root=None, fix_ending="")
    # Most loops wait for a build, and there may be as many as queued builds: this one query skips them.
    roots = roots.exclude(Exists(Build.objects.active().filter(generation=OuterRef("pk"))))
    roots = roots.exclude(Exists(Build.objects.active().filter(generation__root=OuterRef("pk"))))
    roots = roots.exclude(Exists(Generation.objects.active().filter(root=OuterRef("pk"))))
    return sum(_settle(pk) for pk in roots.values_list("pk", flat=True))


@transaction.atomic
def _settle(pk: UUID) -> bool:
    """Advance one loop, if it is not waiting."""
    root = Generation.objects.select_for_update().filter(pk=pk, fix_ending="").first()
    if root is None:
        return False  # another process has just settled it
    repairs = list(root.repairs.order_by("created_at"))
    builds = list(Build.objects.filter(generation__in=[root, *repairs]).select_related("revision").order_by("number"))
    if not builds or not builds[-1].is_terminal or any(not repair.is_terminal for repair in repairs):
        return False
    history = [Built(build.revision.number, _failure(build)) for build in builds]
    failed_repairs = [repair for repair in repairs if repair.status != Status.COMPLETED]
    decision = decide(history, tokens_left=tokens_left(root), failed_repairs=len(failed_repairs))
    ending = decision.ending or _outer_ending(root, builds[-1], failed_repairs)
    if ending:
        _end(root, ending, builds, best=decision.best)
        return True
    try:
        request_repair(root, builds[-1].revision, _failed(builds[-1], repairs))
    except GenerationUnderWayError:
        return False  # the owner's own generation, which may give the project another revision
    return True


def _failure(build: Build) -> Failure | None:
    return Failure.from_json(build.verdict) if build.verdict else None


def _outer_ending(root: Generation, last: Build, failed_repairs: list[Generation]) -> Ending | None:
    """What ends a loop that could continue as far as its builds are concerned."""
    if not has_model():
        return Ending.NO_MODEL
    newest = root.project.revisions.order_by("-number").values_list("pk", flat=True).first()
    if newest != last.revision_id:
        return Ending.SUPERSEDED
    error = failed_repairs[-1].error if failed_repairs else None
    if error and error["whose"] == Whose.LIMIT and error["code"] in ("budget_reached", "day_spent"):
        return Ending.BUDGET
    if error and error["whose"] != Whose.MODEL:
        return Ending.NO_REPAIR
    return None


def _failed(build: Build, repairs: list[Generation]) -> FailedBuild:
    """A repair's input: the verdict, the end of the failed phase's log, and earlier repairs."""
    assert build.verdict
    rows = LogChunk.objects.filter(build=build, attempt=build.fence, phase=build.verdict["phase"])
    newest = rows.order_by("-sequence").values_list("text", flat=True)[:LOG_CHUNKS]
    log = plain("".join(reversed(newest)))[-MAX_LOG_CHARS:]
    tried = [repair.message or (repair.error or {}).get("message", "") for repair in repairs]
    return FailedBuild(build.verdict, log, [summary for summary in tried if summary])


def _end(root: Generation, ending: Ending, builds: list[Build], *, best: int) -> None:
    """Record why the loop ended, and make the revision that got furthest, not the last, the current one."""
    kept = next(build.revision for build in builds if build.revision.number == best)
    Generation.objects.filter(pk=root.pk).update(fix_ending=ending, best=kept)
    if kept != builds[-1].revision and ending != Ending.SUPERSEDED:
        restore(kept)
    logger.info("generation %s: the fix loop ended: %s; revision %s is kept", root.pk, ending, best)
