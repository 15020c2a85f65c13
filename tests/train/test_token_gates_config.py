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
    small, more = (TokenGatesConfig("learned", samples).estimated_seconds(SHAPE, ROWS, 100) for samples in (64, 128))
    assert more == pytest.approx(2 * small)
    assert TokenGatesConfig("learned", 4000).estimated_seconds(SHAPE, ROWS, 100) == pytest.approx(more * 1000 / 128)


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


def stored(exponents, divergences, monkeypatch):
    result = {"exponents": np.array(exponents), "divergences": np.array(divergences)}
    monkeypatch.setattr(token_gates, "learned_schedule", lambda *arguments: result)


def test_the_better_schedule_is_taken(candidate, monkeypatch):
    messages = []
    context = RunContext(log=messages.append)

    def divided():
        return LEARNED.divided(candidate, context, COST, UNIFORM, lambda powers: scheduled(SHAPE, powers, 0.5))

    stored([0.5, 2.0, 2.0], [[0.1, 0.2, 0.0], [0.2, 0.3, 0.1]], monkeypatch)
    assert divided().tokens == (0.707, 0.25, 0.25)
    assert messages == [
        "divergence of the answers to 3 other texts: 0.1 with learned shares, 0.2 with uniform ones; less with "
        "probability 1.000, so they are taken"
    ]


@pytest.mark.parametrize("own", [[0.2, 0.2, 0.2], [0.1, 0.3, 0.1], [np.inf] * 3], ids=["equal", "by chance", "none"])
def test_shares_that_are_not_shown_to_be_better_are_not_taken(candidate, monkeypatch, own):
    messages = []
    stored([0.5, 2.0, 2.0], [own, [0.2, 0.2, 0.2]], monkeypatch)
    assert LEARNED.divided(candidate, RunContext(log=messages.append), COST, UNIFORM, pytest.fail) == UNIFORM
    assert messages[0].endswith("too little to tell, so shares are uniform")


def test_a_goal_that_learned_shares_cannot_meet_is_met_with_uniform_ones(candidate, monkeypatch):
    stored([0.0, 2.0, 2.0], [[0.1], [0.2]], monkeypatch)
    messages = []

    def fail(exponents):
        raise InputError("too strict")

    assert LEARNED.divided(candidate, RunContext(log=messages.append), COST, UNIFORM, fail) == UNIFORM
    assert "cannot meet the goal" in messages[-1]


def test_with_one_layer_that_chooses_there_is_nothing_to_divide(candidate):
    def fail(*arguments):
        raise AssertionError("something was learned")

    context = RunContext(keep=fail)
    assert LEARNED.divided(candidate, context, COST, SHAPE, fail) == SHAPE, "the goal is met as it is"
    candidate.model.encoder.shape = SHAPE.with_layer(1, heads=0)
    assert LEARNED.divided(candidate, context, COST, UNIFORM, fail) == UNIFORM


def test_the_default_is_uniform():
    assert parameters(TokenGatesConfig()) == {"allocation": "uniform", "samples": 128, "gate_epochs": 2.0}
