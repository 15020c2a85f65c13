import re

import pytest

from limbeck.core.cost import FunctionCost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.model.pruning.config import PruningConfig

WHOLE = Shape.uniform(layers=4, hidden=32, heads=4, ffn=64)
COST = FunctionCost(lambda shape: Measurement("weights", float(shape.weights), "1"))


@pytest.mark.parametrize(
    ("fields", "quantity"),
    [
        ({"speedup": 2.0}, "latency"),
        ({"keep": 0.5, "cost": "macs"}, "macs"),
        ({"size_mb": 1.0}, "size"),
        ({"layers": 2}, "parameters"),
        ({"heads": 2, "cost": "macs"}, "macs"),
    ],
)
def test_a_goal_names_what_it_counts_and_without_a_bound_nothing_is_measured(fields, quantity):
    config = PruningConfig(**fields)
    assert not config.problems()
    assert config.quantity == quantity


def test_a_goal_may_be_relative_to_the_teacher():
    config = PruningConfig(keep=0.5, relative_to="teacher", cost="parameters")
    half = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    assert config.goal(COST, half, WHOLE).budget == WHOLE.weights / 2
    with pytest.raises(InputError, match="there is no teacher"):
        config.goal(COST, half)


def test_layers_are_chosen_by_number_where_importance_does_not_matter():
    assert PruningConfig(layers=2).evenly(4) == (1, 3)
    assert PruningConfig(layers=2, layer_choice="bottom").evenly(4) == (0, 1)
    assert PruningConfig(layers=2, layer_choice="importance").evenly(4) is None
    with pytest.raises(InputError, match="the model has 4 layers, got 5; use at most 4"):
        PruningConfig(layers=5).evenly(4)


def test_the_shape_is_known_before_where_no_score_decides_it():
    assert PruningConfig(layers=2, heads=1).shape_after(WHOLE) == Shape.uniform(2, 32, 1, 64, head_dim=8)
    assert PruningConfig(keep=0.5).shape_after(WHOLE) is None
    assert PruningConfig(layers=5).shape_after(WHOLE) is None


def test_what_is_out_of_reach_is_known_without_scores():
    config = PruningConfig(keep=1e-6, cost="parameters")
    assert "the smallest that sees its text" in config.out_of_reach(WHOLE, lambda: COST, None)
    assert PruningConfig(keep=0.5, cost="parameters").out_of_reach(WHOLE, lambda: COST, None) is None
    assert PruningConfig(layers=2, ffn=99).out_of_reach(WHOLE, lambda: COST, None) == (
        "ffn: the model has 64 in a layer, got 99; use at most 64"
    )


def test_the_hidden_width_comes_beside_any_goal_or_alone():
    narrow = Shape.uniform(layers=4, hidden=24, heads=4, ffn=64, head_dim=8)
    alone = PruningConfig(hidden=24)
    assert not alone.problems()
    assert not alone.narrows
    assert (alone.scoring_passes, alone.latency_tables) == (1, 0)
    assert alone.shape_after(WHOLE) == narrow
    assert PruningConfig(hidden=24, layers=2, heads=1).shape_after(WHOLE) == Shape.uniform(2, 24, 1, 64, head_dim=8)
    assert PruningConfig(hidden=40).shape_after(WHOLE) is None
    both = PruningConfig(hidden=24, speedup=2.0)
    assert not both.problems()
    assert (both.scoring_passes, both.latency_tables) == (2, 2)
    assert both.shape_after(WHOLE) is None
    assert PruningConfig(hidden=24, speedup=2.0, profile="file").latency_tables == 0


def test_a_goal_counts_the_shape_as_narrow_as_it_will_be():
    config = PruningConfig(hidden=8, keep=0.25, cost="parameters", ffn_multiple=64)
    assert config.out_of_reach(WHOLE, lambda: COST, None) is None
    least = PruningConfig(hidden=8, keep=1e-6, cost="parameters").out_of_reach(WHOLE, lambda: COST, None)
    assert "4x8 heads 0,0,0,1 of 8 ffn 0, the smallest" in least
    assert config.goal(COST, WHOLE).budget == WHOLE.weights / 4


def test_a_narrower_model_may_be_relative_to_what_it_was_cut_out_of():
    narrow = Shape.uniform(layers=4, hidden=24, heads=2, ffn=32, head_dim=8)
    config = PruningConfig(speedup=2.0, relative_to="teacher", hidden=24)
    assert config.goal(COST, narrow, WHOLE, ancestor=True).budget == WHOLE.weights / 2
    assert config.out_of_reach(narrow, lambda: COST, WHOLE, ancestor=True) is None
    with pytest.raises(InputError, match="the teacher is another model"):
        config.goal(COST, narrow, WHOLE)
    assert "the teacher is another model" in config.out_of_reach(narrow, lambda: COST, WHOLE)


def test_a_latency_relative_to_a_teacher_of_another_shape_is_refused_before_anything_is_measured():
    narrow = Shape.uniform(layers=2, hidden=32, heads=2, ffn=16)
    config = PruningConfig(speedup=2.0, relative_to="teacher")
    assert "the teacher is another model" in (config.out_of_reach(narrow, lambda: COST, WHOLE) or "")
    with pytest.raises(InputError, match="was not cut; with relative_to: input"):
        config.goal(COST, narrow, WHOLE)
    counted = PruningConfig(keep=0.5, relative_to="teacher", cost="macs")
    assert counted.goal(COST, narrow, WHOLE).budget == WHOLE.weights / 2


@pytest.mark.parametrize(
    ("fields", "passes", "tables"),
    [
        ({"hidden": "auto"}, 5 + 4, 5),
        ({"tokens": "auto"}, 6, 1),
        ({"tokens": 0.8}, 1, 1),
        ({"hidden": 24, "tokens": "auto"}, 6 + 6, 2),
        ({"hidden": "auto", "tokens": "auto"}, 10 + 9, 5),
        ({"hidden": "auto", "cost": "macs", "speedup": None, "keep": 0.5}, 5 + 4, 0),
    ],
)
def test_a_choice_takes_passes_and_tables_for_all_that_is_tried(fields, passes, tables):
    config = PruningConfig(**{"speedup": 4.0, **fields})
    assert not config.problems()
    assert (config.scoring_passes, config.latency_tables) == (passes, tables)
    assert config.chooses == ("auto" in fields.values())
    assert config.held_out == (512 if config.chooses else 0)
    assert config.shape_after(WHOLE) is None


def test_a_schedule_comes_last_and_is_of_what_stays():
    config = PruningConfig(layers=3, hidden=24, keep=0.5, tokens=0.5, cost="macs")
    expected = Shape.uniform(layers=3, hidden=24, heads=4, ffn=64, head_dim=8).with_tokens(0.5, 0.25, 0.25)
    assert config.shortened(WHOLE) == expected
    assert config.strictest == 0.5
    assert PruningConfig(keep=0.5, tokens="auto").strictest == 0.5
    assert PruningConfig(keep=0.5).strictest == 1.0
    assert PruningConfig(keep=0.5).scheduled(WHOLE) is WHOLE


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden": "auto"}, "hidden: auto weighs channels against heads and neurons; give speedup"),
        ({"hidden": "auto", "heads": 2}, "hidden: auto weighs channels against heads and neurons; give speedup"),
        ({"tokens": 0.5, "layers": 2}, "for a schedule alone use prune_tokens"),
        ({"tokens": "auto", "size_mb": 1.0}, r"do not change what the goal counts \(size\)"),
        ({"tokens": 0.5, "keep": 0.5, "cost": "parameters"}, r"do not change what the goal counts \(parameters\)"),
        ({"tokens": "auto", "speedup": 2.0, "profile": "file"}, "latency data know no layers that read fewer"),
    ],
)
def test_a_choice_needs_a_goal_that_it_changes(fields, message):
    (problem,) = PruningConfig(**fields).problems()
    assert re.search(message, problem)
