import numpy as np
import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.cost import FunctionCost
from limbeck.core.field_groups import parameters
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext
from limbeck.core.token_schedule import geometric, scheduled
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.pruning import alternatives
from limbeck.train import token_gates
from limbeck.train.token_gates_config import TokenGatesConfig

SHAPE = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
ROWS = {"train": 1000}
LEARNED = TokenGatesConfig("learned", samples=16, gate_epochs=1.0)
COST = FunctionCost(lambda shape: Measurement("macs", 1000 * sum(read for read, _ in shape.token_shares), "MAC"))
UNIFORM = geometric(SHAPE, 0.6)


def test_fields_of_the_fit_have_an_effect_with_learned_shares_alone():
    assert not TokenGatesConfig().problems()
    assert not LEARNED.problems()
    for field, value in {"samples": 64, "gate_epochs": 1.0}.items():
        assert TokenGatesConfig(**{field: value}).problems() == [
            f"{field}: has no effect without allocation: learned; leave it out"
        ]


def test_gates_need_attention_that_they_can_weigh():
    for core, problem in (("local:3", None), ("kernel", "have kernel; use uniform"), ("window:3", "window:3")):
        shape = SHAPE.with_attention("softmax", core, "softmax")
        reason = LEARNED.problem_of(shape)
        assert (reason is None) == (problem is None)
        assert problem is None or problem in reason
        assert TokenGatesConfig().problem_of(shape) is None


def test_the_estimate_grows_with_texts_and_passes():
    assert TokenGatesConfig().estimated_seconds(SHAPE, ROWS, 100) == 0
    assert LEARNED.estimated_seconds(Shape.uniform(layers=2, hidden=32, heads=4, ffn=64), ROWS, 100) == 0
    few, more, most, all_texts = (
        TokenGatesConfig("learned", samples).estimated_seconds(SHAPE, ROWS, 100) for samples in (64, 128, 192, 4000)
    )
    assert most - more == pytest.approx(more - few)
    assert (all_texts - few) / (more - few) == pytest.approx((1000 - 64) / 64)


@pytest.fixture
def candidate(make_model):
    task = toy_task("classification", train=48, validation=24, test=24)
    tokenizer = toy_tokenizer(task)
    return Candidate(make_model(SHAPE, labels=task.num_labels, vocab_size=len(tokenizer)), tokenizer, task)


def keep_in(folder, names):
    def keep(name, build):
        if name not in names:
            names.append(name)
            (folder / name).mkdir()
            build(folder / name)
        return folder / name

    return keep


def test_a_schedule_is_learned_once_for_texts_weights_and_budget(candidate, tmp_path):
    names = []
    context = RunContext(keep=keep_in(tmp_path, names))

    def within_goal(exponents):
        return scheduled(SHAPE, exponents, 0.5)

    for uniform, seed, count in ((UNIFORM, 0, 1), (UNIFORM, 0, 1), (UNIFORM, 1, 2), (geometric(SHAPE, 0.5), 1, 3)):
        LEARNED.divided(candidate, RunContext(seed=seed, keep=context.keep), COST, uniform, within_goal)
        assert len(names) == count
    candidate.model.classifier.weight.data.add_(1.0)
    LEARNED.divided(candidate, context, COST, UNIFORM, within_goal)
    assert len(names) == 4


@pytest.fixture
def answered(candidate, monkeypatch):
    """Let a fit give exponents, and answers to held-out texts differ by so much with the learned and uniform shares."""

    def answer(exponents, own, uniform):
        class Comparison:
            @classmethod
            def of(cls, model, texts):
                assert model is candidate.model
                assert sum(len(batch["input_ids"]) for batch in texts) == 16, "a third of the training texts"
                return cls()

            def divergences(self, model, shape):
                return np.array(uniform if shape == UNIFORM else own)

        monkeypatch.setattr(token_gates, "learned_schedule", lambda *arguments: np.array(exponents))
        monkeypatch.setattr(alternatives, "AnswerComparison", Comparison)

    return answer


def divided(candidate, messages, within_goal=lambda powers: scheduled(SHAPE, powers, 0.5)):
    return LEARNED.divided(candidate, RunContext(log=messages.append), COST, UNIFORM, within_goal)


def test_shares_that_are_shown_to_be_better_are_taken(candidate, answered):
    messages = []
    answered([0.5, 2.0, 2.0], [0.1] * 20, [0.2] * 20)
    assert divided(candidate, messages).tokens == (0.707, 0.25, 0.25)
    assert messages == [
        "divergence of 20 other answers: 0.1 with learned shares, 0.2 with uniform ones; less with probability 1.000, "
        "so they are taken"
    ]


@pytest.mark.parametrize(
    ("own", "uniform"), [([0.2] * 9, [0.2] * 9), ([0.1, 0.3, 0.1] * 3, [0.2] * 9), ([0.1] * 4, [0.2] * 4)]
)
def test_shares_that_are_not_shown_to_be_better_are_not_taken(candidate, answered, own, uniform):
    """They are equal, better by chance, or better on four texts alone."""
    messages = []
    answered([0.5, 2.0, 2.0], own, uniform)
    assert divided(candidate, messages) == UNIFORM
    assert messages[0].endswith("too little to tell, so shares are uniform")


@pytest.mark.parametrize("kind", ["classification", "tokens", "multilabel", "regression", "embedding", "rerank"])
def test_answers_of_every_kind_are_compared(make_model, kind):
    task = toy_task(kind, train=48, validation=24, test=24)
    tokenizer = toy_tokenizer(task)
    model = make_model(SHAPE, labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer))
    messages = []
    shape = divided(Candidate(model, tokenizer, task), messages)
    assert shape.tokens
    count = int(messages[0].split()[2])
    assert 1 < count < 16 if kind == "rerank" else count == 16, "documents of a query count as one"


def test_a_goal_that_learned_shares_cannot_meet_is_met_with_uniform_ones(candidate, answered):
    messages = []
    answered([0.0, 2.0, 2.0], [0.1], [0.2])

    def fail(exponents):
        raise InputError("too strict")

    assert divided(candidate, messages, fail) == UNIFORM
    assert "cannot meet the goal" in messages[-1]


def test_with_one_layer_that_chooses_there_is_nothing_to_divide(candidate):
    def fail(*arguments):
        raise AssertionError("something was learned")

    messages = []
    context = RunContext(keep=fail, log=messages.append)
    assert LEARNED.divided(candidate, context, COST, SHAPE, fail) == SHAPE, "the goal is met as it is"
    candidate.model.encoder.shape = SHAPE.with_layer(1, heads=0)
    assert LEARNED.divided(candidate, context, COST, UNIFORM, fail) == UNIFORM
    assert messages == ["a single layer chooses tokens, so there is nothing to divide among layers"]


def test_the_default_is_uniform():
    assert parameters(TokenGatesConfig()) == {"allocation": "uniform", "samples": 128, "gate_epochs": 2.0}
