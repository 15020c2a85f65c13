"""The records of an earlier run are told apart by their keys alone."""

from __future__ import annotations

import shutil

import pytest

from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.run import run
from limbeck.engine.store.gc import collect
from limbeck.errors import StoreError
from limbeck.recipe.recipe import Fork, Recipe


@pytest.fixture
def result(toys, tmp_path):
    branches = Fork(((toys.ToyPrune(0.5),), (toys.ToyPrune(0.25), toys.ToyLevels((2, 1)))))
    steps = (toys.ToyTrain(2), toys.ToyAugment(), branches, toys.ToyQuality(), toys.ToyBest())
    recipe = Recipe(toys.model_folder(tmp_path / "model"), "movie-reviews", steps, replicas=3)
    return run(recipe, toys.store(tmp_path / "store"), tmp_path / "run", task=toys.ToyTask())


def adopted(result, toys, **store):
    builder = CandidateBuilder(result.recipe, toys.ToyTask(), store.get("store", result.store))
    builder.adopt(result.records.values())
    return builder


def test_how_each_was_made_is_found_again(result, toys):
    origins = adopted(result, toys).origins
    assert origins.keys() == result.records.keys()
    for key, origin in origins.items():
        located = result.builder.origins[key]
        assert (origin.step, origin.index, origin.source, origin.role) == (
            located.step,
            located.index,
            located.source,
            located.role,
        )
    assert {origins[key].seed for key in result.replicas[result.chosen[0]]} <= {0, 1, 2}


def test_all_are_made_again_alike(result, toys, tmp_path):
    expected = {key: result.open(key).model for key in result.records}
    collect(result.store)
    builder = adopted(result, toys)
    assert {key: builder.open(key).model for key in result.records} == expected


def test_what_nothing_makes_here_is_refused(result, toys, tmp_path):
    toys.model_folder(tmp_path / "model", (9.0, 9.0))
    shutil.rmtree(result.store.objects)
    builder = adopted(result, toys)
    assert builder.origins == {}
    with pytest.raises(StoreError, match=r"has no object .* from a model that has changed; run the recipe again"):
        builder.open(result.chosen[0])
