"""Whether a failed request is made again, and after how long."""

import random

from projects.engine.errors import EngineError
from projects.engine.model.client import Patience

# Threads that were refused together shall not come back together.
_SPREAD = 0.25


def pause(error: EngineError, failed: int, patience: Patience) -> float | None:
    """Seconds until the next try after `failed` failed ones; None when there is to be none."""
    if not error.entry.transient or failed >= patience.tries:
        return None
    if error.retry_after is not None:
        return error.retry_after if error.retry_after <= patience.longest_wait else None
    wait = min(patience.first_wait * 2.0 ** (failed - 1), patience.longest_wait)
    return wait * random.uniform(1 - _SPREAD, 1)  # noqa: S311  no secret hangs on it
