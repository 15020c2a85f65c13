from dataclasses import replace

import pytest

from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.workers.helping import applied_by_all, runs_on_all_processes
from limbeck.recipe.recipe import Recipe


@pytest.fixture
def builder(toys, tmp_path):
    store = toys.store(tmp_path / "store")
    store.prepare()
    return CandidateBuilder(Recipe(toys.model_folder(tmp_path / "model"), "movie-reviews"), toys.ToyTask(), store)


def test_the_others_get_the_same_teacher(builder, toys, monkeypatch):
    """Also where a step imitates the model that the lineage began with."""
    root = builder.root(builder.recipe.model, 0)
    (trained,), _ = builder.children(root, toys.ToyTrain(), 0)
    orders = []
    monkeypatch.setattr("limbeck.distributed.context.all_gather", lambda *error, **order: orders.append(order))
    monkeypatch.setattr("limbeck.distributed.context.broadcast_from_main", lambda build: build())
    monkeypatch.setenv("WORLD_SIZE", "2")
    for imitates, teacher in (("", trained.key), ("root", root.key)):
        info = replace(toys.ToyImitate.info, imitates=imitates, every_process=True)
        monkeypatch.setattr(toys.ToyImitate, "info", info)
        builder.children(trained, toys.ToyImitate(), 0)
        order = next(order for order in orders if order.get("do") == "help")
        assert order["arguments"]["teacher"] == teacher
        assert order["arguments"]["teacher"] == builder.reads(trained.key, toys.ToyImitate(), 0)["teacher"]
        orders.clear()


def test_a_process_alone_asks_nobody(builder, toys, monkeypatch):
    monkeypatch.setattr("limbeck.distributed.context.all_gather", lambda *error, **order: pytest.fail("it is alone"))
    assert not runs_on_all_processes(toys.ToyTrain())
    with applied_by_all(builder.recipe, builder.store, toys.ToyTrain(), parent="p", seed=0, base="b", teacher=None):
        pass
