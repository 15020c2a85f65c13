"""Work ahead of the walk: the same result, whoever makes what when."""

from __future__ import annotations

import random
import threading
import time
from itertools import product
from types import SimpleNamespace

import pytest

from limbeck.core.target import Budget, Target
from limbeck.distributed.workers import Workers
from limbeck.engine import orders
from limbeck.engine.ahead import SHORT, length
from limbeck.engine.ledger import Ledger
from limbeck.engine.run import carry_out
from limbeck.errors import ProcessLost
from limbeck.recipe.recipe import Fork, Recipe, placed_steps


class Threads:
    """Carries out orders in this process, each after a random wait; counts them."""

    def __init__(self, seed=0, lost=lambda payload: False):
        self.rng, self.lost = random.Random(seed), lost
        self.made, self.lock = [], threading.Lock()

    def call(self, work, payload, needs, report):
        with self.lock:
            self.made.append((payload["path"], payload["key"]))
            wait = self.rng.random() / 50
        time.sleep(wait)
        if self.lost(payload):
            raise ProcessLost("the worker is gone")
        return work(payload, report)

    def close(self):
        pass


@pytest.fixture
def go(toys, tmp_path, monkeypatch):
    """Run steps with workers, or without; return the result and the backend."""
    monkeypatch.setattr(orders, "OPEN_STORE", toys.store)
    model = toys.model_folder(tmp_path / "model")

    def run_steps(steps, name, backend=None, **more):
        recipe = Recipe(model, "movie-reviews", tuple(steps), name="toy", **more)
        workers = Workers(backend, 3) if backend is not None else None
        store, folder, events = toys.store(tmp_path / name), tmp_path / f"run-{name}", []
        try:
            result = carry_out(recipe, toys.ToyTask(), store, folder, events.append, workers=workers)
        finally:
            if workers is not None:
                workers.close()
        return SimpleNamespace(result=result, events=events)

    return run_steps


def family(toys):
    """Forks in forks, a step that fails, probes between techniques, and a choice that more steps follow."""
    smaller = (toys.ToyPrune(), Fork(((toys.ToyTrain(3),), (toys.ToyPrune(0.25), toys.ToyTrain(4)))))
    return (
        toys.ToyTrain(1),
        toys.ToyQuality(),
        Fork(((), (toys.ToyLevels((8, 4, 2)), toys.ToyBreak(below=3)), smaller)),
        toys.ToyQuality(),
        toys.ToyFront(9),
        toys.ToyTrain(5),
        toys.ToyClock(),
        toys.ToyBest(),
    )


def told(result):
    """All that a run says, but times."""
    records = {
        key: (record.parent, record.step, record.shape, record.traits, {fact.name for fact in record.facts})
        for key, record in result.records.items()
    }
    failures = sorted((failure.path, failure.key, failure.error) for failure in result.failed)
    return (result.front, list(result.chosen), result.teacher, result.replicas, records, failures)


@pytest.mark.parametrize("seed", range(5))
def test_the_result_does_not_depend_on_who_makes_what_when(go, toys, seed):
    alone = go(family(toys), "alone", replicas=3)
    backend = Threads(seed)
    together = go(family(toys), "together", backend, replicas=3)
    assert told(together.result) == told(alone.result)
    assert list(together.result.records) == list(alone.result.records)  # the ledger has the recipe's order
    techniques = {record.key for record in alone.result.records.values() if record.parent is not None}
    assert len(backend.made) == len(set(backend.made)) >= len(techniques) - 2  # siblings come from one order
    made = [event for event in together.events if event["kind"] == "candidate_end"]
    assert not any(event["known"] for event in made if event["children"])


@pytest.mark.parametrize("seed", range(3))
def test_the_same_holds_for_every_one_of_several_targets(go, toys, seed):
    steps = (*family(toys)[:-1], toys.ToyWithin())
    several = {"targets": {"a": Target(threads=4), "b": Target()}, "budget": Budget(latency_ms=1.5), "replicas": 2}
    alone, together = go(steps, "alone", **several), go(steps, "together", Threads(seed), **several)
    assert told(together.result) == told(alone.result)
    for name, result in alone.result.targets.items():
        assert told(together.result.targets[name]) == told(result)
    assert alone.result.targets["a"].chosen != alone.result.targets["b"].chosen


def test_nothing_works_while_something_is_measured(go, toys, tmp_path):
    for seed in range(3):
        go(family(toys), f"uses-{seed}", Threads(seed))
        uses = [event for event in Ledger(tmp_path / f"run-uses-{seed}").read() if event["event"] == "use"]
        measured = [use for use in uses if use["kind"] == "measure"]
        assert len(measured) == 1
        for one, use in product(measured, uses):
            assert use is one or use["ended"] <= one["began"] or one["ended"] <= use["began"]


def test_what_is_stored_is_not_ordered_again(go, toys):
    go(family(toys), "alone")
    backend = Threads()
    again = go(family(toys), "alone", backend)
    failing = {failure.path for failure in again.result.failed}
    assert {path for path, _ in backend.made} == failing


def test_nothing_is_ordered_past_a_choice_before_it_is_made(go, toys):
    backend = Threads()
    go((toys.ToyLevels((8, 4, 2)), toys.ToyQuality(), toys.ToyBest(), toys.ToyTrain(2)), "best", backend)
    assert [path for path, _ in backend.made] == ["steps[0]", "steps[3]"]


def test_a_lost_worker_ends_the_run_and_the_next_one_resumes(go, toys):
    steps = (toys.ToyTrain(1), toys.ToyPrune(), toys.ToyTrain(2))
    with pytest.raises(ProcessLost):
        go(steps, "lost", Threads(lost=lambda payload: payload["path"] == "steps[2]"))
    backend = Threads()
    result = go(steps, "lost", backend).result
    assert [path for path, _ in backend.made] == ["steps[2]"]
    assert len(result.front) == 1


def test_a_branch_that_cannot_reach_its_goal_is_not_begun(go, toys, monkeypatch):
    monkeypatch.setattr(toys.ToyPrune, "out_of_reach", lambda self, candidate, context, earlier: "it is too far")
    monkeypatch.setattr(toys.ToyTrain, "shape_after", lambda self, shape: shape)
    backend = Threads()
    steps = (toys.ToyTrain(1), Fork(((toys.ToyTrain(2),), (toys.ToyTrain(3), toys.ToyPrune()))))
    result = go(steps, "goal", backend).result
    assert {path for path, _ in backend.made} == {"steps[0]", "steps[1].fork[0][0]"}
    assert [failure.path for failure in result.failed] == ["steps[1].fork[1][1]"]


def test_the_longest_chain_is_the_most_urgent(toys):
    steps = placed_steps(Recipe("m", "t", family(toys)))
    assert [type(located.step) for located in (steps[0], steps[4])] == [toys.ToyTrain, toys.ToyFront]
    assert length(steps) == pytest.approx(2 + 2 * SHORT)  # to the first choice, through the longest of the branches
    assert length(steps[5:]) == 1
