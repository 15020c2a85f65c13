"""A run makes nothing twice, goes on after failures, and measures what was not measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from toy_runs import values

from limbeck.data import loading
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine import answered_texts
from limbeck.engine.gc import collect
from limbeck.engine.run import read_result, run
from limbeck.errors import InputError, RecipeError
from limbeck.model.checkpoints import save_model
from limbeck.recipe.recipe import Fork, load_recipe, parse


def test_steps_make_candidates_with_lineage(go, toys):
    result = go(toys.ToyTrain(epochs=2, by=0.5), toys.ToyPrune(0.5), toys.ToyExport())
    (last,) = result.front
    assert [record.step for record in result.ancestors(last)] == ["model", "toy-train", "toy-prune", "toy-export"]
    assert [sorted(record.traits) for record in result.ancestors(last)] == [
        ["torch"],
        ["teacher", "torch"],
        ["teacher", "torch"],
        ["onnx", "teacher"],
    ]
    assert result.open(last).model == toys.ToyModel([2.0, 3.0], 4, "onnxruntime")
    assert result.records[last].shape.layers[0].ffn == 4
    assert result.ancestors(last)[1].notes == ("trained 2 epochs",)
    assert result.records[result.teacher].step == "toy-train"
    assert result.ok
    assert load_recipe(result.folder / "recipe.yaml") == result.recipe


def test_what_a_technique_foretells_is_in_the_record_and_is_no_measurement(go, toys):
    result = go(toys.ToyTrain(), toys.ToyLevels((4, 2)), toys.ToyExport())
    for found in (result, go(toys.ToyTrain(), toys.ToyLevels((4, 2)), toys.ToyExport()), read_result(result.folder)):
        told = values(found, "latency_predicted")
        assert sorted(told.values()) == [0.002, 0.004]
        assert {found.records[key].step for key in told} == {"toy-levels"}
        assert found.measured == []


def test_finished_work_is_not_repeated(go, toys):
    steps = (toys.ToyTrain(), toys.ToyLevels(), toys.ToyQuality())
    first = go(*steps)
    done = toys.calls()
    second = go(*steps)
    assert toys.calls() == done
    assert second.records == first.records
    assert [event["known"] for event in go.events if event["kind"] == "candidate_end"] == [True, True]


def test_deleted_objects_lose_no_facts_and_come_back(go, toys):
    steps = (toys.ToyTrain(), toys.ToyLevels(), toys.ToyQuality())
    first = go(*steps)
    collect(first.store)
    done = toys.calls()
    assert go(*steps).records == first.records
    assert toys.calls() == done  # facts and records need no objects
    longer = go(*steps, toys.ToyPrune())
    assert set(first.records) < set(longer.records)
    assert longer.open(longer.front[1]).model.ffn == 1
    collect(first.store)
    assert first.open(first.front[0]).model.ffn == 4


def test_a_damaged_object_is_made_again(go, toys):
    first = go(toys.ToyTrain())
    (first.store.objects / first.front[0] / "config.json").write_text("{}")
    second = go(toys.ToyTrain(), toys.ToyPrune())
    assert second.open(second.front[0]).model == toys.ToyModel([3.0, 4.0], 4)
    assert any("will be made again" in event.get("message", "") for event in go.events)
    path = first.store.objects / first.front[0] / "config.json"
    path.write_text("x" * path.stat().st_size)  # the right size, the wrong content
    third = go(toys.ToyTrain(), toys.ToyPrune(0.25))
    assert third.open(third.front[0]).model == toys.ToyModel([3.0, 4.0], 2)


def test_forks_start_from_the_same_front_and_share_work(go, toys):
    branches = Fork(
        (
            (toys.ToyTrain(1), toys.ToyPrune(0.5)),
            (toys.ToyTrain(1), toys.ToyPrune(0.25)),
            (toys.ToyTrain(1), toys.ToyPrune(0.25)),
            (),
        )
    )
    result = go(branches, toys.ToyQuality())
    assert [result.records[key].step for key in result.front] == ["toy-prune", "toy-prune", "model"]
    assert toys.calls().count("epoch 1.0 0") == 1
    assert [fact for fact in values(result).values()] == [3.0, 5.0, 5.0]


def test_several_children_have_keys_with_numbers(go, toys):
    result = go(toys.ToyLevels((4, 2, 1)))
    first, second, third = result.front
    assert (second, third) == (f"{first}-1", f"{first}-2")
    assert [result.open(key).model.ffn for key in result.front] == [4, 2, 1]


def test_a_changed_task_is_kept_with_the_candidate(go, toys):
    result = go(toys.ToyAugment(), toys.ToyPrune())
    assert result.open(result.front[0]).task.split("train").texts == ("good", "bad", "more")
    assert len(list(result.store.tasks.iterdir())) == 2


def test_only_declared_services_enter_keys(go, toys):
    prune = go(toys.ToyPrune()), go(toys.ToyPrune(), target=running_target(threads=2))
    clock = toys.ToyClock()
    assert prune[0].front == prune[1].front
    before = toys.calls()
    go(clock)
    go(clock, target=running_target(threads=2))
    assert toys.calls()[len(before) :].count("clock 1") == 2
    one, two = go(toys.ToyTrain()), go(toys.ToyTrain(), seed=1)
    assert one.front != two.front


def running_target(**more):
    from limbeck.core.target import Target

    return Target(**more)


def test_the_teacher_is_the_first_that_was_trained(go, toys):
    result = go(toys.ToyTrain(by=2.0), toys.ToyPrune(), toys.ToyTrain(by=5.0), toys.ToyPrune(), toys.ToyImitate())
    assert result.open(result.front[0]).model.weights == [5.0, 6.0]
    assert result.records[result.teacher].parent == result.ancestors(result.front[0])[0].key


def test_a_teacher_from_the_recipe(go, toys, tmp_path):
    other = toys.model_folder(tmp_path / "other", [9.0, 9.0])
    result = go(toys.ToyPrune(), toys.ToyImitate(), teacher=other)
    assert result.open(result.front[0]).model.weights == [9.0, 9.0]
    assert result.records[result.teacher].step == "teacher"
    go(toys.ToyPrune(), toys.ToyImitate(), teacher=other)
    assert toys.calls().count("teacher opened") == 1


def test_replicas_repeat_the_chosen_with_other_seeds(go, toys):
    steps = (toys.ToyTrain(1), toys.ToyLevels((4, 2)), toys.ToyQuality(), toys.ToyClock(), toys.ToyBest())
    result = go(*steps, replicas=3)
    (chosen,) = result.chosen
    twins = result.replicas[chosen]
    assert [result.records[key].fact("quality").value for key in (chosen, *twins)] == [5.0, 7.0, 9.0]
    assert [result.records[key].shape for key in twins] == [result.records[chosen].shape] * 2
    assert not any(result.records[key].fact("latency_p50") for key in twins)


def test_events_count_the_steps(go, toys):
    go(toys.ToyTrain(), Fork(((toys.ToyPrune(),), ())), toys.ToyQuality())
    starts = [event for event in go.events if event["kind"] == "step_start"]
    assert [(event["path"], event["position"], event["total"]) for event in starts] == [
        ("steps[0]", 1, 3),
        ("steps[1].fork[0][0]", 2, 3),
        ("steps[2]", 3, 3),
    ]
    assert go.events[-1]["kind"] == "finished"
    (shown,) = [event for event in go.events if event["kind"] == "progress"][:1]
    assert (shown["step"], shown["numbers"]) == ("toy-train", {"step": 1, "total": 2})


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
