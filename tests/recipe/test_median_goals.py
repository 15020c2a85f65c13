"""Goals that are medians beside a budget that is about another time of a call."""

from __future__ import annotations

from limbeck.recipe.median_goals import median_goals
from limbeck.recipe.recipe import parse


def notes(statistic, *steps, latency_ms=2.0, **more):
    budget = {"latency_statistic": statistic} | ({} if latency_ms is None else {"latency_ms": latency_ms})
    return median_goals(parse({"model": "m", "task": "movie-reviews", "steps": list(steps), "budget": budget, **more}))


PRUNE, TOKENS = {"prune": {"latency_ms": 1.8}}, {"prune_tokens": {"latency_ms": 1.0}}


def test_goals_in_milliseconds_are_named_where_the_budget_is_no_median():
    (note,) = notes("p99", PRUNE, {"fork": [[PRUNE], [TOKENS]]})
    assert note == (
        "latency_ms of prune and prune_tokens is a median, as costs of shapes are; that of the budget is the p99 of a "
        "call, so what meets the goal may exceed it; ask for less then"
    )
    assert "the mean of a call" in notes("mean", PRUNE)[0]
    assert notes("p50", PRUNE) == []
    assert notes("p99", {"prune": {"speedup": 2.0}}, {"prune": {"keep": 0.5, "cost": "macs"}}) == []
    assert notes("p99", PRUNE, latency_ms=None) == []


def test_each_target_has_its_own_budget():
    targets = {"server": {"threads": 2}, "laptop": {"budget": {"latency_ms": 5.0}}}
    goal = {"prune": {"latency_ms": 4.0, "target": "laptop"}}
    (note,) = notes("p99", goal, targets=targets, latency_ms=None)
    assert note.startswith("target laptop: latency_ms of prune is a median")
    assert notes("p99", PRUNE, targets=targets, latency_ms=None) == []  # of the server, which has no limit
