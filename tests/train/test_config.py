"""Hyper-parameters of training: names, short names, and a rough forecast."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from limbeck.core.kinds import KINDS
from limbeck.core.shape import Shape
from limbeck.recipe.recipe import check
from limbeck.train.config import FLOPS_PER_CORE, TRAINING, TrainingConfig, forward_seconds, softmax_problems
from limbeck.train.guide_config import GuideConfig

SHAPE = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
ROWS = {"train": 100, "validation": 10}


def test_short_names_are_fields_and_neutral_ones_too():
    assert set(TRAINING.aliases.values()) | set(TRAINING.neutral) <= set(TrainingConfig.__dataclass_fields__)


def test_forward_is_two_operations_for_each_weight_and_token():
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    assert forward_seconds(SHAPE, 5, 7) * FLOPS_PER_CORE * os.cpu_count() == pytest.approx(2 * weights * 5 * 7)


def test_the_forecast_counts_steps_and_evaluations():
    plan = TrainingConfig(num_train_epochs=2, evaluations_per_epoch=3)
    seconds = plan.estimated_seconds(SHAPE, ROWS, 7)
    assert seconds == pytest.approx(forward_seconds(SHAPE, 2 * (3 * 100 + 3 * 10), 7))
    assert replace(plan, mixed_precision="bf16").estimated_seconds(SHAPE, ROWS, 7) == pytest.approx(seconds / 2)
    assert plan.estimated_seconds(SHAPE, {"train": 100}, 7) < seconds
    assert plan.estimated_seconds(SHAPE, {"train": 100}, 7, passes=6.0) == pytest.approx(
        2 * plan.estimated_seconds(SHAPE, {"train": 100}, 7)
    )


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"warmup_steps": 10, "warmup_ratio": 0.3}, "warmup_ratio: 0.3 has no effect beside warmup_steps"),
        ({"end_learning_rate": 1e-6}, "end_learning_rate: belongs to lr_scheduler_type: polynomial, got linear"),
        ({"lr_power": 2.0, "lr_scheduler_type": "cosine"}, "lr_power: belongs to lr_scheduler_type: polynomial"),
        ({"end_learning_rate": 1.0, "lr_scheduler_type": "polynomial"}, "should be at most learning_rate"),
    ],
)
def test_options_of_the_schedule_that_have_no_effect_are_refused(fields, problem):
    (reported,) = TrainingConfig(**fields).problems()
    assert problem in reported
    problems = check({"model": "minilm-l6", "task": "movie-reviews", "steps": [{"finetune": fields}]})
    assert any(reported in str(problem) for problem in problems)


def test_options_of_distributions_over_classes_are_refused_for_other_answers():
    options = GuideConfig(temperature=4.0)
    assert softmax_problems(KINDS["tokens"], options, ("temperature",)) == {}
    assert softmax_problems(KINDS["regression"], GuideConfig(), ("temperature",)) == {}
    assert softmax_problems(KINDS["regression"], options, ("temperature",)) == {
        "temperature": "has no effect on answers of kind regression, which are compared by squared error; keep the "
        "default, 2.0"
    }
