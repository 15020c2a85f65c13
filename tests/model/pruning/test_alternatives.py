"""The choice between widths and schedules that meet one goal."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from limbeck.core.cost import FunctionCost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.core.token_schedule import geometric
from limbeck.data.calibration import held_out_batches
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.output_losses import OUTPUT_LOSSES
from limbeck.model.pruning.alternatives import AnswerComparison, Chooser, alternatives, divergences, out_of_reach
from limbeck.model.pruning.config import TOKEN_RATIOS, PruningConfig, hidden_widths
from limbeck.model.pruning.goals import CostGoal
from limbeck.model.pruning.prune import prune
from limbeck.model.pruning.slicing import set_shape

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
TASK = toy_task("classification", train=60, validation=16, test=16)
TOKENIZER = toy_tokenizer(TASK)
SCORED, HELD_OUT = held_out_batches(TASK, TOKENIZER, 24, seed=0, apart=20)


def read_tokens(shape):
    """Weights that each token meets: fewer where layers leave tokens behind."""
    return sum(
        read * (4 * layer.heads * shape.head_dim + 2 * layer.ffn) * shape.hidden
        for layer, (read, _) in zip(shape.layers, shape.token_shares, strict=True)
    )


COST = FunctionCost(lambda shape: Measurement("macs", read_tokens(shape), "MAC"))
HALF = PruningConfig(keep=0.5, cost="macs", ffn_multiple=16)


@pytest.fixture
def model(make_model):
    return make_model(FULL, labels=TASK.num_labels, vocab_size=len(TOKENIZER))


def softmax(logits):
    return logits.double().softmax(-1)


def test_what_is_tried_changes_more_and_more(model):
    ways = alternatives(model, replace(HALF, hidden="auto", tokens="auto"))
    assert [way.hidden for way in ways] == [*hidden_widths(32)] == [32, 28, 24, 20, 16]
    assert {way.tokens for way in ways} == {None}  # the width first
    ways = alternatives(model, replace(HALF, hidden=24, tokens="auto"))
    assert [way.tokens for way in ways] == [None, *TOKEN_RATIOS]
    assert {way.hidden for way in ways} == {24}
    assert alternatives(model, HALF) == [HALF]
    assert len(ways) == replace(HALF, tokens="auto").tries


@pytest.mark.parametrize("width", [384, 768, 256, 1024, 100, 16, 9, 3])
def test_widths_to_try_are_within_bounds_and_multiples_that_kernels_like(width):
    own, *narrower = hidden_widths(width)
    unit = max(1, min(32, width // 8))
    assert own == width
    assert narrower == sorted(set(narrower), reverse=True)
    assert all(each % unit == 0 and 0.4 * width <= each < width for each in narrower)
    assert (own, *narrower) == {384: (384, 352, 288, 256, 192), 768: (768, 672, 576, 480, 384)}.get(
        width, (own, *narrower)
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden": 40}, "hidden: the model has 32 channels, got 40"),
        ({"hidden": 24, "elastic": True}, "the model is a super-network"),
        ({"hidden": "auto", "elastic": True}, "the model is a super-network"),
        ({"tokens": "auto", "elastic": True}, "tokens: slices of a super-network read all tokens"),
    ],
)
def test_what_cannot_be_is_refused(model, config, message):
    elastic = config.pop("elastic", False)
    with pytest.raises(InputError, match=message):
        alternatives(model, replace(HALF, **config), elastic=elastic)
    assert message in out_of_reach(model, replace(HALF, **config), lambda: COST, None, elastic=elastic)


def test_widths_and_schedules_that_a_model_cannot_have_are_left_out(make_model):
    factorized = make_model(FULL, labels=3, vocab_size=len(TOKENIZER), embedding_size=24)
    assert [way.hidden for way in alternatives(factorized, replace(HALF, hidden="auto"))] == [32, 28, 20, 16]
    shallow = make_model(replace(FULL, layers=FULL.layers[:1]), labels=3, vocab_size=len(TOKENIZER))
    with pytest.raises(InputError, match="tokens: needs at least two layers"):
        alternatives(shallow, replace(HALF, tokens=0.5))
    scheduled = make_model(geometric(FULL, 0.5), labels=3, vocab_size=len(TOKENIZER))
    with pytest.raises(InputError, match="hidden: needs layers that read all tokens"):
        alternatives(scheduled, replace(HALF, hidden="auto"))


def test_a_goal_is_out_of_reach_if_it_is_for_the_narrowest(model):
    tight = replace(HALF, keep=0.035)
    assert "3x32 heads 0,0,1 of 8 ffn 0, the smallest" in out_of_reach(model, tight, lambda: COST, None)
    assert out_of_reach(model, replace(tight, hidden="auto"), lambda: COST, None) is None
    message = out_of_reach(model, replace(tight, hidden="auto", keep=1e-4), lambda: COST, None)
    assert "3x16 heads 0,0,1 of 8 ffn 0, the smallest" in message


@pytest.mark.parametrize("kind", OUTPUT_LOSSES)
def test_equal_answers_do_not_differ_and_texts_are_judged_one_by_one(kind):
    rng = torch.Generator().manual_seed(0)
    width = 1 if kind in ("regression", "rerank") else 4
    first, second = torch.randn(2, 5, width, generator=rng).unbind()
    batch, losses = {"attention_mask": torch.ones(5, 3)}, OUTPUT_LOSSES[kind]
    assert torch.equal(divergences(losses, first, first, batch), torch.zeros(5, dtype=torch.float64))
    assert (divergences(losses, first + 1e-5 * second, first, batch) > 0).all()
    together = divergences(losses, second, first, batch)
    assert (together > 0).all()
    single = [divergences(losses, second[row : row + 1], first[row : row + 1], batch) for row in range(5)]
    assert torch.allclose(torch.cat(single), together, atol=1e-6)


def test_answers_differ_by_what_the_kind_says():
    rng = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 5, 4, generator=rng).unbind()
    before, after = softmax(first), softmax(second)
    by_class = divergences(OUTPUT_LOSSES["single_label_classification"], second, first, {})
    assert np.allclose(by_class, (before * (before / after).log()).sum(-1), atol=1e-6)
    before, after = first.double().sigmoid(), second.double().sigmoid()
    bits = before * (before / after).log() + (1 - before) * ((1 - before) / (1 - after)).log()
    assert np.allclose(divergences(OUTPUT_LOSSES["multi_label_classification"], second, first, {}), bits.sum(-1))
    numbers = divergences(OUTPUT_LOSSES["regression"], second[:, :1], first[:, :1], {})
    assert torch.allclose(numbers, (second - first)[:, 0].double().square(), atol=1e-6)


def test_of_tokens_those_that_have_a_label_count():
    rng = torch.Generator().manual_seed(2)
    first, second = torch.randn(2, 2, 3, 4, generator=rng).unbind()
    labels, mask = torch.tensor([[-100, 1, 2], [0, -100, -100]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    losses = OUTPUT_LOSSES["single_label_classification"]
    first, second = first.double(), second.double()
    each = F.kl_div(second.log_softmax(-1), first.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    labeled = divergences(losses, second, first, {"labels": labels, "attention_mask": mask})
    assert torch.allclose(labeled, torch.stack([each[0, 1:].mean(), each[1, 0]]), atol=1e-6)
    there = divergences(losses, second, first, {"attention_mask": mask})
    assert torch.allclose(there, torch.stack([each[0].mean(), each[1, :2].mean()]), atol=1e-6)


def test_a_model_is_compared_with_its_answers_from_before(model):
    comparison = AnswerComparison.of(model, HELD_OUT)
    assert np.abs(comparison.divergences(copy.deepcopy(model))).max() < 1e-6
    with torch.no_grad():
        model.classifier.bias[0] += 1.0
    assert comparison.divergences(model).min() > 1e-3
    assert len(comparison.divergences(model)) == 20
    with pytest.raises(InputError, match="held out, a third of the training texts at most, and there are fewer"):
        AnswerComparison.of(model, [])


def test_documents_of_a_query_count_as_one(make_model):
    task = toy_task("rerank", train=60, validation=16, test=16)
    tokenizer = toy_tokenizer(task)
    model = make_model(FULL, labels=1, kind="rerank", vocab_size=len(tokenizer))
    _, held_out = held_out_batches(task, tokenizer, 24, seed=0, apart=20)
    comparison = AnswerComparison.of(model, held_out)
    with torch.no_grad():
        model.classifier.weight += torch.randn(
            model.classifier.weight.shape, generator=torch.Generator().manual_seed(0)
        )
    queries = torch.cat([batch["labels"][:, 0] for batch in held_out])
    answers = torch.cat([model.eval().run(batch)[0] for batch in held_out]) - torch.cat(list(comparison.answers))
    squares = answers.detach().double().square().squeeze(-1)
    assert 1 < len(queries.unique()) < len(queries) == 20
    expected = [float(squares[queries == query].mean()) for query in queries.unique()]
    np.testing.assert_allclose(comparison.divergences(model), expected, rtol=1e-4)


def choice(model, config, means, *, spread=0.1, cost=COST):
    """What is chosen if the answers to 40 texts differ by so much, and the messages; nothing is cut."""
    messages, tried, names = [], [], {}
    rng = np.random.default_rng(0)
    noise = rng.normal(0, spread, 40)

    class Told:
        def divergences(self, small):
            return means[names[small]] + noise + rng.normal(0, 0.3 * spread, 40)

    def carry_out(copied, way):
        names[copied] = way.tokens or way.hidden or "all"
        tried.append(names[copied])
        return copied

    goal = CostGoal(cost, cost(FULL).value * config.keep, 16)
    chosen = Chooser(model, goal, carry_out, Told(), messages.append).chosen(config)
    return names[chosen], tried, messages


def test_the_one_that_differs_least_is_chosen_if_it_is_shown_to_be_better(model):
    config = replace(HALF, hidden="auto")
    chosen, tried, messages = choice(model, config, {32: 1.0, 28: 0.9, 24: 0.5, 20: 0.6, 16: 0.9})
    assert (chosen, tried) == (24, [32, 28, 24, 20, 16])
    assert messages[0].startswith("hidden 32: answers to 40 other texts differ by ")
    assert messages[-1].startswith("hidden 24: its answers differ less than those of hidden 32 with probability 1.000")


def test_where_it_is_open_the_whole_width_stays(model):
    config = replace(HALF, hidden="auto")
    chosen, _, messages = choice(model, config, {32: 1.0, 28: 1.01, 24: 0.999, 20: 1.02, 16: 1.0})
    assert chosen == 32
    assert messages[-1].startswith("undecided: answers of hidden")
    assert "< 0.9875, as 5 were compared; hidden 32 stays" in messages[-1]


def test_what_changes_still_more_is_left_out_after_two_that_are_worse(model):
    config = replace(HALF, hidden="auto")
    chosen, tried, messages = choice(model, config, {32: 0.5, 28: 0.8, 24: 0.9, 20: 0.1, 16: 0.1})
    assert (chosen, tried) == (32, [32, 28, 24])
    assert messages[-1] == "hidden 32: its answers differ least of 3"
    chosen, tried, _ = choice(model, config, {32: 0.5, 28: 0.8, 24: 0.3, 20: 0.6, 16: 0.1})
    assert (chosen, tried) == (16, [32, 28, 24, 20, 16])


def test_widths_that_cannot_meet_the_goal_are_passed_over(model):
    config = replace(HALF, hidden="auto", keep=0.035)
    chosen, tried, messages = choice(model, config, {24: 0.5, 20: 0.45, 16: 0.2})
    assert (chosen, tried) == (16, [24, 20, 16])
    assert messages[0].startswith("hidden 32: the goal of")
    with pytest.raises(InputError, match="3x16 heads 0,0,1 of 8 ffn 0, the smallest"):
        choice(model, replace(config, keep=1e-4), {})


def test_schedules_that_cost_more_than_they_save_are_passed_over(model):
    """As where texts are short: a layer that chooses tokens takes time for that."""

    def dear(shape):
        judging = sum(left < read for read, left in shape.token_shares)
        return Measurement("latency", read_tokens(shape) + judging * 0.215 * read_tokens(FULL), "s")

    config = replace(HALF, tokens="auto", keep=0.6)
    chosen, tried, messages = choice(model, config, {"all": 1.0}, cost=FunctionCost(dear))
    assert (chosen, tried) == ("all", ["all"])
    assert sum("choosing tokens costs more than it saves" in message for message in messages) == len(TOKEN_RATIOS)
    given = replace(config, tokens=0.5, hidden="auto")  # that is no question then
    assert choice(model, given, {0.5: 0.0}, cost=FunctionCost(dear))[0] == 0.5


def test_a_width_that_was_not_measured_is_no_choice(model):
    def learned(shape):
        detail = {"extrapolates": ["hidden"]} if shape.hidden < 24 else {}
        return Measurement("latency", read_tokens(shape), "s", detail=detail)

    config = replace(HALF, hidden="auto")
    chosen, tried, messages = choice(model, config, {32: 1.0, 28: 0.6, 24: 0.5}, cost=FunctionCost(learned))
    assert (chosen, tried) == (24, [32, 28, 24])
    assert any("its latency would be a guess: beyond what was measured in hidden" in message for message in messages)


def test_the_width_first_then_the_schedule_at_that_width(model):
    config = replace(HALF, hidden="auto", tokens="auto")
    means = {32: 1.0, 28: 0.5, 24: 0.9, 20: 0.9, 16: 0.9, 0.9: 0.4, 0.8: 0.2, 0.7: 0.9, 0.6: 0.9, 0.5: 0.1}
    chosen, tried, messages = choice(model, config, means)
    assert (chosen, tried) == (0.8, [32, 28, 24, 20, 0.9, 0.8, 0.7, 0.6])  # 28 with all tokens is not made again
    assert messages[-1].startswith("tokens 0.8: its answers differ less than those of all tokens")


@pytest.mark.parametrize("tokens", [None, 0.6])
def test_what_is_chosen_is_what_its_number_gives(model, tokens):
    """With the same texts, so a width that is chosen is the width that is given."""
    original, config = copy.deepcopy(model), replace(HALF, hidden="auto", tokens=tokens)
    chosen = prune(model, lambda: SCORED, config, COST, held_out=lambda: HELD_OUT)
    given = replace(config, hidden=chosen.shape.hidden)
    twin = prune(original, lambda: SCORED, given, COST)
    assert chosen.shape == twin.shape
    assert COST(chosen.shape).value <= COST(FULL).value / 2
    assert bool(chosen.shape.tokens) == (tokens is not None)
    for (name, value), other in zip(chosen.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(value, other), name


def test_a_schedule_is_set_before_the_rest_of_the_goal(model):
    twin = copy.deepcopy(model)
    scheduled = prune(model, lambda: SCORED, replace(HALF, tokens=0.6), COST)
    assert scheduled.shape.tokens == geometric(FULL, 0.6).tokens
    assert scheduled.config.layer_tokens == list(geometric(FULL, 0.6).tokens)
    all_tokens = prune(copy.deepcopy(twin), lambda: SCORED, HALF, COST)
    assert scheduled.shape.with_tokens(1.0, 1.0, 1.0).weights > all_tokens.shape.weights  # it can afford more
    set_shape(twin, geometric(FULL, 0.6))
    after = prune(twin, lambda: SCORED, replace(HALF, keep=COST(FULL).value / 2 / COST(twin.shape).value), COST)
    assert after.shape == scheduled.shape
    assert all(map(torch.equal, after.parameters(), scheduled.parameters()))


def test_layers_go_before_a_choice_and_answers_are_those_of_the_whole_model(model):
    messages = []
    config = replace(HALF, layers=2, hidden="auto", keep=0.4)
    chosen = prune(model, lambda: SCORED, config, COST, held_out=lambda: HELD_OUT, log=messages.append)
    assert chosen.shape.depth == 2
    assert COST(chosen.shape).value <= 0.4 * COST(FULL).value
    assert len([message for message in messages if "answers to 20 other texts differ" in message]) >= 3
