import itertools
import random

import pytest

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


@pytest.mark.parametrize("seed", range(25))
def test_choice_is_as_good_as_brute_force(seed):
    rng = random.Random(seed)
    units = [
        [Option(rng.randint(0, 20), rng.randint(0, 50)) for _ in range(rng.randint(1, 4))]
        for _ in range(rng.randint(1, 5))
    ]
    floor = sum(min(option.cost for option in unit) for unit in units)
    budget = floor + rng.randint(0, 40)
    # a resolution equal to the spare budget makes integer costs exact
    chosen = choose(units, budget, resolution=max(1, budget - floor))
    spent = sum(unit[level].cost for unit, level in zip(units, chosen, strict=True))
    lost = sum(unit[level].loss for unit, level in zip(units, chosen, strict=True))
    assert spent <= budget
    assert lost == brute_force(units, budget)


def test_nothing_is_chosen_when_the_cheapest_does_not_fit():
    assert choose([[Option(2, 0), Option(3, 0)]], budget=1) is None


def test_a_budget_equal_to_the_floor_takes_the_cheapest():
    assert choose([[Option(2.0, 1), Option(2.5, 0)], [Option(0.1, 0)]], budget=2.1) == [0, 0]
