"""The simulated queue: order, times and uncertainty. test_forecast compares it with the database."""

import random
from collections.abc import Mapping, Sequence

import pytest

from builds.queue import simulation
from builds.queue.simulation import Durations, Play, Prediction, Running, Scene, Waiting, predict

pytestmark = pytest.mark.once

LOW, NORMAL, HIGH = -10, 0, 10
ANN, BEN, CEM = 1, 2, 3


def takes(seconds: float) -> Durations:
    return Durations([seconds])


def waiting(owner: int, *, seconds: float = 10, priority: int = NORMAL, available_in: float = 0) -> Waiting:
    return Waiting(owner, priority, available_in, takes(seconds))


def scene(
    *builds: Waiting,
    running: Sequence[Running] = (),
    served: Mapping[int, int] | None = None,
    workers: int = 1,
    owner_limit: int = 0,
) -> Scene:
    return Scene(builds, running, served or {}, workers, owner_limit)


def claims(scene: Scene) -> list[tuple[int, float]]:
    return list(Play(scene, lambda durations: durations.mean).claims())


def order(scene: Scene) -> list[int]:
    return [index for index, _ in claims(scene)]


# --- The order -----------------------------------------------------------------------------------------------------


def test_equal_builds_go_by_age() -> None:
    assert claims(scene(*[waiting(ANN)] * 3)) == [(0, 0), (1, 10), (2, 20)]


def test_workers_run_in_parallel_and_running_builds_end_first() -> None:
    played = scene(*[waiting(ANN)] * 3, running=[Running(ANN, takes(4))], workers=2)

    assert claims(played) == [(0, 0), (1, 4), (2, 10)]


def test_priority_comes_first() -> None:
    played = scene(waiting(ANN, priority=LOW), waiting(BEN), waiting(ANN, priority=HIGH), served={BEN: 1, ANN: 2})

    assert order(played) == [2, 1, 0]


def test_owners_take_turns_regardless_of_queue_lengths() -> None:
    assert order(scene(*[waiting(ANN)] * 4, *[waiting(BEN)] * 2)) == [0, 4, 1, 5, 2, 3]


def test_the_owner_served_longest_ago_is_next_and_unserved_owners_come_first() -> None:
    builds = [waiting(ANN), waiting(BEN), waiting(CEM)]

    assert order(scene(*builds, served={ANN: 2, BEN: 1})) == [2, 1, 0]


def test_fewest_running_builds_count_more_than_last_served() -> None:
    played = scene(waiting(ANN), waiting(BEN), running=[Running(BEN, takes(100))], served={BEN: 1, ANN: 2}, workers=2)

    assert order(played) == [0, 1]


def test_being_served_counts_across_priorities() -> None:
    played = scene(waiting(ANN, priority=HIGH), waiting(ANN), waiting(BEN), served={ANN: 1, BEN: 2})

    assert order(played) == [0, 2, 1]


def test_an_owner_at_the_limit_waits_for_its_own_build_and_blocks_nobody() -> None:
    played = scene(*[waiting(ANN)] * 3, waiting(BEN), running=[Running(ANN, takes(7))], workers=4, owner_limit=2)

    assert claims(played) == [(3, 0), (0, 0), (1, 7), (2, 10)]


def test_a_build_in_back_off_returns_to_the_order_of_age() -> None:
    played = scene(waiting(ANN), waiting(ANN, available_in=5), waiting(ANN), waiting(ANN, available_in=1000))

    assert claims(played) == [(0, 0), (1, 10), (2, 20), (3, 1000)]


def test_all_builds_are_claimed_exactly_once() -> None:
    dice = random.Random(1)
    for _ in range(50):
        builds = [
            waiting(
                dice.randint(1, 5),
                seconds=dice.uniform(1, 50),
                priority=dice.choice([LOW, NORMAL, HIGH]),
                available_in=dice.choice([0, 0, dice.uniform(1, 200)]),
            )
            for _ in range(60)
        ]
        running = [Running(dice.randint(1, 5), takes(dice.uniform(0, 50))) for _ in range(3)]
        played = claims(scene(*builds, running=running, workers=3, owner_limit=dice.randint(0, 3)))

        assert sorted(index for index, _ in played) == list(range(60))
        assert [seconds for _, seconds in played] == sorted(seconds for _, seconds in played)
        assert all(seconds >= builds[index].available_in for index, seconds in played)


# --- Predictions ---------------------------------------------------------------------------------------------------


def mixed(count: int) -> list[Waiting]:
    dice = random.Random(2)
    spread = Durations([dice.lognormvariate(3, 0.6) for _ in range(100)])
    return [Waiting(dice.randint(1, 6), NORMAL, 0.0, spread) for _ in range(count)]


def test_an_empty_queue_has_no_predictions() -> None:
    assert predict(scene()) == []


def test_known_durations_leave_no_uncertainty() -> None:
    played = scene(*[waiting(ANN)] * 3)

    assert predict(played) == [Prediction(1, 0, 0), Prediction(2, 10, 10), Prediction(3, 20, 20)]


def test_uncertainty_grows_with_distance_and_shrinks_with_more_workers() -> None:
    predicted = predict(scene(*[Waiting(ANN, NORMAL, 0.0, Durations(range(1, 60)))] * 100))

    near, far = predicted[2], predicted[-1]
    assert 0 < near.p90 - near.p50 < far.p90 - far.p50
    assert (far.p90 - far.p50) / far.p50 < (near.p90 - near.p50) / near.p50


def test_predictions_are_deterministic() -> None:
    played = scene(*mixed(300), workers=3)

    assert predict(played) == predict(played)


def test_extrapolation_continues_the_simulated_part(monkeypatch: pytest.MonkeyPatch) -> None:
    played = scene(*mixed(1200), workers=5)
    short = predict(played)
    monkeypatch.setattr(simulation, "CLAIMS_A_PLAY", 1200)
    monkeypatch.setattr(simulation, "PLAYS", 100)

    beyond = [
        (predicted, known) for predicted, known in zip(short, predict(played), strict=True) if predicted.position > 200
    ]

    assert len(beyond) == 1000
    for predicted, known in beyond:
        assert predicted.position == known.position
        assert predicted.p50 == pytest.approx(known.p50, rel=0.1)
        assert predicted.p90 == pytest.approx(known.p90, rel=0.1)


def test_equal_queues_get_equally_good_positions() -> None:
    owners = range(1, 7)
    builds = [waiting(owner) for owner in owners for _ in range(30)]

    predicted = predict(scene(*builds, workers=5))

    for nth in range(30):
        positions = [predicted[30 * (owner - 1) + nth].position for owner in owners]
        assert sorted(positions) == list(range(6 * nth + 1, 6 * nth + 7))


def test_beyond_the_simulated_part_later_positions_start_later() -> None:
    predicted = sorted(predict(scene(*mixed(1000), workers=2)))

    assert [each.position for each in predicted] == list(range(1, 1001))
    far = predicted[200:]
    assert [each.p50 for each in far] == sorted(each.p50 for each in far)
    assert [each.p90 for each in far] == sorted(each.p90 for each in far)
    assert all(each.p50 <= each.p90 for each in predicted)


# --- Remaining time of running builds ------------------------------------------------------------------------------


def test_a_build_that_has_run_a_while_is_expected_to_take_as_long_as_longer_ones() -> None:
    left = Durations([10, 20, 30, 40, 50]).remaining(20)

    assert left.samples == [10, 20, 30]


def test_a_build_running_longer_than_all_before_is_expected_to_continue() -> None:
    assert Durations([10, 20]).remaining(100).samples == [10, 30, 100]


def test_nothing_is_expected_to_run_past_the_time_limit() -> None:
    assert Durations([10, 50, 400, 900]).remaining(40, at_most=300).samples == [10, 260, 260]
    assert Durations([10]).remaining(400, at_most=300).samples == [0, 0, 0]
