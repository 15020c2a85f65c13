"""A run makes nothing twice, goes on after failures, and measures what was not measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from limbeck.data import loading
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.run import read_result, run
from limbeck.engine.tasks import answered_texts
from limbeck.errors import InputError, RecipeError
from limbeck.model.checkpoints import save_model
from limbeck.recipe.recipe import Fork, load_recipe, parse


def test_a_teacher_from_the_recipe(go, toys, tmp_path):
    other = toys.model_folder(tmp_path / "other", [9.0, 9.0])
    result = go(toys.ToyPrune(), toys.ToyImitate(), teacher=other)
    assert result.open(result.front[0]).model.weights == [9.0, 9.0]
    assert result.records[result.teacher].step == "teacher"
    go(toys.ToyPrune(), toys.ToyImitate(), teacher=other)
    assert toys.calls().count("teacher opened") == 1


def test_the_ledger_tells_the_same_result(go, toys):
    toys_break = toys.ToyBreak(below=2)
    result = go(toys.ToyTrain(), toys.ToyLevels((4, 2, 1)), toys_break, toys.ToyQuality(), toys.ToyBest(), replicas=2)
    read = read_result(result.folder, result.store)
    for name in ("records", "front", "chosen", "teacher", "failed", "replicas", "recipe", "environment", "measured"):
        assert getattr(read, name) == getattr(result, name), name


def test_a_wrong_recipe_is_refused_before_anything(go, toys, tmp_path):
    with pytest.raises(RecipeError, match="has 2 problems"):
        go(toys.ToyPrune(3), toys.ToyImitate())
    assert not (tmp_path / "store").exists()


def test_a_split_that_the_task_lacks_is_told_before_anything(go, toys, tmp_path):
    with pytest.raises(RecipeError, match="has 2 problems") as error:
        go(toys.ToyTrain(), toys.ToyQuality(split="test"), Fork(((toys.ToyQuality(split="trian"),),)))
    lines = str(error.value).splitlines()[1:]
    assert lines == [
        "  steps[1].toy-quality.split: the task has no split 'test'; choose from 'train'",
        "  steps[2].fork[0][0].toy-quality.split: the task has no split 'trian'; did you mean 'train'?",
    ]
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("role", ["model", "teacher"])
def test_texts_longer_than_the_model_are_told_before_anything(go, toys, tmp_path, role):
    short = tmp_path / role
    toys.model_folder(short)
    config = (short / "config.json").read_text()
    (short / "config.json").write_text(config.replace('"max_position_embeddings": 512', '"max_position_embeddings": 8'))
    task = replace(toys.ToyTask(), max_length=9)
    with pytest.raises(InputError, match=rf"max_length 9, but '{short}' takes at most 8 tokens"):
        go(toys.ToyTrain(), task=task, teacher=str(tmp_path / "teacher") if role == "teacher" else None)
    assert not (tmp_path / "store").exists()


def test_a_head_that_was_never_trained_is_not_used(go, toys, tmp_path):
    toys.model_folder(tmp_path / "model", fresh_head=True)
    for _ in range(2):  # found in the store the second time
        with pytest.raises(InputError, match=r"no trained head.*'toy-prune' \(steps\[1\]\).* put .*'toy-train'"):
            go(toys.ToyQuality(), toys.ToyPrune(), toys.ToyTrain())
    result = go(toys.ToyTrain(), toys.ToyPrune())
    assert result.ancestors(result.front[0])[0].notes == ("has no trained head for this task",)
    with pytest.raises(InputError, match=r"teacher .* has no trained head for this task; fine-tune it first"):
        go(toys.ToyTrain(), teacher=toys.model_folder(tmp_path / "other", fresh_head=True))
    with pytest.raises(InputError, match=r"teacher .* fine-tune it first"):
        go(toys.ToyTrain(epochs=1), teacher=toys.model_folder(tmp_path / "model", (3.0,), fresh_head=True))


def test_interruption_says_how_to_go_on(go, toys, monkeypatch):
    def stop(self, candidate, context):
        raise KeyboardInterrupt

    monkeypatch.setattr(toys.ToyPrune, "apply", stop)
    with pytest.raises(KeyboardInterrupt):
        go(toys.ToyTrain(), toys.ToyPrune())
    assert "the same command resumes here" in go.events[-1]["message"]


def test_recipes_from_yaml_run(go, toys, tmp_path):
    model = str(tmp_path / "model")
    recipe = parse(
        {
            "model": model,
            "task": "movie-reviews",
            "steps": ["toy-train", {"each": {"toy-prune": {"keep": [0.25, 0.5]}}}, "toy-quality", "toy-best"],
        }
    )
    result = run(recipe, toys.store(tmp_path / "store"), tmp_path / "run", task=toys.ToyTask())
    assert len(result.records) == 4
    assert [result.records[key].parameters for key in result.chosen] == [{"keep": 0.25}]


def test_a_task_by_name_is_looked_up_and_loaded_once(toys, tmp_path, monkeypatch):
    calls = Counter()

    def counted(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda spec: calls.update([name]) or function(spec))

    counted(loading, "check_task")
    counted(answered_texts, "load_task")
    toys.ToyTask().to_folder(tmp_path / "task")
    data = {"model": toys.model_folder(tmp_path / "model"), "task": str(tmp_path / "task"), "steps": ["toy-train"]}
    result = run(parse(data), toys.store(tmp_path / "store"), tmp_path / "run")
    assert result.ok
    assert result.task == toys.ToyTask()
    assert calls == {"check_task": 1, "load_task": 1}


def test_a_task_by_value_is_named_by_the_recipe_that_is_written(go, toys, tmp_path):
    task = toys.ToyTask(("one", "two", "three"))
    result = go(toys.ToyTrain(), task=task)
    written = load_recipe(result.folder / "recipe.yaml")
    assert written.task == str(result.folder / "task")
    assert toys.open_task(Path(written.task)) == task
    assert "task: task\n" in (result.folder / "recipe.yaml").read_text()
    assert not [name for name in os.listdir(result.folder) if name.startswith(".")]


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(go, toys, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--folder .*is a file"):
        go(toys.ToyTrain(), folder="file/run")
    assert not go.events


SCRIPT = """
from limbeck import run
from limbeck.augmentation.config import NGramConfig
from limbeck.data.synthetic import toy_task
from limbeck.recipe.recipe import Recipe
from limbeck.techniques.augment import Augment

step = Augment(workers=2, chunk_rows=8, ngrams=NGramConfig(n_iter=2))
made = run(Recipe("model", "of the script", (step,), name="script"), "store", task=toy_task(train=32))
print(len(made.open(made.front[0]).task.split("train")) > 32)
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_starts_workers(tmp_path, make_model):
    save_model(make_model(labels=3, vocab_size=60), toy_tokenizer(toy_task(train=32)), tmp_path / "model")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert (ended.stdout, ended.returncode) == ("True\n", 0), ended.stderr
