"""What is too much for a recipe, and values out of bounds."""

from __future__ import annotations

import pytest

from limbeck.recipe.parsing import read
from limbeck.recipe.recipe import Recipe, check


def problems_of(*steps, base=None, **more):
    *_, problems = read(Recipe, {"model": "m", "task": "t", "steps": list(steps), **more}, base)
    return [str(problem) for problem in problems]


def test_too_many_steps_are_reported_at_once(toys, tmp_path):
    fourfold = "steps: [" + ", ".join(["use: {}"] * 4) + "]"
    names = [f"level{depth}.yaml" for depth in range(12)]
    for name, inner in zip(names, [*names[1:], "end.yaml"], strict=True):
        (tmp_path / name).write_text(fourfold.replace("{}", inner).replace("use:", "{use:").replace(".yaml", ".yaml}"))
    (tmp_path / "end.yaml").write_text("steps: []")
    problems = problems_of({"use": "level0.yaml"}, base=tmp_path)
    assert len(problems) == 1
    assert "more than 2,000 steps" in problems[0]
    many = list(range(1, 201))
    for sweep in (
        {"each": {"toy-train": {"epochs": many, "by": many, "rate": many}}},
        {"stages": [{"toy-train": {"by": list(range(51))}}]},
    ):
        problems = problems_of(sweep)
        assert len(problems) == 1
        assert ("more than 2,000" in problems[0]) or ("at most 50" in problems[0])


def test_candidates_are_counted_before_they_are_made(toys):
    branches = {"fork": [["toy-prune"], []]}
    assert not problems_of(*[branches] * 13)
    assert problems_of(*[branches] * 40) == [
        "steps: forks and sweeps make 16,384 candidates; at most 10,000 are possible",
    ]


def test_forks_after_forks_are_walked_once(toys):
    steps = [{"fork": [[], []]}] * 500
    data = {"model": "m", "task": {"path": "movie-reviews", "max_length": 64}, "steps": steps, "target": {"seq_len": 9}}
    assert not check(data)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "../x", "not a path, got '../x'"),
        ("name", "/x", "not a path"),
        ("name", "a\0b", "not a path"),
        ("name", ".", "not a path"),
        ("name", "x" * 101, "at most 100 characters"),
        ("name", 3, "should be text, got 3"),
        ("seed", -1, "in [0, 4294967295], got -1"),
        ("seed", 2**32, "in [0, 4294967295]"),
        ("seed", True, "got True"),
        ("replicas", 0, "in [1, 1000], got 0"),
        ("model", "a\0", "a folder or the name of a model"),
        ("allow_weak_teacher", "yes", "true or false, got 'yes'"),
        ("target", {"threads": 10**6}, "target.threads: should be in [1, 1,024], got 1000000"),
        ("target", {"seq_len": 10**6}, "target.seq_len: should be in [1, 100,000]"),
        ("target", {"threads": True}, "target.threads: should be a whole number, got True"),
        ("budget", {"latency_ms": float("nan")}, "budget.latency_ms: should be a number between"),
    ],
)
def test_fields_of_a_recipe_are_in_bounds(toys, field, value, message):
    problems = problems_of("toy-train", **{field: value})
    assert len(problems) == 1
    assert message in problems[0]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (0, "max_minutes: should be a number in [0.1, 1,000,000], got 0"),
        ("5", "max_minutes: should be a number in [0.1, 1,000,000], got '5'"),
        (True, "max_minutes: should be a number in [0.1, 1,000,000], got True"),
    ],
)
def test_a_limit_of_time_is_a_number_of_minutes(value, problem):
    assert problems_of(max_minutes=value) == [problem]
    assert not problems_of(max_minutes=5) + problems_of(max_minutes=0.5)
    assert problems_of(seed=0.5) == ["seed: should be a whole number in [0, 4294967295], got 0.5"]
