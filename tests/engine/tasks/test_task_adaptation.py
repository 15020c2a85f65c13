"""A run's task takes the label names of its model, or of its teacher."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from limbeck.core.task_kind import OWN_LENGTH
from limbeck.data.encoding import TextEncoding
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.store.store import Store
from limbeck.engine.tasks.task_adaptation import adapt_task, fit_length, served_length
from limbeck.errors import InputError
from limbeck.model.checkpoints import open_model, save_model
from limbeck.model.classification_head import set_labels
from limbeck.recipe.checks import check_length
from limbeck.recipe.recipe import parse

TASK = toy_task(train=24, validation=8, test=8)
UPPER = tuple(name.upper() for name in TASK.label_names)


@pytest.fixture(scope="module")
def models(tmp_path_factory, make_model):
    """Models with the task's labels in capitals, with names that say nothing, and with others."""
    root = tmp_path_factory.mktemp("models")
    for name, labels in {"upper": UPPER, "silent": ("LABEL_0", "LABEL_1", "LABEL_2"), "other": ("x", "y")}.items():
        model = make_model(labels=len(labels), vocab_size=60, max_positions=128)
        set_labels(model, labels, "classification")
        tokenizer = toy_tokenizer(TASK)
        tokenizer.model_max_length = 200  # more than the model has positions for
        save_model(model, tokenizer, root / name)
    return root


def test_open_lengths_are_those_of_the_model(models, make_model, tmp_path):
    task = toy_task("embedding", train=24, validation=8, test=8)
    assert fit_length(replace(task, max_length=OWN_LENGTH), models / "upper").max_length == 128
    assert fit_length(task, models / "upper") is task
    open_task = replace(task, max_length=OWN_LENGTH)
    assert fit_length(open_task, tmp_path / "nowhere") is open_task


def test_an_artefact_is_judged_at_the_length_that_it_serves(models, tmp_path):
    folder = models / "upper"
    assert served_length(TASK, folder) is TASK
    artefact = tmp_path / "artefact"
    shutil.copytree(folder, artefact)
    encoding = {"max_length": 24, "truncation_side": "right", "token_type_ids": False, "words": False}
    (artefact / "limbeck.json").write_text(json.dumps({"max_length": 24, "encoding": encoding}))
    assert TASK.max_length != 24
    assert served_length(TASK, artefact) == replace(TASK, max_length=24)
    assert served_length(TASK, artefact, chosen=True) is TASK


def test_texts_are_cut_where_the_tokenizer_cuts_them_and_a_note_says_so(models, tmp_path):
    """What reports, cards and examples say of the length is then true."""
    folder = tmp_path / "short"
    shutil.copytree(models / "upper", folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"model_max_length": 16}))
    _, tokenizer = open_model(folder)
    for task in (TASK, replace(TASK, max_length=100)):
        cut = served_length(task, folder, chosen=True)
        assert cut.max_length == TextEncoding.of(tokenizer, task.max_length).max_length == 16
        assert cut.notes[-1].startswith(f"texts are cut at 16 tokens, not {task.max_length}: ")
        assert fit_length(cut, folder) is cut
    assert fit_length(replace(TASK, max_length=OWN_LENGTH), folder).max_length == 16
    for few in (16, 5):
        task = replace(TASK, max_length=few)
        assert fit_length(task, folder) is task
    beyond = replace(TASK, max_length=129)  # of the model's positions: refused, unless a step adds some
    assert fit_length(beyond, folder) is beyond
    file.write_text(json.dumps(settings | {"model_max_length": 1e30}))
    assert fit_length(TASK, folder) is TASK


def test_the_length_of_vectors_is_not_that_of_other_answers():
    task = toy_task("embedding", train=24, validation=8, test=8)
    assert fit_length(replace(task, max_length=OWN_LENGTH), "minilm-l6").max_length == 256
    check_length("minilm-l6", replace(TASK, max_length=512))
    check_length("minilm-l6", replace(task, max_length=256))
    with pytest.raises(InputError, match="takes at most 256 tokens"):
        check_length("minilm-l6", replace(task, max_length=257))


def adapted(models, model, steps, store, teacher=None):
    data = {"model": str(models / model), "task": "movie-reviews", "steps": steps}
    data |= {"teacher": str(models / teacher)} if teacher else {}
    return adapt_task(parse(data), TASK, Store(store))


def test_the_names_are_those_of_the_model(models, tmp_path):
    task, notes = adapted(models, "upper", [{"export": {}}], tmp_path)
    assert task.label_names == UPPER
    assert len(notes) == 1


def test_or_of_the_teacher_if_only_that_answers(models, tmp_path):
    task, _ = adapted(models, "other", [{"distill": {}}], tmp_path, "upper")
    assert task.label_names == UPPER
    assert adapted(models, "other", [{"finetune": {}}], tmp_path)[0] is TASK


def test_an_order_is_checked_once(models, tmp_path, monkeypatch):
    from limbeck.measure import label_order as labels

    calls = []
    measure = labels.measure_order
    monkeypatch.setattr(labels, "measure_order", lambda *given: calls.append(given) or measure(*given))
    first, second = (adapted(models, "silent", [{"export": {}}], tmp_path) for _ in range(2))
    assert first == second
    assert len(calls) == 1
    assert first[0].notes[-1] == first[1][-1]


def test_a_dry_run_opens_no_model(models, tmp_path, monkeypatch):
    monkeypatch.setattr("limbeck.measure.label_order.measure_order", None)
    recipe = parse({"model": str(models / "silent"), "task": "movie-reviews", "steps": [{"export": {}}]})
    task, notes = adapt_task(recipe, TASK, Store(tmp_path), dry=True)
    assert task.label_names == TASK.label_names
    assert "assumed" in notes[0]


def test_toys_and_models_that_are_not_here_are_left_to_those_that_open_them(models, tmp_path):
    recipe = parse({"model": "owner/absent", "task": "movie-reviews", "steps": [{"export": {}}]})
    assert adapt_task(recipe, TASK, Store(tmp_path)) == (TASK, ())
    assert adapt_task(recipe, "no task", Store(tmp_path)) == ("no task", ())
