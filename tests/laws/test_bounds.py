"""Every number that a user may write has bounds, and what no field can mean is refused before any work."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args, get_origin

import annotated_types
import pytest

import limbeck.techniques  # noqa: F401 registers the steps
from limbeck.benchmark import options as bench_options
from limbeck.cli.machine import Full
from limbeck.cli.run_commands import Search, Serving
from limbeck.core.field_groups import fields_of
from limbeck.core.step import REGISTRY
from limbeck.core.target import Budget, Target
from limbeck.engine.planning.training_options import Training
from limbeck.recipe.validation import LARGEST, read

OPTIONS = (Target, Budget, Full, Serving, Search, Training, *bench_options.__dict__.values())
CLASSES = {
    **{f"{cls.__module__}.{cls.__name__}": cls for cls in OPTIONS if dataclasses.is_dataclass(cls)},
    **{name: cls for name, cls in REGISTRY.items() if cls.__module__.startswith("limbeck.")},
}

NO_UPPER_BOUND = {
    "min_steps": "a training may be as long as its user can wait",
    "early_stopping_patience": "a training may be as long as its user can wait",
    "freeze_steps": "a training may be as long as its user can wait",
    "feedback_warmup_steps": "a training may be as long as its user can wait",
    "max_distill_steps": "a training may be as long as its user can wait",
    "evaluations_per_epoch": "limited by the steps of an epoch",
    "samples": "limited by the rows there are",
    "train_samples": "limited by the rows there are",
    "sort_samples": "limited by the rows there are",
    "calibration_samples": "limited by the rows there are",
    "parity_texts": "limited by the rows there are",
    "min_count": "limited by the rows there are",
}
"""Fields that take any number up to ``LARGEST``, with the reason."""


def leaves(annotation, marks=()):
    """(type, marks around it) of every value inside an annotation."""
    if hasattr(annotation, "__metadata__"):
        marks = (*marks, *annotation.__metadata__)
        yield from leaves(annotation.__origin__, marks)
    elif get_origin(annotation) is Literal:
        return
    elif get_args(annotation):
        for part in get_args(annotation):
            if part is not Ellipsis:
                yield from leaves(part, marks)
    else:
        yield annotation, marks


def numbers(cls):
    """(field, type, marks) of every number of a class."""
    for field in fields_of(cls):
        for kind, marks in leaves(field.hint):
            if kind in (int, float):
                yield field.name, kind, marks


@pytest.mark.parametrize("name", CLASSES)
def test_every_number_has_bounds(name):
    for field, _, marks in numbers(CLASSES[name]):
        assert any(isinstance(mark, (annotated_types.Ge, annotated_types.Gt)) for mark in marks), field
        bounded = any(isinstance(mark, (annotated_types.Le, annotated_types.Lt)) for mark in marks)
        assert bounded or field in NO_UPPER_BOUND, f"{field}: give it an upper bound, or a reason why it has none"


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 10 * LARGEST, True, "3"], ids=str)
def test_no_number_takes_what_is_none(name, value):
    cls = CLASSES[name]
    texts = {
        field.name
        for field in fields_of(cls)
        if any(kind in (str, bool) for kind, _ in leaves(field.hint)) or get_origin(field.hint) is Literal
    }
    for field, _, _ in numbers(cls):
        if field in texts and isinstance(value, (str, bool)):
            continue
        for given in (value, [value], [value, value]):
            instance, problems = read(cls, {field: given}, "x")
            assert instance is None, (field, given)
            assert all(problem.path.startswith("x") for problem in problems)
            assert all(len(str(problem)) < 400 for problem in problems)
