import pytest

from limbeck.core.analytic_cost import macs
from limbeck.core.shape import Shape
from limbeck.core.token_schedule import (
    STEPS,
    check_reads_all,
    choosing_layers,
    even_exponents,
    geometric,
    schedule_problem,
    scheduled,
    shares_problem,
    style_problem,
    with_schedule,
    within_budget,
    within_share,
)
from limbeck.errors import InputError
from limbeck.model.style import Style

FULL = Shape.uniform(layers=4, hidden=32, heads=4, ffn=64)


def test_families_with_softmax_attention_may_have_a_schedule():
    for style in (
        Style(),
        Style("mpnet", relative_buckets=32, relative_heads=4),
        Style("roformer", rotary_theta=(1e4,)),
    ):
        assert schedule_problem(FULL, style) is None


def test_others_are_told_why_not():
    assert "at least two layers" in schedule_problem(Shape.uniform(layers=1, hidden=32, heads=4, ffn=64), Style())
    deberta = schedule_problem(FULL, Style("deberta-v2", pos_att_type=("c2p",)))
    assert "deberta-v2 scores the distances of all tokens in order" in deberta
    assert style_problem(Style("deberta-v2", pos_att_type=("c2p",))) == deberta
    assert "masks the queries" in style_problem(Style("deberta-v2", masks_queries=True))
    for core in ("local:64", "linformer:8", "window:3", "kernel"):
        linear = FULL.with_attention(core)
        for shape in (linear, linear.with_layer(3, attention="softmax")):
            assert "apart from the last, has softmax attention" in schedule_problem(shape, Style())
        assert schedule_problem(linear.with_layer(1, attention="softmax"), Style()) is None
    assert "apart from the last" in schedule_problem(linear.with_layer(1, heads=0, attention="softmax"), Style())


def test_a_schedule_fits_the_layers_and_never_brings_tokens_back():
    assert with_schedule(FULL, (1, 0.5, 0.5, 0.25)).tokens == (1.0, 0.5, 0.5, 0.25)
    with pytest.raises(InputError, match="has 2 shares, the model 4 layers; give one for each"):
        with_schedule(FULL, (0.5, 0.5))
    with pytest.raises(InputError, match=r"layer 1 passes on 0.5 of the tokens already, got 0.6; use at most 0.5"):
        with_schedule(FULL.with_tokens(1, 0.5, 0.5, 0.5), (1, 0.6, 0.5, 0.5))
    with pytest.raises(InputError, match="above 0 and at most 1"):
        with_schedule(FULL, (1, 0.5, 0.5, 0.0001))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_the_gentlest_schedule_within_a_budget_is_found(share):
    def cost(shape):
        return macs(shape, 100)

    budget = share * cost(FULL)
    shape = within_budget(FULL, cost, budget)
    best = next(k for k in range(STEPS - 1, 0, -1) if cost(geometric(FULL, k / STEPS)) <= budget)
    assert shape == geometric(FULL, best / STEPS)
    assert cost(shape) <= budget < cost(geometric(FULL, (best + 1) / STEPS))


def test_no_schedule_goes_below_one_token():
    assert within_budget(FULL, lambda shape: macs(shape, 100), 0.1 * macs(FULL, 100)) is None


def test_a_schedule_of_other_exponents_meets_a_budget_too():
    exponents, budget = (0.0, 1.0, 3.0, 3.0), 0.7 * macs(FULL, 100)
    shape = within_budget(FULL, lambda each: macs(each, 100), budget, exponents)
    assert 0.99 * budget < macs(shape, 100) <= budget
    assert shape.tokens[0] == 1.0
    assert shape.tokens[2] == pytest.approx(shape.tokens[1] ** 3, abs=2e-3)
    assert within_budget(FULL, lambda each: macs(each, 100), budget, even_exponents(4)) == within_budget(
        FULL, lambda each: macs(each, 100), budget
    )


def test_a_share_of_the_cost_is_kept_or_refused():
    def cost(shape):
        return macs(shape, 100)

    assert within_share(FULL, cost, 0.6) == within_budget(FULL, cost, 0.6 * cost(FULL))
    with pytest.raises(InputError, match=r"keep: 0.1 is below the 0.1\d+ that is left with one token"):
        within_share(FULL, cost, 0.1)


def test_layers_choose_where_token_shares_say_so():
    shape = FULL.with_layer(0, heads=0).with_layer(2, attention="kernel")
    assert choosing_layers(shape) == (1,)
    assert choosing_layers(FULL) == (0, 1, 2)
    shares = scheduled(shape, (1, 2, 3, 4), 0.5).token_shares
    assert tuple(index for index, (read, left) in enumerate(shares) if left < read) == choosing_layers(shape)


def test_shares_that_are_no_schedule():
    assert shares_problem((0.5, 0.6)).endswith("share 1 does, 0.5 to 0.6")
    assert "changes nothing" in shares_problem((1, 1))
    assert shares_problem((1, 0.5)) is shares_problem(()) is None


def test_layers_that_passed_on_fewer_still_do():
    assert geometric(FULL.with_tokens(1, 0.2, 0.2, 0.2), 0.8).tokens == (0.8, 0.2, 0.2, 0.2)


def test_costs_that_know_nothing_of_it_refuse_a_schedule():
    check_reads_all(FULL, "the table")
    with pytest.raises(InputError, match=r"the table was measured on .* use cost: macs, or prune before prune_tokens"):
        check_reads_all(geometric(FULL, 0.5), "the table")
