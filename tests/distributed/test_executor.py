"""Independent work: every item ends, in whatever order, and the walk does not depend on it."""

from __future__ import annotations

import pytest

from limbeck.distributed.executor import Finished, InProcess, Work, lane_of, run_alone
from limbeck.engine.run import start
from limbeck.recipe.parsing import registry
from limbeck.recipe.recipe import Recipe


def fail():
    raise ValueError("odd")


def test_an_error_concerns_its_item_alone():
    ended = list(InProcess().run([Work("cpu", lambda: 1), Work("cpu", fail), Work("measure", lambda: None)]))
    assert [end.index for end in ended] == [0, 1, 2]
    assert (ended[0].result(), ended[2].result()) == (1, None)
    with pytest.raises(ValueError, match="odd"):
        ended[1].result()
    with pytest.raises(ValueError, match="odd"):
        run_alone(InProcess(), Work("cpu", fail))


def test_nothing_is_done_for_a_caller_that_stops():
    done = []
    results = InProcess().run([Work("cpu", lambda number=number: done.append(number)) for number in range(3)])
    next(results)
    results.close()
    assert done == [0]


def test_the_lane_follows_from_what_a_step_declares():
    lanes = {name: lane_of(cls.__new__(cls)) for name, cls in registry().items()}
    assert {name for name, lane in lanes.items() if lane == "measure"} == {
        name for name, cls in registry().items() if cls.info.machine_bound
    }
    assert {lanes[name] for name in ("finetune", "distill", "linearize", "supernet")} == {"train"}
    assert {lanes[name] for name in ("prune", "export", "quantize", "augment", "quality", "best")} == {"cpu"}
    assert lanes["latency"] == "measure"


class Backwards:
    """Ends the last item first, as several workers may."""

    def __init__(self):
        self.lanes = []

    def run(self, items):
        self.lanes.append([item.lane for item in items])
        for index in reversed(range(len(items))):
            (ended,) = InProcess().run([items[index]])
            yield Finished(index, ended.seconds, ended.value, ended.error)


def test_a_run_does_not_depend_on_the_order_in_which_work_ends(toys, tmp_path):
    steps = (toys.ToyTrain(1), toys.ToyLevels((8, 4, 2)), toys.ToyBreak(below=3), toys.ToyPrune(), toys.ToyQuality())
    recipe = Recipe(toys.model_folder(tmp_path / "model"), "movie-reviews", (*steps, toys.ToyClock(), toys.ToyFront(9)))

    def go(executor, name):
        store, folder = toys.store(tmp_path / f"store-{name}"), tmp_path / name
        return start(recipe, toys.ToyTask(), store, folder, lambda event: None, executor=executor).finish()

    first, other = go(None, "forwards"), go(executor := Backwards(), "backwards")
    assert (first.front, list(first.chosen), first.teacher) == (other.front, list(other.chosen), other.teacher)
    assert {(failure.key, failure.error) for failure in first.failed} == {
        (failure.key, failure.error) for failure in other.failed
    }
    assert first.records.keys() == other.records.keys()
    assert executor.lanes == [["train"], ["cpu"], ["cpu"] * 3, ["cpu"] * 2, ["cpu"], ["measure"]]
