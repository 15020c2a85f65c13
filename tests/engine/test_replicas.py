"""Replicas: the chosen candidates with other seeds, measured but not timed."""

from __future__ import annotations

from toy_runs import values

from limbeck.engine.result import read_result


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


def test_seeds_are_those_that_were_trained(go, toys, monkeypatch):
    apply = toys.ToyTrain.apply

    def refuse(step, candidate, context):
        if context.seed == 1:
            raise RuntimeError("no room")
        return apply(step, candidate, context)

    monkeypatch.setattr(toys.ToyTrain, "apply", refuse)
    result = go(toys.ToyTrain(2), toys.ToyQuality(), toys.ToyBest(), replicas=3)
    assert list(result.run_summary.seeds) == [0, 2]
    assert list(read_result(result.folder).run_summary.seeds) == [0, 2]
    (twin,) = result.replicas[result.chosen[0]]
    assert values(result)[twin] == 15.0


def test_seeds_of_replicas_that_were_left_out_are_not_named(go, toys, monkeypatch):
    monkeypatch.setattr("limbeck.engine.time_limit.TimeLimit.too_late_for_replicas", lambda *_: "too late")
    steps = (toys.ToyTrain(2), toys.ToyQuality(), toys.ToyClock(), toys.ToyBest())
    result = go(*steps, replicas=3, max_minutes=10)
    assert result.chosen
    assert list(result.run_summary.seeds) == [0]


def test_without_replicas_nothing_is_made_again(go, toys):
    assert go(toys.ToyTrain(1), toys.ToyBest()).replicas == {}
