import itertools

import pytest

from limbeck.train.schedules import SCHEDULES


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
