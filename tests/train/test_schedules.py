import itertools

import pytest

from limbeck.train.config import TrainingConfig
from limbeck.train.schedules import SCHEDULES, schedule_of


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_schedules_rise_then_never_rise_again(name, warmup):
    rate = SCHEDULES[name](warmup)
    values = [rate(step / 50) for step in range(51)]
    top = values.index(max(values))
    assert max(values) == pytest.approx(1.0)
    assert all(a <= b for a, b in itertools.pairwise(values[: top + 1]))
    assert all(a >= b for a, b in zip(values[top:], values[top + 1 :], strict=False))
    assert min(values) >= 0.0


def test_polynomial_of_power_1_that_ends_at_0_is_linear():
    polynomial, linear = (SCHEDULES[name](0.2) for name in ("polynomial", "linear"))
    assert all(polynomial(step / 40) == pytest.approx(linear(step / 40)) for step in range(41))


def test_warm_up_in_steps_lasts_as_many_steps_however_long_the_training():
    for total in (100, 4000):
        rate = schedule_of(TrainingConfig(warmup_steps=50, warmup_ratio=0.9), total)
        assert [rate(step / total) for step in (0, 25, 50)] == pytest.approx([0.0, 0.5, 1.0])
        assert rate(51 / total) < 1
    assert schedule_of(TrainingConfig(warmup_steps=50), 25)(24 / 25) == pytest.approx(24 / 25)  # it never gets there
    assert schedule_of(TrainingConfig(warmup_ratio=0.5), 10)(0.25) == pytest.approx(0.5)


def test_polynomial_ends_at_its_rate():
    config = TrainingConfig(learning_rate=1e-4, end_learning_rate=1e-5, lr_power=2.0, lr_scheduler_type="polynomial")
    for progress, expected in ((0.1, 1e-4), (0.55, 1e-5 + 9e-5 / 4), (1.0, 1e-5)):
        assert 1e-4 * schedule_of(config, 100)(progress) == pytest.approx(expected)
