"""Repairs a project whose build failed: the model sees the build's errors and the relevant files, and patches them.

`fix_loop` decides whether to try at all.
"""

from collections.abc import Sequence

from projects.engine.limits import Files, Limits
from projects.engine.model.asking import Asker
from projects.engine.model.questions import Part, Stage
from projects.engine.repairs.edit import ask_for_patch
from projects.engine.repairs.fingerprints import Failure
from projects.engine.repairs.patches import Patched
from projects.engine.repairs.selection import file_parts, named_in

MAX_LOG_CHARS = 12_000


def repair(
    asker: Asker,
    failure: Failure,
    files: Files,
    limits: Limits,
    *,
    prompt: str = "",
    log: str = "",
    tried: Sequence[str] = (),
) -> Patched:
    """The files after a repair.

    `prompt` is what the app was made from, `log` the end of the failed phase's log without secrets, `tried` the
    summaries of earlier repairs that failed. Raises EngineError like `edit`.
    """
    parts = [Part("failure of the build", failure.as_text())]
    if prompt:
        parts.append(Part("request", prompt, shorter=""))
    if log:
        parts.append(Part("end of the log", log[-MAX_LOG_CHARS:], shorter=log[-MAX_LOG_CHARS // 6 :]))
    if tried:
        parts.append(Part("repairs that did not help", "\n".join(tried)))
    parts += file_parts(files, named_in("\n".join((*failure.evidence, failure.message)), files))
    return ask_for_patch(asker, Stage.REPAIR, parts, files, limits)
