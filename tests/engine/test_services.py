import pytest

from limbeck.core.step import StepInfo
from limbeck.core.target import Budget
from limbeck.engine.services import services
from limbeck.engine.store import Store
from limbeck.errors import UndeclaredService
from limbeck.recipe.recipe import Recipe


def test_a_step_gets_what_it_declares_and_no_more(toys, tmp_path, monkeypatch):
    recipe = Recipe("model", "toy", budget=Budget(latency_ms=3.0))
    monkeypatch.setattr(toys.ToyTrain, "info", StepInfo("toy-train", reads={"seed", "budget"}))
    context = services(recipe, Store(tmp_path), toys.ToyTrain(), seed=7, teacher=None, log=print)
    assert (context.seed, context.budget, context.log) == (7, recipe.budget, print)
    with pytest.raises(UndeclaredService, match=r"context\.target"):
        _ = context.target
