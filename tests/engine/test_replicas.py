"""Replicas: the chosen candidates with other seeds, measured but not timed."""

from __future__ import annotations

from toy_runs import values


def test_replicas_have_the_steps_of_the_chosen_and_other_seeds(go, toys):
    result = go(
        toys.ToyTrain(2), toys.ToyLevels((4, 2)), toys.ToyQuality(), toys.ToyClock(), toys.ToyBest(), replicas=3
    )
    (chosen,) = result.chosen
    twins = result.replicas[chosen]
    assert len({chosen, *twins}) == 3
    for twin in twins:
        assert result.records[twin].shape == result.records[chosen].shape  # the same one of several children
        assert result.records[twin].fact("latency_p50") is None
    assert len({values(result)[key] for key in (chosen, *twins)}) == 3


def test_without_replicas_nothing_is_made_again(go, toys):
    assert go(toys.ToyTrain(1), toys.ToyBest()).replicas == {}
