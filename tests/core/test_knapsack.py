import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.core.knapsack import Option, choose


def brute_force(units, budget):
    """Try every combination."""
    best = None
    for levels in itertools.product(*(range(len(unit)) for unit in units)):
        cost = sum(unit[level].cost for unit, level in zip(units, levels, strict=True))
        loss = sum(unit[level].loss for unit, level in zip(units, levels, strict=True))
        if cost <= budget and (best is None or loss < best):
            best = loss
    return best


def total(units, levels, value):
    return sum(getattr(unit[level], value) for unit, level in zip(units, levels, strict=True))


def options(costs):
    return st.lists(st.builds(Option, costs, st.integers(0, 50)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(options(st.integers(0, 20)), min_size=1, max_size=5), st.integers(0, 60), st.sampled_from([1, 3, 7]))
def test_choice_is_as_good_as_brute_force(units, spare, divisor):
    """Thirds and sevenths are no whole numbers of intervals, and the budget is often met exactly."""
    units = [[Option(option.cost / divisor, option.loss) for option in unit] for unit in units]
    budget = sum(min(option.cost for option in unit) for unit in units) + spare / divisor
    chosen = choose(units, budget)
    assert total(units, chosen, "cost") <= budget * (1 + 1e-12)
    assert total(units, chosen, "loss") == brute_force(units, budget * (1 + 1e-12))


@settings(max_examples=60, deadline=None)
@given(st.lists(options(st.floats(0, 20)), min_size=2, max_size=5), st.floats(0, 1), st.sampled_from([1, 2, 10]))
def test_few_intervals_cost_no_more_than_their_width_for_each_unit(units, share, resolution):
    floor, most = (sum(end(option.cost for option in unit) for unit in units) for end in (min, max))
    budget = floor + share * (most - floor)
    chosen = choose(units, budget, resolution)
    assert total(units, chosen, "cost") <= budget * (1 + 1e-12)
    rounding = len(units) * (budget - floor) / resolution
    if budget - rounding >= floor:
        assert total(units, chosen, "loss") <= brute_force(units, budget - rounding)


def test_a_solution_that_costs_the_budget_is_found_however_the_intervals_fall():
    units = [[Option(0, 5), Option(1, 1), Option(2, 0)], [Option(0, 9), Option(1, 7), Option(2, 2)]]
    assert choose(units, budget=3) == [1, 2]


def test_what_costs_less_and_loses_less_is_chosen_first():
    assert choose([[Option(2, 1), Option(1, 1), Option(1, 3)]], budget=5) == [1]


def test_of_options_that_cost_nothing_the_one_that_loses_least_is_chosen():
    assert choose([[Option(0.0, 0)], [Option(0.0, 1), Option(0.0, 0)]], budget=0.0, resolution=1) == [0, 1]


def test_nothing_is_chosen_when_the_cheapest_does_not_fit():
    assert choose([[Option(2, 0), Option(3, 0)]], budget=1) is None


def test_a_budget_equal_to_the_floor_takes_the_cheapest():
    assert choose([[Option(2.0, 1), Option(2.5, 0)], [Option(0.1, 0)]], budget=2.1) == [0, 0]


def test_costs_next_to_nothing_are_divided_too():
    """An interval of such a budget is shorter than the smallest number."""
    units = [[Option(0.0, 1.0), Option(5e-324, 0.0)], [Option(0.0, 1.0), Option(5e-324, 0.5)]]
    assert choose(units, budget=1e-323, resolution=1) == [1, 1]
