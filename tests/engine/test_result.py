"""The result of a run, read again from its folder."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from limbeck.engine.result import read_result, retained_keys
from limbeck.engine.run import run
from limbeck.recipe.recipe import Recipe


@pytest.fixture
def result(toys, tmp_path, monkeypatch):
    steps = (toys.ToyTrain(), toys.ToyLevels((4, 2)), toys.ToyBreak(below=4), toys.ToyQuality(), toys.ToyBest())
    recipe = Recipe(toys.model_folder(tmp_path / "model"), "movie-reviews", steps, name="toy")
    return run(recipe, toys.store(tmp_path / "store"), tmp_path / "run", task=toys.ToyTask())


def test_read_from_the_ledger_it_is_the_same(result, toys, tmp_path):
    again = read_result(tmp_path / "run", toys.store(tmp_path / "store"))
    for name in ("recipe", "records", "front", "chosen", "teacher", "failed", "replicas", "measured"):
        assert getattr(again, name) == getattr(result, name), name
    assert not again.ok
    assert again.failed[0].error == "RuntimeError: too thin"
    assert again.store.root == result.store.root
    assert again.task is None
    assert again.open(again.chosen[0]).model == result.open(result.chosen[0]).model


def test_an_unfinished_run_has_what_it_reached(result, toys, tmp_path):
    ledger = tmp_path / "run" / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(line for line in lines if '"event": "finished"' not in line))
    again = read_result(tmp_path / "run")
    assert not again.chosen
    assert set(again.front) == {key for key, record in result.records.items() if record.step in ("toy-break",)} | {
        failure.key for failure in result.failed
    }


def test_an_object_that_is_gone_is_made_again(result, toys, tmp_path):
    key = result.chosen[0]
    expected = result.open(key).model
    for read in (result, replace(read_result(tmp_path / "run", toys.store(tmp_path / "store")), task=toys.ToyTask())):
        shutil.rmtree(result.store.objects / key)
        assert read.open(key).model == expected
        assert read.stored(key)[0] == result.store.objects / key
    assert [record.step for record in result.ancestors(key)] == ["model", "toy-train", "toy-levels", "toy-break"]


def test_what_a_run_ended_with_is_worth_keeping(toys, tmp_path):
    steps = (toys.ToyTrain(), toys.ToyPrune(), toys.ToyLevels())
    recipe = Recipe(toys.model_folder(tmp_path / "model"), "movie-reviews", steps)
    result = run(recipe, toys.store(tmp_path / "store"), tmp_path / "run", task=toys.ToyTask())
    assert retained_keys(tmp_path / "run") == (result.store.root, {*result.front, result.teacher})
    ledger = tmp_path / "run" / "ledger.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:-1]))  # killed just before the end
    assert retained_keys(tmp_path / "run")[1] == set(result.records)


def test_a_moved_folder_takes_its_task_along(result, toys, tmp_path):
    """The task came by value, so it lies in the folder of the run."""
    shutil.move(tmp_path / "run", tmp_path / "moved")
    again = read_result(tmp_path / "moved", toys.store(tmp_path / "store"))
    assert again.recipe.task == str(tmp_path / "moved" / "task")
    assert toys.open_task(tmp_path / "moved" / "task") == toys.ToyTask()


def test_it_is_shown_in_a_line_or_as_the_table(result):
    assert len(repr(result)) < 300
    assert "chosen" in repr(result)
    assert "1 failed" in repr(result)
    for shown in (str(result), result._repr_html_()):
        assert "★" in shown
        assert "failed: toy-break: RuntimeError: too thin" in shown
        assert str(result.folder) in shown
