"""Several recipes on the same workers: the same results and ledgers as one after the other."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from toy_workers import Threads, outcome

from limbeck.distributed.config import ExecutorConfig
from limbeck.distributed.workers import Workers
from limbeck.engine.workers import orders, several
from limbeck.engine.workers.several import Held, run_several
from limbeck.recipe.recipe import Recipe


@pytest.fixture
def backend(monkeypatch):
    """What carries out the work in place of processes."""
    threads = Threads()

    @contextmanager
    def opened(config, folder):
        workers = Workers(threads, 3)
        try:
            yield workers
        finally:
            workers.close()

    monkeypatch.setattr(several, "open_workers", opened)
    return threads


def test_recipes_begin_at_once_and_end_as_one_after_the_other(toys, tmp_path, monkeypatch, backend):
    monkeypatch.setattr(orders, "OPEN_STORE", toys.store)
    monkeypatch.setattr("limbeck.engine.run.checked", lambda recipe, *_, **__: (recipe, toys.ToyTask()))
    monkeypatch.setattr(several, "checked", lambda recipe, *_: (recipe, toys.ToyTask()))
    model = toys.model_folder(tmp_path / "model")
    recipes = [
        Recipe(model, "movie-reviews", (toys.ToyTrain(1), toys.ToyShare(), toys.ToyQuality())),
        Recipe(model, "movie-reviews", (toys.ToyPrune(), toys.ToyBreak(below=9))),
        Recipe(model, "movie-reviews", (toys.ToyLevels(), toys.ToyTrain(2), toys.ToyBest())),
    ]

    def go(name, executor):
        folders = [tmp_path / name / str(number) for number in range(3)]
        shown = []
        store = toys.store(tmp_path / f"store-{name}")
        results = list(run_several(recipes, folders, store, toys.ToyTask(), shown.append, executor))
        return [outcome(result) for result in results], [event for event in shown if event["kind"] == "step_start"]

    alone, steps = go("alone", ExecutorConfig())
    assert go("together", ExecutorConfig("processes", workers=3)) == (alone, steps)
    assert len({key for _, key in backend.done}) >= 3


def test_events_of_a_run_come_when_it_is_its_turn():
    seen = []
    held = Held(seen.append)
    held({"kind": "note"})
    assert seen == []
    held.release()
    held({"kind": "log"})
    assert seen == [{"kind": "note"}, {"kind": "log"}]
