"""What is wrong with a field is told in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt
from pydantic import Field

from limbeck.core.field_groups import group
from limbeck.core.step import StepInfo, Technique
from limbeck.errors import InputError
from limbeck.recipe.validation import accepts, read


@dataclass(frozen=True)
class Knobs(Technique):
    share: Annotated[float, Gt(0), Le(1)] = 0.5
    count: Annotated[int, Ge(1)] | None = None
    below: Annotated[float, Lt(3)] = 1
    top: Annotated[int, Le(9)] = 1
    both: Annotated[int, Interval(ge=1, lt=4)] = 2
    field: Annotated[int, Field(ge=0, le=5)] = 1
    kind: Literal["fisher", "magnitude"] = "fisher"
    mixed: int | tuple[str, ...] = 1
    level: Literal[1, 2] = 1

    info: ClassVar[StepInfo] = StepInfo(
        "knobs",
        aliases={"n": "count"},
        presets={"wide": {"count": 7, "share": 1.0}, "odd": {"n": 3, "mixed": ["b"]}},
    )

    def apply(self, candidate, context):
        yield candidate

    def __post_init__(self):
        if self.below == -1:
            raise InputError("below -1 there is nothing")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"share": 1.5}, "x.share: should be in (0, 1], got 1.5"),
        ({"count": 0}, "x.count: should be at least 1, got 0"),
        ({"below": 3}, "x.below: should be less than 3, got 3"),
        ({"top": 10}, "x.top: should be at most 9, got 10"),
        ({"both": 4}, "x.both: should be in [1, 4), got 4"),
        ({"field": 7}, "x.field: should be in [0, 5], got 7"),
        ({"kind": "fischer"}, "x.kind: cannot be 'fischer'; did you mean 'fisher'?"),
        ({"level": 3}, "x.level: should be 1 or 2"),
        ({"mixed": 1.5}, "x.mixed: should be a whole number or a list, got 1.5"),
        ({"below": -1}, "x: below -1 there is nothing"),
        ({"shar": 1}, "x.shar: no field called 'shar'; did you mean 'share'?"),
        ([], "x: should be a mapping of fields, got []"),
        ({"preset": "wyde"}, "x.preset: no preset called 'wyde'; did you mean 'wide'?"),
        ({"preset": 3}, "x.preset: no preset called 3; choose from 'odd', 'wide'"),
        ({"preset": "wide", "share": 2}, "x.share: should be in (0, 1], got 2"),
    ],
)
def test_one_problem_in_words(data, message):
    knobs, problems = read(Knobs, data, "x")
    assert knobs is None
    assert len(problems) == 1
    assert str(problems[0]).startswith(message.split(", got a number")[0])


def test_what_fits_is_made():
    knobs, problems = read(Knobs, {"share": 1, "mixed": ["a"], "count": None}, "x")
    assert problems == []
    assert knobs == Knobs(share=1.0, mixed=("a",))


def test_accepts_tells_values_from_sweeps():
    assert accepts(Knobs, "mixed", ["a", "b"])
    assert not accepts(Knobs, "share", [0.1, 0.2])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"preset": "wide"}, Knobs(count=7, share=1.0)),
        ({"preset": "wide", "count": 2}, Knobs(count=2, share=1.0)),
        ({"preset": "wide", "n": 2}, Knobs(count=2, share=1.0)),  # a short name overrides as the long one does
        ({"preset": "odd", "count": 4}, Knobs(count=4, mixed=("b",))),
        ({"preset": "wide", "count": None}, Knobs(share=1.0)),  # the default can be asked for
    ],
)
def test_a_preset_stands_for_its_fields_and_those_beside_it_win(data, expected):
    assert read(Knobs, data, "x") == (expected, [])


def test_where_there_are_no_presets_the_name_is_a_field_like_others():
    @dataclass(frozen=True)
    class Plain:
        share: float = 0.5

    assert str(read(Plain, {"preset": "wide"}, "x")[1][0]).startswith("x.preset: no field called 'preset'")


@dataclass(frozen=True)
class Training:
    epochs: Annotated[float, Gt(0)] = 3.0
    rate: float = 0.1
    precision: Literal["no", "bf16"] = "no"


@dataclass(frozen=True)
class Grouped(Technique):
    info: ClassVar[StepInfo] = StepInfo("grouped", aliases={"passes": "epochs"}, presets={"long": {"epochs": 9}})

    training: Training = group(default=Training(rate=0.5))
    keep: float = 1.0

    def apply(self, candidate, context):
        yield candidate


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, Grouped()),
        ({"epochs": 1, "keep": 2}, Grouped(Training(1.0, 0.5), 2.0)),
        ({"passes": 2}, Grouped(Training(2.0, 0.5))),
        ({"preset": "long", "rate": 0.2}, Grouped(Training(9.0, 0.2))),
    ],
)
def test_fields_of_a_group_are_flat_and_keep_the_defaults_of_the_step(data, expected):
    assert read(Grouped, data, "step") == (expected, [])


def test_problems_of_a_group_have_flat_paths():
    data = {"epochs": 0, "precision": "fp8", "rte": 1, "training": {"rate": 1.0}}
    step, problems = read(Grouped, data, "step")
    assert step is None
    assert [str(problem) for problem in problems] == [
        "step.rte: no field called 'rte'; did you mean 'rate'?",
        "step.training: no field called 'training'; choose from 'epochs', 'keep', 'precision', 'rate'",
        "step.epochs: should be more than 0, got 0",
        "step.precision: cannot be 'fp8'; choose from 'bf16', 'no'",
    ]
    assert accepts(Grouped, "epochs", 2)
    assert not accepts(Grouped, "epochs", -2)
