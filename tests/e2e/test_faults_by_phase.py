"""Whatever phase a build is in when all that runs it is killed: it is tried again, ends once, and leaves nothing."""

import pytest

from tests.e2e.dwelling import DWELLING, wait_for_phase
from tests.e2e.recovery import assert_recovered, horses
from tests.installation import Installation

pytestmark = [pytest.mark.once("postgresql"), pytest.mark.waits]


@pytest.mark.parametrize("phase", DWELLING)
def test_kill_9_of_the_build_s_process_and_its_worker(fragile: Installation, phase: str) -> None:
    project = DWELLING[phase]
    accepted = project.submit(fragile)
    wait_for_phase(fragile, accepted, phase)

    for horse in horses(fragile):
        worker = horse.parent()
        horse.kill()
        if worker:
            worker.kill()

    assert_recovered(fragile, accepted, outputs=project.outputs)
