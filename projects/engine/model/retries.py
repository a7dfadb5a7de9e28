"""Whether a failed request is retried, and after how long."""

import random

from projects.engine.errors import EngineError
from projects.engine.model.client import Patience

# Jitter: threads that were refused together must not retry together.
_SPREAD = 0.25


def pause(error: EngineError, failed: int, patience: Patience) -> float | None:
    """Seconds until the next try after `failed` failed ones; None when there is no further try."""
    if not error.entry.transient or failed >= patience.tries:
        return None
    if error.retry_after is not None:
        return error.retry_after if error.retry_after <= patience.longest_wait else None
    wait = min(patience.first_wait * 2.0 ** (failed - 1), patience.longest_wait)
    return wait * random.uniform(1 - _SPREAD, 1)  # noqa: S311  no secret hangs on it
