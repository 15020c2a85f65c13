"""The result of a run, read again from its folder."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from limbeck.engine.result import is_finished, read_result, retained_keys
from limbeck.engine.run import run
from limbeck.errors import InputError
from limbeck.recipe.recipe import Recipe
from limbeck.report.report import to_json


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
    assert is_finished(tmp_path / "run")
    ledger = tmp_path / "run" / "ledger.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:-1]))  # killed just before the end
    assert retained_keys(tmp_path / "run")[1] == set(result.records)
    assert not is_finished(tmp_path / "run")


def test_what_workers_made_ahead_of_an_interrupted_walk_is_worth_keeping(toys, tmp_path):
    """The ledger has what the walk came to; the store has the children of every step that has ended."""
    model, store = toys.model_folder(tmp_path / "model"), toys.store(tmp_path / "store")

    def go(name, *steps):
        recipe = Recipe(model, "movie-reviews", steps)
        return run(recipe, store, tmp_path / name, task=toys.ToyTask())

    result = go("run", toys.ToyTrain(), toys.ToyLevels((4, 2)), toys.ToyPrune())
    others = go("other", toys.ToyTrain(), toys.ToyLevels((4, 1)), toys.ToyTrain(9))
    assert set(result.records) & set(others.records)
    ledger = tmp_path / "run" / "ledger.jsonl"
    trained = next(key for key, record in result.records.items() if record.step == "toy-train")
    lines = ledger.read_text().splitlines(keepends=True)
    position = next(number for number, line in enumerate(lines) if f'"key": "{trained}"' in line)
    ledger.write_text("".join(lines[: position + 1]))
    assert retained_keys(tmp_path / "run")[1] == set(result.records)  # and nothing of other recipes


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


def test_a_whole_ledger_has_no_gaps(result, toys, tmp_path):
    assert read_result(tmp_path / "run").gaps == result.gaps == ()
    with (tmp_path / "run" / "ledger.jsonl").open("a") as stream:
        stream.write('{"event": "rec')
    assert "1 line of" in read_result(tmp_path / "run").gaps[0]
    recipe = Recipe(toys.model_folder(tmp_path / "model"), "movie-reviews", result.recipe.steps, name="toy")
    run(recipe, toys.store(tmp_path / "store"), tmp_path / "run", task=toys.ToyTask())
    assert read_result(tmp_path / "run").gaps == ()  # the line belonged to the run before


@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
def test_a_ledger_that_is_cut_short_says_what_is_missing(result, toys, tmp_path, share, monkeypatch):
    ledger = tmp_path / "run" / "ledger.jsonl"
    content = ledger.read_bytes()
    ledger.write_bytes(content[: int(share * len(content))])
    again = replace(read_result(tmp_path / "run"), task=toys.ToyTask())
    unread, ended, remedy = again.gaps
    assert unread.startswith("1 line of ")
    assert "did not end" in ended
    command = f"limbeck run {tmp_path / 'run' / 'recipe.yaml'} --folder {tmp_path / 'run'}"
    assert f"'{command} --store {tmp_path / 'store'}' goes on" in remedy
    monkeypatch.setenv("LIMBECK_STORE", str(tmp_path / "store"))
    assert f"'{command}' goes on" in read_result(tmp_path / "run").gaps[-1]
    assert to_json(again.run_summary)["gaps"] == list(again.gaps)
    for text in (str(again), again._repr_html_()):
        assert "incomplete: 1 line of" in text
    with pytest.raises(InputError, match="so the models that the run needs are not all known"):
        retained_keys(tmp_path / "run")


def test_models_without_a_line_of_their_own_are_counted(result, tmp_path):
    ledger = tmp_path / "run" / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    chosen = result.chosen[0]
    ledger.write_text("".join("[5]\n" if f'"key": "{chosen}"' in line else line for line in lines))
    again = read_result(tmp_path / "run")
    assert again.chosen == []
    assert chosen not in again.front
    assert "cannot be read" in again.gaps[0]
    assert again.gaps[1] == "1 model of the run is named but not described"
    assert retained_keys(tmp_path / "run") == retained_keys(tmp_path / "run")
    assert chosen in retained_keys(tmp_path / "run")[1]  # its end is known, so nothing it needs is removed
