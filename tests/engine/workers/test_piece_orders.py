"""Orders of pieces: another process finds what the step itself would have found."""

from __future__ import annotations

import json

import pytest

from limbeck.core.step import RunContext
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.workers import orders
from limbeck.engine.workers.orders import carry_out_order, order, receive
from limbeck.engine.workers.piece_orders import piece_order, work_on
from limbeck.recipe.parsing import leaves
from limbeck.recipe.recipe import Recipe, placed_steps


@pytest.fixture
def setting(toys, tmp_path, monkeypatch):
    """A builder whose root is stored, and the order of a step on it, which hands out pieces; others keep folders."""
    monkeypatch.setattr(orders, "OPEN_STORE", toys.store)
    steps = (toys.ToyShare(2), toys.ToyShare(1, kept=True), toys.ToyShare(1, broken=2))
    recipe = Recipe(toys.model_folder(tmp_path / "model"), "movie-reviews", steps)
    store = toys.store(tmp_path / "store")
    store.prepare()
    builder = CandidateBuilder(recipe, toys.ToyTask(), store)
    root, token = builder.root(recipe.model, 0).key, store.folder.token()
    placed = leaves(placed_steps(recipe))
    return builder, [order(builder, root, each, 0, token) for each in placed]


def wanted(payload):
    outcome = carry_out_order(json.loads(json.dumps({**payload, "results": {}})), lambda values: None)
    return list(outcome["wanted"]["pieces"].values()), outcome["wanted"]["shared"]


def done(payload):
    return work_on(json.loads(json.dumps(payload)), lambda values: None)  # it is plain data


def test_pieces_give_what_the_step_would_have_found_itself(setting):
    builder, (payload, *_) = setting
    pieces, shared = wanted(payload)
    step, candidate = builder.recipe.steps[0], builder.open(payload["key"])
    expected = list(step.work_on(pieces, shared, candidate, RunContext()))
    assert len(pieces) == 5
    assert done(piece_order(payload, pieces, shared)) == {"results": expected}
    assert done(piece_order(payload, pieces[3:], shared)) == {"results": expected[3:]}


def test_a_folder_comes_from_a_store_that_is_not_shared(setting, toys, tmp_path, monkeypatch):
    builder, (_, payload, _) = setting
    pieces, shared = wanted(payload)
    monkeypatch.setattr(orders, "Store", lambda: toys.store(tmp_path / "node"))
    sent = {**piece_order(payload, pieces[:2], shared), "token": "of-another-folder.lock"}
    missing = [payload["key"], f"tasks/{builder.task.fingerprint}"]
    assert work_on(sent, print) == {"missing": missing}
    outcome = work_on({**sent, **orders.supply(builder.store, missing)}, print)
    names = [f"kept/{piece['keeps']}" for piece in pieces[:2]]
    assert list(outcome["objects"]) == names
    receive(builder.store, outcome)
    assert (builder.store.facts.kept_folder(pieces[1]["keeps"]) / "value").read_text() == "0.25"
    assert builder.store.facts.kept_folder(pieces[2]["keeps"]) is None


def test_an_error_or_another_machine_comes_back(setting, monkeypatch):
    _, (_, _, payload) = setting
    outcome = done(piece_order(payload, *wanted(payload)))
    assert outcome == {"error": "RuntimeError", "message": "a part is broken", "expected": False}
    sent = piece_order(payload, *wanted(payload))
    monkeypatch.setattr("limbeck.engine.workers.piece_orders.machine", lambda: "another")
    assert "another processor" in done(sent)["elsewhere"]
