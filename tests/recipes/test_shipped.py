"""Every recipe in the repository is one that runs: it parses, checks, prints and reads back."""

import re
from pathlib import Path

import pytest

from limbeck.recipe.recipe import check, dump, load_recipe, parse, shipped
from limbeck.storage.yaml_text import load

ROOT = Path(__file__).parent.parent.parent
RECIPES = {**shipped(), **{path.stem: path for path in (ROOT / "benchmarks").glob("*.yaml")}}
ABSENT = re.compile(r"data/\S+: there is no such file")


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipe_has_no_problems(name):
    problems = check(RECIPES[name])
    if RECIPES[name].parent.name == "benchmarks":  # whose data are not part of the repository
        problems = [problem for problem in problems if not ABSENT.search(problem.message)]
    assert not problems


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipe_reads_back_as_printed(name):
    recipe = load_recipe(RECIPES[name])
    assert parse(load(dump(recipe)), name=recipe.name).steps == recipe.steps


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipe_says_what_it_is_for(name):
    first = RECIPES[name].read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")


def test_both_spellings_of_a_training_field_are_one_step():
    short, full = ({"epochs": 2}, {"num_train_epochs": 2})
    steps = [parse({"model": "m", "task": "t", "steps": [{"finetune": fields}]}).steps for fields in (short, full)]
    assert steps[0] == steps[1]
