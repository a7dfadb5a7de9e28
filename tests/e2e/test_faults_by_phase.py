"""A build whose processes are killed, in each phase: it is retried, ends once, and leaves nothing behind."""

import pytest

from tests.e2e.recovery import assert_recovered, work_horses
from tests.e2e.slow_builds import SLOW_IN, wait_for_phase
from tests.installation import Installation

pytestmark = [pytest.mark.once("postgresql"), pytest.mark.waits]


@pytest.mark.parametrize("phase", SLOW_IN)
def test_kill_9_of_the_build_s_process_and_its_worker(fragile: Installation, phase: str) -> None:
    project = SLOW_IN[phase]
    accepted = project.submit(fragile)
    wait_for_phase(fragile, accepted, phase)

    for horse in work_horses(fragile):
        worker = horse.parent()
        horse.kill()
        if worker:
            worker.kill()

    assert_recovered(fragile, accepted, outputs=project.outputs)
