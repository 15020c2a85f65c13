"""Goals that cannot be reached end a run, or a branch of it, before anything is trained for them."""

from __future__ import annotations

import pytest

from limbeck.engine.run import run
from limbeck.errors import InputError
from limbeck.recipe.recipe import Fork, Recipe


@pytest.fixture
def go(toys, tmp_path, monkeypatch):
    """Run toy steps, of which pruning to less than a tenth is out of reach; ``go.questions`` counts the questions."""
    model = toys.model_folder(tmp_path / "model")
    monkeypatch.setenv(toys.CALLS, str(tmp_path / "calls"))
    monkeypatch.setattr(toys.ToyTrain, "shape_after", lambda self, shape: shape)

    def out_of_reach(self, candidate, context, earlier):
        run_steps.questions += 1
        assert candidate.model.shape.depth == 1
        assert earlier
        return f"{self.keep} is too little" if self.keep < 0.1 else None

    monkeypatch.setattr(toys.ToyPrune, "out_of_reach", out_of_reach)

    def run_steps(*steps):
        run_steps.questions = 0
        recipe = Recipe(model, "movie-reviews", steps, name="toy")
        return run(recipe, toys.store(tmp_path / "store"), tmp_path / "run", task=toys.ToyTask())

    run_steps.trained = lambda: sum("epoch" in line for line in (tmp_path / "calls").read_text().splitlines())
    return run_steps


def test_it_is_refused_before_training(go, toys):
    with pytest.raises(InputError, match=r"steps\[2\]\.toy-prune: 0\.05 is too little"):
        go(toys.ToyTrain(epochs=1), toys.ToyTrain(epochs=1, by=2), toys.ToyPrune(0.05))
    assert go.trained() == 0
    with pytest.raises(InputError, match=r"fork\[0\]\[0\]\.toy-prune"):
        go(toys.ToyTrain(epochs=1), Fork(((toys.ToyPrune(0.05),), (toys.ToyPrune(0.01),))))
    assert go.trained() == 0


def test_a_goal_within_reach_is_none_of_its_business(go, toys):
    assert go(toys.ToyTrain(epochs=1), toys.ToyPrune(0.5)).ok
    assert go.questions == 1


def test_nothing_is_asked_where_nothing_would_be_saved(go, toys):
    go(toys.ToyPrune(0.05))
    assert go.questions == 0
    go(toys.ToyTrain(epochs=1), toys.ToyPrune(0.5))
    go(toys.ToyTrain(epochs=1), toys.ToyPrune(0.05))  # trained already
    assert go.questions == 0


def test_nothing_is_asked_behind_a_step_whose_shape_nobody_knows(go, toys):
    go(toys.ToyTrain(epochs=1), toys.ToyPrune(0.5), toys.ToyTrain(epochs=1), toys.ToyPrune(0.05))
    assert go.questions == 1


def test_one_branch_fails_early_and_the_others_go_on(go, toys):
    hopeless = (toys.ToyTrain(epochs=1, by=2), toys.ToyPrune(0.05))
    result = go(toys.ToyTrain(epochs=1), Fork(((), hopeless, (toys.ToyTrain(epochs=1, by=3),))), toys.ToyQuality())
    (failure,) = result.failed
    assert (failure.step, failure.error) == ("toy-prune", "toy-prune: 0.05 is too little")
    assert failure.path == "steps[1].fork[1][1]"
    assert not failure.traceback
    assert go.trained() == 2
    assert len(result.front) == 2
