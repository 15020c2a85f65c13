"""Candidates are made once, kept, and made again when they are lost."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from limbeck.engine.builder import CandidateBuilder
from limbeck.errors import InputError, ProcessLost, StepFailed, StoreError, UndeclaredService
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


def test_a_key_may_depend_on_the_traits_of_the_candidate(builder, toys, monkeypatch):
    shop, step = builder(), toys.ToyPrune()
    root = shop.root(shop.recipe.model, 0)
    before = shop.child_base(root.key, step, 0)
    monkeypatch.setattr(toys.ToyPrune, "marks", lambda step, traits: {"mark": True} if "exits" in traits else {})
    assert shop.child_base(root.key, step, 0) == before
    shop.records[root.key] = replace(root, traits=root.traits | {"exits"})
    assert shop.reads(root.key, step, 0)["mark"] is True
    assert shop.child_base(root.key, step, 0) != before


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


@pytest.mark.parametrize("error", [MemoryError("no room"), ValueError("no backend"), InputError("cannot be opened")])
def test_an_intact_object_stays_whatever_opening_it_raises(builder, toys, monkeypatch, error):
    shop = builder()
    (trained,), _ = shop.children(shop.root(shop.recipe.model, 0), toys.ToyTrain(epochs=1), 0)
    folder = shop.store.objects / trained.key

    def refuse(source, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(shop.store, "open_model", refuse)
        told = type(error) if isinstance(error, MemoryError) else StoreError  # which says what would make it again
        with pytest.raises(told, match=str(error)):
            shop.open(trained.key)
    assert folder.is_dir()
    assert not (shop.store.root / "quarantine").exists()
    assert shop.open(trained.key).folder == folder
    assert toys.calls().count("epoch 1.0 0") == 1


@pytest.fixture
def interrupted(builder, toys):
    """A builder, a step that was interrupted after the first of its epochs, and the step's key."""
    shop, step = builder(), toys.ToyTrain(epochs=2)
    root = shop.root(shop.recipe.model, 0)
    base = shop.child_base(root.key, step, 0)
    (shop.store.scratch(base) / "state.json").write_text("[1, [5.0, 6.0]]")
    return shop, root, step, base


def failing(toys, monkeypatch, *errors):
    """Let the step raise these, one at each attempt, and then work."""
    apply, left = toys.ToyTrain.apply, list(errors)

    def attempt(step, candidate, context):
        if left:
            (context.scratch / "more").write_text("x")
            raise left.pop(0)
        yield from apply(step, candidate, context)

    monkeypatch.setattr(toys.ToyTrain, "apply", attempt)


def test_a_step_that_fails_twice_keeps_its_checkpoints(interrupted, toys, monkeypatch):
    shop, root, step, base = interrupted
    failing(toys, monkeypatch, ValueError("odd"), ValueError("odd"))
    with pytest.raises(ValueError, match="odd"):
        shop.children(root, step, 0)
    assert (shop.store.work / base / "state.json").read_text() == "[1, [5.0, 6.0]]"
    (child,), _ = shop.children(root, step, 0)
    assert shop.open(child.key).model.weights == [6.0, 7.0]  # of the second epoch alone
    assert list(shop.store.work.iterdir()) == []


def test_a_step_that_works_without_its_checkpoints_deletes_them(interrupted, toys, monkeypatch):
    shop, root, step, _ = interrupted
    failing(toys, monkeypatch, ValueError("damaged"))
    (child,), _ = shop.children(root, step, 0)
    assert shop.open(child.key).model.weights == [3.0, 4.0]
    assert list(shop.store.work.iterdir()) == []


def test_a_lack_of_memory_costs_no_progress(interrupted, toys, monkeypatch):
    shop, root, step, _ = interrupted
    failing(toys, monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        shop.children(root, step, 0)
    (child,), _ = shop.children(root, step, 0)
    assert shop.open(child.key).model.weights == [6.0, 7.0]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), ProcessLost("killed"), StoreError("full")])
@pytest.mark.parametrize("begun", [True, False])
def test_an_interrupted_new_beginning_goes_on_if_it_has_checkpoints(interrupted, begun, error):
    shop, _, _, base = interrupted

    def interrupted_again():
        with shop.store.without_checkpoints(base):
            folder = shop.store.scratch(base)
            if begun:
                (folder / "state.json").write_text("new")
            raise error

    with pytest.raises(type(error)):
        interrupted_again()
    state = shop.store.work / base / "state.json"
    assert state.read_text() == ("new" if begun else "[1, [5.0, 6.0]]")
    shop.store.done(base)
    assert list(shop.store.work.iterdir()) == []


def test_checkpoints_that_a_killed_process_set_aside_come_back(interrupted):
    shop, root, step, base = interrupted
    (shop.store.work / base).rename(shop.store.work / f"{base}.aside")
    shop.store.scratch(base)
    (child,), _ = shop.children(root, step, 0)
    assert shop.open(child.key).model.weights == [6.0, 7.0]
