"""Recipes are parsed, printed, changed, included."""

from __future__ import annotations

import pytest

from limbeck.core.target import Budget, Target
from limbeck.errors import RecipeError
from limbeck.recipe import recipe as recipes
from limbeck.recipe.recipe import Fork, Recipe, dump, load_recipe, parse, to_data


def minimal(*steps, **more):
    return {"model": "bert", "task": "movie-reviews", "steps": list(steps), **more}


def test_a_recipe_from_data(toys):
    recipe = parse(
        minimal(
            {"toy-train": {"epochs": 3, "rate": {"start": 1e-4}}},
            "toy-prune",
            {"toy-quality": None},
            target={"threads": 2, "seq_len": 16},
            budget={"latency_ms": 2},
            seed=3,
        )
    )
    train, prune, quality = recipe.steps
    assert train == toys.ToyTrain(epochs=3, rate=toys.Rate(1e-4))
    assert (prune, quality) == (toys.ToyPrune(), toys.ToyQuality())
    assert recipe.target == Target(threads=2, seq_len=16)
    assert recipe.budget == Budget(latency_ms=2)
    assert (recipe.seed, recipe.replicas, recipe.teacher) == (3, 1, None)


def test_parse_of_dump_is_the_same_recipe(toys):
    recipe = Recipe(
        model="bert",
        task={"train": "a.csv", "limit": {"train": 20}},
        steps=(
            toys.ToyTrain(rate=toys.Rate(1e-5), terms=("hidden", "logits")),
            Fork(((toys.ToyPrune(0.25), Fork(((), (toys.ToyAugment(),)))), ())),
        ),
        target=Target(threads=4),
        budget=Budget(max_drop=1.0),
        seed=5,
        teacher="other",
        replicas=3,
        name="mine",
    )
    for full in (False, True):
        again = recipes.yaml_text.load(dump(recipe, full=full))
        assert parse(again) == recipe
    assert str(recipe) == dump(recipe)
    assert "- toy-train:\n    rate: {start: 1e-05, end: 0.0}\n    terms: [hidden, logits]\n" in str(recipe)
    assert to_data(recipe)["target"] == {"threads": 4}
    assert to_data(recipe, full=True)["target"]["batch"] == 1


def test_each_is_a_fork_over_the_product(toys):
    recipe = parse(minimal({"each": {"toy-train": {"epochs": [1, 2], "by": [0.5, 1.5], "terms": ["a", "b"]}}}))
    fork = recipe.steps[0]
    assert isinstance(fork, Fork)
    seen = [(branch[0].epochs, branch[0].by, branch[0].terms) for branch in fork.branches]
    assert seen == [(1, 0.5, ("a", "b")), (1, 1.5, ("a", "b")), (2, 0.5, ("a", "b")), (2, 1.5, ("a", "b"))]


def test_a_list_of_lists_sweeps_a_field_that_takes_a_list(toys):
    recipe = parse(minimal({"each": {"toy-train": {"terms": [["a"], ["a", "b"]]}}}))
    assert [branch[0].terms for branch in recipe.steps[0].branches] == [("a",), ("a", "b")]


def test_use_splices_relative_to_the_file(toys, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "inner.yaml").write_text("steps: [toy-augment]")
    (tmp_path / "parts" / "warm.yaml").write_text(
        "model: ignored\nsteps:\n  - toy-train: {epochs: 1}\n  - use: inner.yaml"
    )
    main = tmp_path / "main.yaml"
    main.write_text(
        "model: bert\ntask: movie-reviews\nsteps:\n  - use: parts/warm.yaml\n  - fork: [[use: parts/warm.yaml], []]"
    )
    recipe = load_recipe(main)
    spliced = (toys.ToyTrain(1), toys.ToyAugment())
    assert recipe.steps == (*spliced, Fork((spliced, ())))
    assert recipe.name == "main"


def test_paths_are_relative_to_the_recipe(toys, tmp_path):
    folder = toys.model_folder(tmp_path / "model")
    (tmp_path / "rows.csv").write_text("text,label\n")
    (tmp_path / "main.yaml").write_text("model: ./model\ntask: {train: rows.csv, text: text}\nsteps: []")
    recipe = load_recipe(tmp_path / "main.yaml")
    assert recipe.model == folder
    assert recipe.task == {"train": str(tmp_path / "rows.csv"), "text": "text"}


def test_settings_replace_fields(toys):
    recipe = parse(minimal({"toy-train": {}}, {"fork": [[], ["toy-prune"]]}, name="mine"))
    changed = recipe.with_(
        "steps.0.toy-train.rate.start=1e-3", "steps[1].fork[1][0].toy-prune.keep=0.25", "seed=4", "budget.latency_ms=2"
    )
    assert changed.steps == (toys.ToyTrain(rate=toys.Rate(1e-3)), Fork(((), (toys.ToyPrune(0.25),))))
    assert (changed.seed, changed.budget, changed.name) == (4, Budget(latency_ms=2), "mine")
    assert recipe.seed == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed", "write path=value"),
        ("sed=1", "the recipe has no 'sed'; did you mean 'seed'?"),
        ("steps.3.toy-prune.keep=1", "steps has entries 0 to 0, not '3'"),
        ("steps.0.toy-prune.keep=1", "steps.0 has no 'toy-prune'; did you mean"),
        ("steps.0.toy-train.epoch=1", "steps.0.toy-train has no 'epoch'; did you mean 'epochs'?"),
        ("steps.0.toy-train.epochs=0", "steps[0].toy-train.epochs: should be more than 0, got 0"),
        ("task.limit.train=5", "task is 'movie-reviews', which has no field 'limit'"),
    ],
)
def test_a_wrong_setting_says_what_there_is(toys, setting, message):
    with pytest.raises(RecipeError) as error:
        parse(minimal("toy-train")).with_(setting)
    assert message in str(error.value)


def test_a_setting_may_add_an_option_of_the_task(toys):
    recipe = parse({"model": "bert", "task": {"path": "movie-reviews"}, "steps": []}).with_("task.limit.train=5")
    assert recipe.task == {"path": "movie-reviews", "limit": {"train": 5}}


def test_recipes_that_ship_are_found_by_name(toys, tmp_path, monkeypatch):
    (tmp_path / "quickstart.yaml").write_text("model: bert\ntask: movie-reviews\nsteps: [toy-train]")
    monkeypatch.setattr(recipes, "shipped", lambda: {"quickstart": tmp_path / "quickstart.yaml"})
    assert load_recipe("quickstart").steps == (toys.ToyTrain(),)
    with pytest.raises(RecipeError, match="no recipe called 'quikstart' and no such file; did you mean 'quickstart'"):
        load_recipe("quikstart")
    with pytest.raises(RecipeError, match=r"no recipe file .*quickstrt.yaml'; did you mean 'quickstart.yaml'"):
        load_recipe(tmp_path / "quickstrt.yaml")


def test_the_recipes_of_the_package_parse():
    for path in recipes.shipped().values():
        recipe = load_recipe(path)
        assert parse(to_data(recipe, full=True)) == recipe
