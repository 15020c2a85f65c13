"""Candidates are made once, kept, and made again when they are lost."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from limbeck.engine.builder import CandidateBuilder
from limbeck.errors import InputError, StepFailed, UndeclaredService
from limbeck.recipe.recipe import Recipe


@pytest.fixture
def builder(toys, tmp_path):
    def make(**more):
        recipe = Recipe(toys.model_folder(tmp_path / "model"), "movie-reviews", **more)
        store = toys.store(tmp_path / "store")
        store.prepare()
        return CandidateBuilder(recipe, toys.ToyTask(), store)

    return make


def test_what_is_known_is_not_made_again(builder, toys):
    step = toys.ToyTrain(epochs=1)
    for finished in (False, True):
        shop = builder()
        root = shop.root(shop.recipe.model, 0)
        (child,), was_known = shop.children(root, step, 0)
        assert was_known is finished
    assert toys.calls().count("epoch 1.0 0") == 1
    assert shop.children(root, step, 1)[0][0].key != child.key  # the step reads the seed
    prune = toys.ToyPrune()
    assert shop.children(root, prune, 0)[0] == shop.children(root, prune, 1)[0]  # this one does not


def test_a_root_says_where_its_content_lies_now(builder, toys, tmp_path):
    before = builder().root(str(tmp_path / "model"), 0)
    shutil.move(tmp_path / "model", tmp_path / "moved")
    shop = builder()
    after = shop.root(str(tmp_path / "moved"), 0)
    assert after.key == before.key
    assert after.parameters == {"source": str(tmp_path / "moved")}


def test_what_several_processes_train_has_a_key_of_its_own(builder, toys, monkeypatch):
    shop, prune = builder(), toys.ToyPrune()
    root = shop.root(shop.recipe.model, 0).key
    train = toys.ToyTrain()
    alone = [shop.child_base(root, step, 0) for step in (train, prune)]
    monkeypatch.setattr(toys.ToyTrain, "info", replace(toys.ToyTrain.info, every_process=True))
    assert [shop.child_base(root, step, 0) for step in (train, prune)] == alone
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert shop.child_base(root, train, 0) != alone[0]
    assert shop.child_base(root, prune, 0) == alone[1]


def test_a_lost_or_damaged_chain_is_made_again(builder, toys):
    shop = builder()
    root = shop.root(shop.recipe.model, 0)
    (trained,), _ = shop.children(root, toys.ToyTrain(epochs=1), 0)
    first, second = shop.children(trained, toys.ToyLevels((4, 2)), 0)[0]
    before = shop.open(second.key).model
    for key in (trained.key, second.key):
        shutil.rmtree(shop.store.objects / key)
    (shop.store.objects / root.key / "config.json").write_text("{")
    assert shop.open(second.key).model == before
    assert shop.open(first.key).model.ffn == 4
    assert toys.calls().count("epoch 1.0 0") == 2


def test_the_teacher(builder, toys, tmp_path):
    shop = builder()
    root = shop.root(shop.recipe.model, 0)
    (trained,), _ = shop.children(root, toys.ToyTrain(), 0)
    (pruned,), _ = shop.children(trained, toys.ToyPrune(), 0)
    assert shop.teacher(root.key) is None
    assert shop.teacher(pruned.key) == trained.key
    shop = builder(teacher=toys.model_folder(tmp_path / "other", (5.0, 5.0)))
    other = shop.root(shop.recipe.teacher, 0, "teacher")
    assert shop.teacher(shop.root(shop.recipe.model, 0).key) == other.key
    assert "teacher" in other.traits


@pytest.mark.parametrize(("named", "ancestor"), [("", True), ("model", True), ("other", False)])
def test_a_teacher_is_an_ancestor_of_what_was_made_from_it(builder, toys, tmp_path, monkeypatch, named, ancestor):
    """A model that the recipe names as the teacher is one only if it is the recipe's own model."""
    toys.model_folder(tmp_path / "other", weights=(8.0,))
    shop = builder(**({"teacher": str(tmp_path / named)} if named else {}))
    if named:
        shop.root(str(tmp_path / named), 0, "teacher")
    root = shop.root(shop.recipe.model, 0)
    (tuned,), _ = shop.children(root, toys.ToyTrain(epochs=1), 0)
    (pruned,), _ = shop.children(tuned, toys.ToyPrune(), 0)
    messages = []
    monkeypatch.setattr("limbeck.engine.builder.make_cost", lambda *_, ancestor: messages.append(ancestor))
    for record in (tuned, pruned):
        assert shop.context(record.key, toys.ToyImitate(), 0, print).teacher.ancestor is ancestor
        shop.make_cost(shop.open(record.key), toys.ToyCost(), record.key, shop.teacher(record.key))
    assert messages == [ancestor] * 2


def test_a_model_that_is_its_own_teacher_is_one_record(builder, tmp_path):
    shop = builder(teacher=str(tmp_path / "model"))
    root = shop.root(shop.recipe.model, 0)
    assert shop.root(shop.recipe.teacher, 0, "teacher") == root
    assert shop.teacher(root.key) == root.key
    assert len(shop.records) == 1


def test_what_a_step_must_not_do(builder, toys):
    shop = builder()
    root = shop.root(shop.recipe.model, 0)
    with pytest.raises(UndeclaredService, match="add 'seed' to its reads"):
        shop.children(root, toys.ToySneak(), 0)
    with pytest.raises(StepFailed, match="made no candidate"):
        shop.children(root, toys.ToyLevels(()), 0)
    with pytest.raises(InputError, match="needs a candidate with teacher"):
        shop.children(root, toys.ToyImitate(), 0)


def test_facts_name_the_machine_of_the_target(builder, toys, monkeypatch):
    """Times of a service's machine never count for another, wherever the same machine is reached."""
    from limbeck.core.target import Target
    from limbeck.engine import services
    from limbeck.measure.latency import Latency
    from limbeck.measure.memory import Memory

    monkeypatch.setattr(services, "machine", lambda: "here")
    monkeypatch.setattr(services, "machine_at", lambda url: url.partition("//")[2].partition(":")[0])

    def name(probe, url):
        shop = builder(target=Target(url=url))
        root = shop.root(shop.recipe.model, 0).key
        return shop.fact_name(root, probe, 0, ())

    here, there = name(Latency(), None), name(Latency(), "http://board:1")
    assert here != there != name(Latency(), "http://other:1") != here
    assert there == name(Latency(), "https://board:2")
    assert here != name(Latency(), "http://here:1")  # which times the export of a torch model
    assert name(Memory(), None) == name(Memory(), "http://board:1")  # which is measured here, wherever times are


def test_an_address_changes_no_key(builder, toys):
    from limbeck.core.target import Target

    step = toys.ToyTrain()
    keys = set()
    for url in (None, "http://board:1"):
        shop = builder(target=Target(url=url))
        root = shop.root(shop.recipe.model, 0).key
        keys.add((root, shop.child_base(root, step, 0), str(shop.reads(root, toys.ToyCost(), 0))))
    assert len(keys) == 1
