from dataclasses import replace

import pytest

from limbeck.core.step import StepInfo
from limbeck.core.target import Budget, Target
from limbeck.data.synthetic import toy_task
from limbeck.engine.services import services, services_in_keys
from limbeck.engine.store.store import Store
from limbeck.errors import UndeclaredService
from limbeck.recipe.recipe import Recipe


def test_a_step_gets_what_it_declares_and_no_more(toys, tmp_path, monkeypatch):
    recipe = Recipe("model", "toy", budget=Budget(latency_ms=3.0))
    monkeypatch.setattr(toys.ToyTrain, "info", StepInfo("toy-train", reads={"seed", "budget"}))
    context = services(recipe, Store(tmp_path), toys.ToyTrain(), seed=7, teacher=None, log=print)
    assert (context.seed, context.budget, context.log) == (7, recipe.budget, print)
    with pytest.raises(UndeclaredService, match=r"context\.target"):
        _ = context.target


def test_keys_hold_what_is_read_and_the_number_of_processes_that_train(toys, monkeypatch):
    recipe = Recipe("model", "toy", budget=Budget(latency_ms=3.0))
    info = StepInfo("toy-train", reads={"seed", "teacher"}, every_process=True, standardizes=True)
    monkeypatch.setattr(toys.ToyTrain, "info", info)

    def read(kind):
        return services_in_keys(recipe, toys.ToyTrain(), seed=7, teacher=lambda: "t", task=toy_task(kind, train=4))

    assert read("classification") == {"seed": 7, "teacher": "t"}
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert read("regression") == {"seed": 7, "teacher": "t", "targets": "standardized", "processes": 2}


def test_traits_of_a_model_mark_results_that_are_others(toys, monkeypatch):
    recipe, task = Recipe("model", "toy"), toy_task(train=4)
    monkeypatch.setattr(toys.ToyTrain, "info", StepInfo("toy-train", reads={"seed"}))
    monkeypatch.setattr(toys.ToyTrain, "marks", lambda step, traits: dict.fromkeys(traits & {"exits"}, "marked"))

    def read(*traits):
        given = {"teacher": lambda: "t", "task": task, "traits": frozenset(traits)}
        return services_in_keys(recipe, toys.ToyTrain(), seed=7, **given)

    assert read("torch", "exits") == {"seed": 7, "exits": "marked"}
    assert read("torch") == services_in_keys(recipe, toys.ToyTrain(), seed=7, teacher=lambda: "t", task=task)


def test_costs_of_long_texts_are_those_of_graphs_for_them(toys, monkeypatch):
    monkeypatch.setattr(toys.ToyTrain, "info", StepInfo("toy-train", reads={"cost"}))
    short = toy_task()
    splits = {
        name: replace(split, texts=[" ".join([text] * 200) for text in split.texts])
        for name, split in short.splits.items()
    }
    long = replace(short, splits=splits, max_length=512)

    def cost(task):
        return services_in_keys(Recipe("model", "toy"), toys.ToyTrain(), seed=7, teacher=lambda: "t", task=task)["cost"]

    assert cost(long) == {**cost(short), "long_texts": True}
    assert cost(short).keys() == {"target", "machine", "teacher"}


def test_limits_that_only_decide_the_choice_change_no_key(toys, monkeypatch):
    monkeypatch.setattr(toys.ToyTrain, "info", StepInfo("toy-train", reads={"budget"}))

    def read(budget):
        recipe = Recipe("model", "toy", budget=budget)
        return services_in_keys(recipe, toys.ToyTrain(), seed=7, teacher=lambda: "t", task=toy_task())["budget"]

    assert read(Budget(latency_ms=3.0)) == {"latency_ms": 3.0, "size_mb": None, "max_drop": None}
    assert read(Budget(max_flips=3.0, confidence=0.9)) == read(Budget())


def test_a_step_decides_what_of_its_services_enters_keys(toys, monkeypatch):
    monkeypatch.setattr(toys.ToyTrain, "info", StepInfo("toy-train", reads={"seed", "target"}))
    given = []

    def decisive(step, read, task, target):
        given.append((dict(read), task, target))
        return {"seed": read["seed"], "mark": True}

    monkeypatch.setattr(toys.ToyTrain, "decisive_services", decisive)
    recipe, task = Recipe("model", "toy", target=Target(batch=8)), toy_task(train=4)
    read = services_in_keys(recipe, toys.ToyTrain(), seed=7, teacher=lambda: "t", task=task)
    assert read == {"seed": 7, "mark": True}
    assert given == [({"seed": 7, "target": recipe.target.identity()}, task, recipe.target)]
