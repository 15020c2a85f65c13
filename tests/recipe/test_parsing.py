"""Plain data becomes steps with their places."""

from __future__ import annotations

import pytest

from limbeck.core.step import StepInfo, Technique, step
from limbeck.errors import RenamedWarning
from limbeck.recipe.parsing import Fork, locate, read
from limbeck.recipe.recipe import Recipe, parse, to_data


def parsed(*steps, base=None, **more):
    values, placed, problems = read(Recipe, {"model": "m", "task": "t", "steps": list(steps), **more}, base)
    return values, placed, [str(problem) for problem in problems]


def test_steps_know_their_places(toys):
    _, placed, problems = parsed("toy-train", {"fork": [[{"toy-prune": {"keep": 0.25}}], []]})
    assert not problems
    assert [located.path for located in placed] == ["steps[0]", "steps[1]"]
    assert placed[1].name == "fork"
    assert placed[1].branches[0][0].path == "steps[1].fork[0][0]"
    assert [located.bare() for located in placed] == [toys.ToyTrain(), Fork(((toys.ToyPrune(0.25),), ()))]
    again = locate([located.bare() for located in placed])
    assert [located.path for located in again] == ["steps[0]", "steps[1]"]
    assert again[1].branches[0][0].path == "steps[1].fork[0][0]"


def test_a_sweep_is_one_branch_for_every_combination(toys):
    _, (sweep,), problems = parsed({"each": {"toy-train": {"epochs": [1, 2], "by": [0.5, 1.5], "terms": ["a", "b"]}}})
    assert not problems
    combinations = [(branch[0].step.epochs, branch[0].step.by, branch[0].step.terms) for branch in sweep.branches]
    assert combinations == [
        (epochs, by, ("a", "b")) for epochs in (1, 2) for by in (0.5, 1.5)
    ]  # a list that fits is a value


def test_stages_begin_with_what_came_out_last_and_all_of_them_go_on(toys):
    _, placed, problems = parsed(
        {"stages": [{"toy-prune": {"keep": [0.5, 0.25, 0.125]}}, {"toy-train": {"epochs": [1, 2, 3]}}]}, "toy-quality"
    )
    assert not problems
    first, second, third = (
        (toys.ToyPrune(keep), toys.ToyTrain(epochs)) for keep, epochs in ((0.5, 1), (0.25, 2), (0.125, 3))
    )
    whole = (*first, Fork(((), (*second, Fork(((), third))))), toys.ToyQuality())
    assert tuple(step.bare() for step in placed) == whole
    again = parse(to_data(Recipe("m", "t", whole)))
    assert again.steps == whole


def test_other_files_are_spliced_in_and_a_cycle_is_seen(toys, tmp_path):
    (tmp_path / "more.yaml").write_text("steps: [toy-train, {use: deeper/most.yaml}]")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "most.yaml").write_text("steps: [{toy-prune: {keep: 0.25}}]")
    _, placed, problems = parsed({"use": "more.yaml"}, base=tmp_path)
    assert not problems
    assert [located.name for located in placed] == ["toy-train", "toy-prune"]
    (tmp_path / "deeper" / "most.yaml").write_text("steps: [{use: ../more.yaml}]")
    _, _, problems = parsed({"use": "more.yaml"}, base=tmp_path)
    assert "includes itself: more.yaml -> most.yaml" in problems[0]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("toy-tran", "no step called 'toy-tran'; did you mean 'toy-train'?"),
        ({"toy-train": {}, "toy-prune": {}}, "should be one step"),
        ({"fork": "toy-train"}, "should be a list of lists of steps"),
        ({"each": {"toy-train": {"epochs": 2}}}, "lists no values to try"),
        ({"each": {"toy-train": {"epochs": [1, -1]}}}, "epochs[1]: should be more than 0, got -1"),
        ({"stages": {"toy-train": {}}}, "should be a list of steps with lists of values"),
        ({"stages": ["toy-train"]}, "steps[0].stages: lists one value a stage, as in"),
        ({"stages": ["toy-tran"]}, "steps[0].stages[0]: no step called 'toy-tran'; did you mean 'toy-train'?"),
        ({"stages": [{"toy-train": {"epochs": [1, -1]}}]}, "epochs[1]: should be more than 0, got -1"),
        (
            {"stages": [{"toy-train": {"epochs": [1, 2]}}, {"toy-prune": {"keep": [0.5]}}]},
            "steps[0].stages: lists should be equally long: toy-train.epochs has 2, toy-prune.keep has 1",
        ),
        ({"use": "nowhere.yaml"}, "no file 'nowhere.yaml'"),
    ],
)
def test_what_is_wrong_is_told(toys, step, message):
    assert message in parsed(step)[2][0]


def test_paths_are_relative_to_the_recipe_and_names_stay_names(toys, tmp_path):
    (tmp_path / "model").mkdir()
    values, _, _ = parsed(base=tmp_path, model="model", task="sst2", teacher="hub/name")
    assert values["model"] == str(tmp_path / "model")
    assert (values["task"], values["teacher"]) == ("sst2", "hub/name")


def test_presets_are_expanded_when_read_also_in_a_sweep(toys):
    _, (preset, sweep), problems = parsed(
        {"toy-train": {"preset": "long", "by": 3}}, {"each": {"toy-train": {"preset": ["long", "fancy"]}}}
    )
    assert not problems
    assert preset.step == toys.ToyTrain(epochs=9, terms=("a", "b"), by=3.0)
    assert [branch[0].step for branch in sweep.branches] == [
        toys.ToyTrain(epochs=9, terms=("a", "b")),
        toys.ToyTrain(kind="fancy"),
    ]
    _, _, problems = parsed({"each": {"toy-train": {"preset": ["long", "lang"]}}})
    assert problems == ["steps[0].each.toy-train.preset[1]: no preset called 'lang'; did you mean 'long'?"]


def test_a_printed_recipe_has_the_fields_of_the_preset(toys):
    recipe = parse({"model": "m", "task": "t", "steps": [{"toy-train": {"preset": "long", "epochs": 3}}]})
    assert to_data(recipe)["steps"] == [{"toy-train": {"epochs": 3, "terms": ["a", "b"]}}]


def test_files_that_steps_name_are_relative_to_the_recipe(toys, tmp_path):
    @step(StepInfo("toy-read", files={"sizes"}))
    class ToyRead(Technique):
        sizes: str = ""

        def apply(self, candidate, context):
            yield candidate

    (tmp_path / "sizes.txt").write_text("4")
    steps = ({"toy-read": {"sizes": "sizes.txt"}}, {"each": {"toy-read": {"sizes": ["sizes.txt", "gone.txt"]}}})
    _, (located, sweep), problems = parsed(*steps, base=tmp_path)
    assert not problems
    assert located.step.sizes == str(tmp_path / "sizes.txt")
    assert [branch[0].step.sizes for branch in sweep.branches] == [str(tmp_path / "sizes.txt"), "gone.txt"]


def test_a_former_name_of_a_step_works_with_a_notice():
    step = {"student": {"layers": 2, "init": "layers"}}
    with pytest.warns(RenamedWarning, match="the step 'student' is called 'student_init' now"):
        _, (located, sweep), problems = parsed(step, {"each": {"student": {"layers": [1, 2], "init": "layers"}}})
    assert not problems
    assert located.name == "student_init"
    assert len(sweep.branches) == 2
