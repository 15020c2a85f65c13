"""A run stops before it compresses a teacher that is no better than a constant answer."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.judged_texts import Document, Query
from limbeck.core.task import Split, Task
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine import weak_teacher
from limbeck.engine.outputs import budget_violations, deliver
from limbeck.engine.run import run
from limbeck.engine.weak_teacher import WeakTeacher
from limbeck.model.checkpoints import save_model
from limbeck.recipe.recipe import check, parse, to_data
from limbeck.report.report import front_csv, front_table, headline, to_json

TASK = toy_task(train=24, validation=40, test=16)
STEPS = ["export", "size", "quality", {"cheapest": {}}]


@pytest.fixture(scope="module")
def model(tmp_path_factory, make_model):
    """Random weights: as good as a constant answer."""
    folder = tmp_path_factory.mktemp("weak") / "model"
    tokenizer = toy_tokenizer(TASK)
    save_model(make_model(labels=3, vocab_size=len(tokenizer)), tokenizer, folder)
    return str(folder)


def recipe(model, **more):
    return parse({"model": model, "teacher": model, "task": "movie-reviews", "name": "toy", "steps": STEPS, **more})


def test_it_stops_says_what_both_are_worth_and_how_to_go_on(model, tmp_path):
    with pytest.raises(WeakTeacher) as caught:
        run(recipe(model), tmp_path / "store", tmp_path / "run", task=TASK)
    text = str(caught.value)
    for part in ("accuracy", "on 40 validation rows", "learning_rate", "class_weights: balanced", "macro_f1"):
        assert part in text
    assert "--allow-weak-teacher" in text
    assert "weak_teacher" in (tmp_path / "run" / "ledger.jsonl").read_text()
    with pytest.raises(WeakTeacher):  # also when it is run again
        run(recipe(model), tmp_path / "store", tmp_path / "run", task=TASK)


def test_a_recipe_without_a_choice_claims_nothing_and_goes_on(model, tmp_path):
    result = run(recipe(model, steps=STEPS[:-1]), tmp_path / "store", tmp_path / "run", task=TASK)
    assert result.front


def test_it_can_be_overridden_and_is_then_not_starred(model, tmp_path):
    result = run(recipe(model, allow_weak_teacher=True), tmp_path / "store", tmp_path / "run", task=TASK)
    summary = result.run_summary
    assert headline(summary).startswith("Nothing was learned: the chosen model")
    assert any("no better than a constant answer" in problem for problem in budget_violations(result))
    table = front_table(summary)
    assert "★" not in list(table.columns[0].cells)
    assert "constant: always" in str(list(table.columns[1].cells)[-1])
    assert to_json(summary)["better_than_baseline"] is False
    assert (
        to_json(summary)["baseline"]["quality"]["validation"]["value"] == summary.baseline.quality["validation"].value
    )
    assert "no better than a constant answer" in front_csv(summary)
    written = deliver(result, tmp_path / "artefact")
    assert "constant answer: always" in written["report"].read_text(encoding="utf-8")
    assert "the same, always" in (written["artefact"] / "README.md").read_text(encoding="utf-8")


def test_a_teacher_that_knows_more_goes_on(tmp_path, make_model):
    """The same model, after a few epochs."""
    folder, tokenizer = tmp_path / "model", toy_tokenizer(TASK)
    save_model(make_model(labels=3, vocab_size=len(tokenizer)), tokenizer, folder)
    task = toy_task(train=120, validation=60, test=16)
    steps = [{"finetune": {"epochs": 12, "learning_rate": 3e-3, "batch_size": 8}}, *STEPS]
    result = run(
        parse({"model": str(folder), "task": "movie-reviews", "name": "toy", "steps": steps}),
        tmp_path / "store",
        tmp_path / "run",
        task=task,
    )
    assert budget_violations(result) == ()
    assert not headline(result.run_summary).startswith("Nothing was learned")


class OneHot:
    """A teacher whose vector of a text is that of the number in it."""

    identity, probabilities, notes, order_assumed = "one-hot", False, (), False

    def lacks(self, task, split):
        return ""

    def answer(self, task, split):
        return np.eye(40)[[int(text.split()[-1]) for text in task.split(split).texts]]


def test_it_is_compared_on_a_sample_of_queries_with_all_documents(monkeypatch):
    monkeypatch.setattr(weak_teacher, "ROWS", 12)
    labels = (*map(Document, range(40)), *(Query(((number, 1.0),)) for number in range(30)))
    split = Split((*(f"text {n}" for n in range(40)), *(f"query {n}" for n in range(30))), labels)
    task = Task("s", "embedding", {"train": split, "validation": split}, (), "ndcg_at_10")
    comparison, _ = weak_teacher.compare_teacher(OneHot(), None, task)
    assert comparison.model.value == 1
    assert comparison.model.n == 52
    assert comparison.better


def test_the_field_of_the_recipe(model):
    assert to_data(recipe(model, allow_weak_teacher=True))["allow_weak_teacher"] is True
    assert "allow_weak_teacher" not in to_data(recipe(model))
    (problem,) = check({**to_data(recipe(model)), "allow_weak_teacher": "yes"})
    assert "true or false" in str(problem)
