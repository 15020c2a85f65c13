"""Orders: what another process makes is what this one would have made."""

from __future__ import annotations

import errno
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.workers import orders
from limbeck.engine.workers.orders import carry_out_order, error_of, order, receive, records_of, supply
from limbeck.errors import InputError, StepFailed, StoreError
from limbeck.recipe.parsing import leaves
from limbeck.recipe.recipe import Recipe, placed_steps


@pytest.fixture
def setting(toys, tmp_path, monkeypatch):
    """A builder whose root is stored, the placed steps, and the key of the root."""
    monkeypatch.setattr(orders, "OPEN_STORE", toys.store)
    steps = (toys.ToyTrain(2), toys.ToyLevels((4, 2)), toys.ToyImitate(), toys.ToyBreak(below=99))
    recipe = Recipe(toys.model_folder(tmp_path / "model"), "movie-reviews", steps)
    store = toys.store(tmp_path / "store")
    store.prepare()
    builder = CandidateBuilder(recipe, toys.ToyTask(), store)
    root = builder.root(recipe.model, 0)
    return builder, list(leaves(placed_steps(recipe))), root.key


def outcome_and_reports(builder, payload):
    heard = []
    outcome = carry_out_order(json.loads(json.dumps(payload)), heard.append)  # it is plain data
    return outcome, heard


def test_the_children_are_in_the_store_under_their_keys(setting):
    builder, steps, root = setting
    token = builder.store.folder.token()
    outcome, heard = outcome_and_reports(builder, order(builder, root, steps[0], 0, token))
    (record,) = records_of(outcome)
    assert builder.store.has(record.key)
    assert {"step": "toy-train", "key": root, "message": "trained 2 epochs", "numbers": {}} in heard
    (same,), stored = builder.children(builder.records[root], steps[0].step, 0)
    assert stored
    assert same == record
    outcome, _ = outcome_and_reports(builder, order(builder, record.key, steps[1], 0, token))
    assert [each.key for each in records_of(outcome)] == [
        each.key for each in builder.children(builder.records[record.key], steps[1].step, 0)[0]
    ]


def test_a_step_that_imitates_finds_its_teacher(setting):
    builder, steps, root = setting
    token = builder.store.folder.token()
    (trained,), _ = builder.children(builder.records[root], steps[0].step, 0)
    (small, _), _ = builder.children(trained, steps[1].step, 0)
    payload = order(builder, small.key, steps[2], 0, token)
    assert payload["needed"] == [small.key, trained.key]
    outcome, _ = outcome_and_reports(builder, payload)
    assert error_of(outcome) is None
    assert len(list(records_of(outcome))) == 1


def test_an_error_is_the_one_that_would_have_been_raised_here(setting):
    builder, steps, root = setting
    (trained,), _ = builder.children(builder.records[root], steps[0].step, 0)
    outcome, _ = outcome_and_reports(builder, order(builder, trained.key, steps[3], 0, builder.store.folder.token()))
    error = error_of(outcome)
    with pytest.raises(Exception) as here:
        builder.children(trained, steps[3].step, 0)
    expected = str(here.value) if outcome["expected"] else f"{type(here.value).__name__}: {here.value}"
    assert str(error) == expected
    assert isinstance(error_of({"error": "InputError", "message": "m", "expected": True}), InputError)
    assert isinstance(error_of({"error": "MissingExtra", "message": "m", "expected": True}), StepFailed)


def test_a_worker_with_a_store_of_its_own_asks_for_what_it_lacks(setting, toys, tmp_path, monkeypatch):
    builder, steps, root = setting
    monkeypatch.setattr(orders, "Store", lambda: toys.store(tmp_path / "node"))
    payload = order(builder, root, steps[0], 0, "token-of-another-folder.lock")
    outcome = carry_out_order(payload, lambda values: None)
    assert outcome == {"missing": [root, f"tasks/{builder.task.fingerprint}"]}
    outcome = carry_out_order({**payload, **supply(builder.store, outcome["missing"])}, lambda values: None)
    (record,) = records_of(outcome)
    assert not builder.store.has(record.key)
    receive(builder.store, outcome)
    assert builder.store.has(record.key)
    assert builder.children(builder.records[root], steps[0].step, 0) == ([record], True)
    again = carry_out_order(payload, lambda values: None)  # it has the objects now
    assert [each.key for each in records_of(again)] == [record.key]


def of_a_teacher(builder, toys, source):
    """A builder whose recipe names a teacher, its root, and the orders of steps that do and do not read it."""
    recipe = replace(builder.recipe, steps=(toys.ToyImitate(), toys.ToyTrain(2)), teacher=str(source))
    builder = CandidateBuilder(recipe, builder.task, builder.store)
    root = builder.root(recipe.model, 0)
    builder.root(recipe.teacher, 0, "teacher")
    token = "token-of-another-folder.lock"
    return builder, root, [order(builder, root.key, each, 0, token) for each in leaves(placed_steps(recipe))]


def test_a_worker_need_not_see_the_folder_of_a_teacher(setting, toys, tmp_path, monkeypatch):
    toys.model_folder(tmp_path / "teacher", (5.0, 7.0))
    builder, root, payloads = of_a_teacher(setting[0], toys, tmp_path / "teacher")
    monkeypatch.setattr(orders, "Store", lambda: toys.store(tmp_path / "node"))
    (tmp_path / "teacher").rename(tmp_path / "on the driver alone")
    for step, payload in zip(builder.recipe.steps, payloads, strict=True):
        missing = carry_out_order(payload, lambda values: None).get("missing", ())
        outcome = carry_out_order({**payload, **supply(builder.store, missing)}, lambda values: None)
        assert error_of(outcome) is None
        (record,) = records_of(outcome)
        receive(builder.store, outcome)
        assert builder.children(root, step, 0) == ([record], True)
    assert builder.open(builder.child_base(root.key, builder.recipe.steps[0], 0)).model.weights == [5.0, 7.0]


@pytest.mark.parametrize("how", ["there", "gone", "changed"])
def test_a_step_that_asks_a_teacher_for_answers_is_carried_out_where_that_is(setting, toys, tmp_path, monkeypatch, how):
    file = tmp_path / "scores.jsonl"
    rows = [{"text": text, "logits": {"down": 1.0, "up": 2.0}} for text in ("good", "bad")]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    builder, _, payloads = of_a_teacher(setting[0], toys, file)
    monkeypatch.setattr(orders, "Store", lambda: toys.store(tmp_path / "node"))
    if how == "gone":
        file.unlink()
    elif how == "changed":
        file.write_text(file.read_text().replace("2.0", "3.0"))
    imitated, trained = (
        carry_out_order({**payload, **supply(builder.store, [payload["key"]])}, lambda values: None)
        for payload in payloads
    )
    assert ("only gives answers" in imitated.get("elsewhere", "")) == (how != "there")
    assert ("weights" in imitated.get("message", "")) == (how == "there")  # which this teacher has not
    assert "records" in trained


def test_a_worker_gets_the_task_of_the_run_beside_that_of_the_candidate(setting, toys, tmp_path, monkeypatch):
    """Another node has augmented the rows, and this one knows nothing yet."""
    builder, _, root = setting
    recipe = replace(builder.recipe, steps=(toys.ToyAugment(), toys.ToyTrain(2)))
    builder = CandidateBuilder(recipe, builder.task, builder.store)
    builder.root(builder.recipe.model, 0)
    augment, train = leaves(placed_steps(builder.recipe))
    (augmented,), _ = builder.children(builder.records[root], augment.step, 0)
    monkeypatch.setattr(orders, "Store", lambda: toys.store(tmp_path / "node"))
    payload = order(builder, augmented.key, train, 0, "token-of-another-folder.lock")
    missing = carry_out_order(payload, lambda values: None)["missing"]
    outcome = carry_out_order({**payload, **supply(builder.store, missing)}, lambda values: None)
    assert error_of(outcome) is None
    receive(builder.store, outcome)
    (record,) = records_of(outcome)
    assert builder.open(record.key).task != builder.task


def test_the_disk_of_a_worker_is_its_own_matter(setting, toys, tmp_path, monkeypatch):
    builder, steps, root = setting
    (tmp_path / "file").touch()
    monkeypatch.setattr(orders, "Store", lambda: toys.store(tmp_path / "file" / "node"))
    payload = order(builder, root, steps[0], 0, "token-of-another-folder.lock")
    outcome, _ = outcome_and_reports(builder, payload)
    assert outcome.keys() == {"elsewhere"}
    assert outcome["elsewhere"].startswith(socket.gethostname())
    assert f"cannot write in the store {tmp_path / 'file' / 'node'}" in outcome["elsewhere"]


def test_a_full_disk_is_an_error_of_the_store_that_lies_on_it(setting, toys, tmp_path, monkeypatch):
    builder, steps, root = setting

    def apply(self, candidate, context):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(toys.ToyTrain, "apply", apply)
    outcome, _ = outcome_and_reports(builder, order(builder, root, steps[0], 0, builder.store.folder.token()))
    assert isinstance(error_of(outcome), StoreError)
    assert f"the disk of the store {builder.store.root} is full" in str(error_of(outcome))
    monkeypatch.setattr(orders, "Store", lambda: toys.store(tmp_path / "node"))
    payload = order(builder, root, steps[0], 0, "token-of-another-folder.lock")
    missing = carry_out_order(payload, lambda values: None)["missing"]
    outcome = carry_out_order({**payload, **supply(builder.store, missing)}, lambda values: None)
    assert f"the disk of the store {tmp_path / 'node'} is full" in outcome["elsewhere"]


def test_another_kind_of_machine_says_so(setting, monkeypatch):
    builder, steps, root = setting
    payload = order(builder, root, steps[0], 0, builder.store.folder.token())
    outcome = carry_out_order({**payload, "base": "0" * 16}, lambda values: None)
    assert "another processor" in outcome["elsewhere"]
    assert not Path(builder.store.objects / ("0" * 16)).exists()
