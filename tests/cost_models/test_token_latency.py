from itertools import pairwise

import pytest

from limbeck.core.bound import Bound
from limbeck.core.cost import FunctionCost, TargetCost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.core.token_schedule import STEPS, geometric
from limbeck.cost_models.token_latency import within_latency
from limbeck.errors import InputError

SHAPE = Shape.uniform(layers=4, hidden=32, heads=4, ffn=64)
FIXED = 1e-3


def read(shape):
    """Tokens that the layers read, in texts."""
    return sum(share for share, _ in shape.token_shares)


OPERATIONS = FunctionCost(lambda shape: Measurement("macs", 1000 * read(shape), "MAC"))


class Machine(TargetCost):
    """A millisecond for each layer and its tokens, beside a fixed part; knows no fewer tokens than were measured."""

    def __init__(self, fixed=FIXED, schedule=None, measured=None):
        self.fixed, self.schedule = fixed, schedule
        self.measured = [] if measured is None else measured

    def for_format(self, number_format):
        self.measured.append((number_format, self.schedule))
        return FunctionCost(self.latency)

    def of_schedule(self, shape):
        return Machine(self.fixed, shape, self.measured)

    def latency(self, shape):
        least = self.schedule.token_shares[-1][0] if self.schedule else 1.0
        shares = [max(least, share) for share, _ in shape.token_shares]
        return Measurement("latency_p50", self.fixed + 1e-3 * sum(shares), "s")


def true_latency(shape, fixed=FIXED):
    return fixed + 1e-3 * read(shape)


@pytest.mark.parametrize("speedup", [1.2, 1.5, 2.0])
def test_the_gentlest_schedule_that_is_fast_enough(speedup):
    machine = Machine()
    shape = within_latency(SHAPE, Bound(speedup=speedup), machine, OPERATIONS, "int8")
    limit = true_latency(SHAPE) / speedup
    assert true_latency(shape) <= limit
    (gentler,) = {index for index in range(1, STEPS + 1) if geometric(SHAPE, (index - 1) / STEPS or 1e-3) == shape}
    assert true_latency(geometric(SHAPE, gentler / STEPS)) > limit
    assert {number_format for number_format, _ in machine.measured} == {"int8"}


def test_stricter_schedules_are_measured_until_one_is_fast_enough():
    """A large fixed part makes the schedule far stricter than operations say."""
    machine = Machine(fixed=6e-3)
    shape = within_latency(SHAPE, Bound(speedup=1.35), machine, OPERATIONS, "float")
    assert true_latency(shape, 6e-3) <= true_latency(SHAPE, 6e-3) / 1.35
    schedules = [schedule for _, schedule in machine.measured]
    assert len(schedules) > 1
    assert all(later <= earlier for earlier, later in pairwise(schedules))


def test_a_schedule_of_other_exponents_meets_a_latency_too():
    machine, exponents = Machine(), (0.0, 0.5, 3.0, 3.0)
    shape = within_latency(SHAPE, Bound(speedup=1.4), machine, OPERATIONS, "int8", exponents)
    assert 0.99 * true_latency(SHAPE) / 1.4 < true_latency(shape) <= true_latency(SHAPE) / 1.4
    assert shape.tokens[0] == 1.0
    assert shape.tokens[1] > shape.tokens[2]
    with pytest.raises(InputError, match="the strictest schedule"):
        within_latency(SHAPE, Bound(speedup=2.4), machine, OPERATIONS, "int8", exponents)


def test_a_latency_in_milliseconds():
    shape = within_latency(SHAPE, Bound(latency_ms=3.0), Machine(), OPERATIONS, "int8")
    assert 2.95e-3 < true_latency(shape) <= 3e-3


def test_a_bound_that_holds_already_changes_nothing():
    assert within_latency(SHAPE, Bound(latency_ms=5.0), Machine(), OPERATIONS, "int8") == SHAPE


def test_a_schedule_that_is_there_is_the_beginning():
    begun = SHAPE.with_tokens(0.5, 0.4, 0.4, 0.4)
    shape = within_latency(begun, Bound(speedup=1.2), Machine(), OPERATIONS, "int8")
    assert shape <= begun
    assert true_latency(shape) <= true_latency(begun) / 1.2


def test_what_one_token_cannot_reach_is_refused():
    with pytest.raises(InputError, match=r"goal of 1.8 ms is below the 2.003 ms .* strictest schedule"):
        within_latency(SHAPE, Bound(latency_ms=1.8), Machine(), OPERATIONS, "int8")
