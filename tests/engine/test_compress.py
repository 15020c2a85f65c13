"""The plan of the main job: which recipe a budget, a model and a task lead to. The job itself: tests/test_cli.py."""

from __future__ import annotations

import json

import pytest

from limbeck.core.shape import Shape
from limbeck.core.target import Budget, Target
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.compress import GOALS, SPEEDUPS, answers_task, plan_recipe
from limbeck.engine.recipe import check, parse, to_data
from limbeck.errors import InputError
from limbeck.model.files import save_model
from limbeck.model.heads import set_labels

TASK = toy_task(train=24, validation=8, test=8)


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_model):
    """A task as files, with and without a test split, and a model that answers it."""
    place = tmp_path_factory.mktemp("planned")
    for name, splits in (("task", ("train", "validation", "test")), ("no-test", ("train", "validation"))):
        (place / name).mkdir()
        for split in splits:
            rows = [{**row, "label": TASK.label_names[row["label"]]} for row in TASK.split(split).to_rows()]
            (place / name / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = make_model(labels=3, vocab_size=60)
    save_model(model, toy_tokenizer(TASK), place / "other")
    set_labels(model, TASK.label_names, TASK.kind, seed=0)
    save_model(model, toy_tokenizer(TASK), place / "ready")
    return place


def planned(place, model="other", task="task", budget=None, **more):
    recipe = plan_recipe(
        str(place / model), str(place / task), budget=budget or Budget(latency_ms=2.0), target=Target(threads=2), **more
    )
    assert not check(recipe)
    assert parse(to_data(recipe)) == recipe
    return recipe


def names(steps):
    """Names of steps; of a fork, those of its branches."""
    return [step.name if hasattr(step, "name") else [names(branch) for branch in step.branches] for step in steps]


@pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
def test_effort_decides_how_many_candidates(place, effort):
    recipe = planned(place, effort=effort)
    first, fork, *rest = names(recipe.steps)
    assert first == "finetune"
    assert fork[:3] == [[], ["export"], ["export", "quantize"]]
    assert fork[3:] == [["prune", "distill", "export", "quantize"]] * len(GOALS[effort])
    assert rest == ["size", "quality", "quality", "latency", "best"]
    assert [branch[0].latency_ms for branch in recipe.steps[1].branches[3:]] == [2 * part for part in GOALS[effort]]
    without = planned(place, effort=effort, budget=Budget())
    assert [branch[0].speedup for branch in without.steps[1].branches[3:]] == list(SPEEDUPS[effort])
    assert names(without.steps)[-1] == "cheapest"


def test_half_of_the_layers_may_reach_what_all_cannot(place, make_model):
    deep = make_model(Shape.uniform(layers=5, hidden=32, heads=4, ffn=64), labels=3, max_positions=128)
    save_model(deep, toy_tokenizer(TASK), place / "deep")
    goals = [branch[0] for branch in planned(place, "deep").steps[1].branches[3:]]
    assert [(goal.latency_ms, goal.layers) for goal in goals] == [(1.84, None), (1.4, None), (1.84, 2)]
    assert len(planned(place, "deep", budget=Budget()).steps[1].branches) == 3 + len(SPEEDUPS["standard"])


def test_a_model_that_answers_the_task_is_taken_as_it_is(place):
    recipe = planned(place, "ready")
    assert recipe.teacher == recipe.model
    assert "finetune" not in names(recipe.steps)


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        ({}, True),
        ({"id2label": {0: "ANGRY", 1: "sad", 2: "happy"}}, True),
        ({"id2label": {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}}, False),
        ({"id2label": {0: "sad", 1: "happy"}}, False),
        ({"id2label": {0: "b", 1: "c", 2: "d"}}, False),
        ({"architectures": ["LimbeckForTokenClassification"]}, False),
        ({"problem_type": "multi_label_classification"}, False),
    ],
)
def test_the_configuration_says_whether_a_model_answers_the_task(place, tmp_path, config, fits):
    written = json.loads((place / "ready" / "config.json").read_text()) | config
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert answers_task(str(tmp_path), TASK) is fits


def test_half_of_the_drop_is_left_to_int8(place):
    recipe = planned(place, budget=Budget(latency_ms=1.0, max_drop=1.0))
    assert recipe.steps[1].branches[2][1].max_drop == 0.5
    assert recipe.steps[1].branches[2][1].name == "quantize"


def test_without_a_test_split_all_is_measured_on_validation(place):
    *_, size, quality, latency, best = planned(place, task="no-test").steps
    assert {step.split for step in (size, quality, latency)} == {"validation"}
    assert best.name == "best"


def test_an_exported_model_is_refused(place, tmp_path):
    config = json.loads((place / "ready" / "config.json").read_text()) | {"limbeck_runtime": "onnxruntime"}
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="exported model, which cannot be trained"):
        plan_recipe(str(tmp_path / "exported"), str(place / "task"), budget=Budget(), target=Target())
