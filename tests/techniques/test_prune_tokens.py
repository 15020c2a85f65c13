import pytest
import torch

from limbeck.core.analytic_cost import macs
from limbeck.core.candidate import Candidate
from limbeck.core.cost import FunctionCost, TargetCost, measure_now
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher
from limbeck.core.step_keys import identity
from limbeck.core.target import Target
from limbeck.cost_models.measured_cost import MeasuredCost
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.measure.samples import typical_length
from limbeck.techniques.distill import Distill
from limbeck.techniques.finetune import Finetune
from limbeck.techniques.prune import Prune
from limbeck.techniques.prune_tokens import PruneTokens

SHAPE = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)


TASK = toy_task("classification", train=48, validation=24, test=24)
TOKENIZER = toy_tokenizer(TASK)


@pytest.fixture
def build(make_model):
    def build(shape=SHAPE, seed=0):
        model = make_model(shape, labels=TASK.num_labels, vocab_size=len(TOKENIZER), seed=seed)
        return Candidate(model, TOKENIZER, TASK)

    return build


@pytest.fixture
def candidate(build):
    return build()


def apply(step, candidate):
    (pruned,) = step.apply(candidate, RunContext())
    return pruned


def test_a_given_schedule_changes_the_shape_and_no_weight(candidate):
    before = {name: value.clone() for name, value in candidate.model.state_dict().items()}
    step = PruneTokens.of(schedule=(0.7, 0.4, 0.4))
    pruned = apply(step, candidate)
    assert pruned.model.shape == SHAPE.with_tokens(0.7, 0.4, 0.4) == step.shape_after(SHAPE)
    assert pruned.model.config.layer_tokens == [0.7, 0.4, 0.4]
    assert all(torch.equal(before[name], value) for name, value in pruned.model.state_dict().items())


def test_a_share_of_the_operations_is_kept_at_the_typical_length(candidate):
    length = typical_length(candidate)

    def cost(shape):
        return macs(shape, length, candidate.model.style, candidate.task.num_labels)

    step = PruneTokens.of(keep=0.6)
    assert step.shape_after(SHAPE) is None
    shape = apply(step, candidate).model.shape
    assert 0.59 * cost(SHAPE) < cost(shape) <= 0.6 * cost(SHAPE)
    assert list(shape.tokens) == sorted(shape.tokens, reverse=True)


class Clock(TargetCost):
    """A machine on which every layer takes a millisecond, and its tokens another."""

    def for_format(self, number_format):
        assert number_format == "float"
        return FunctionCost(
            lambda shape: Measurement("latency_p50", 1e-3 * sum(1 + share for share, _ in shape.token_shares), "s")
        )


@pytest.mark.parametrize(("goal", "most"), [({"speedup": 1.25}, 4.8), ({"latency_ms": 5.0}, 5.0)])
def test_a_latency_is_reached(candidate, goal, most):
    step = PruneTokens.of(**goal, number_format="float")
    assert step.goal_target() == ""
    assert step.out_of_reach(candidate, RunContext(cost=Clock())) is None
    (pruned,) = step.apply(candidate, RunContext(cost=Clock()))
    latency = 1e3 * Clock().for_format("float")(pruned.model.shape).value
    assert most - 0.1 < latency <= most


def test_a_latency_that_tokens_cannot_reach_is_refused_before_any_work(candidate):
    step = PruneTokens.of(latency_ms=3.0, number_format="float")
    assert "prune besides" in step.out_of_reach(candidate, RunContext(cost=Clock()))


@pytest.mark.slow
def test_the_latency_is_measured(build):
    """With a real table, for texts long enough that tokens matter; how many go on is a matter of the machine."""
    candidate = build(Shape.uniform(layers=4, hidden=128, heads=4, ffn=512))
    cost = MeasuredCost(candidate, Target(runtime="onnxruntime", seq_len=64), measure_now)
    (pruned,) = PruneTokens.of(speedup=1.15).apply(candidate, RunContext(cost=cost))
    shares = [read for read, _ in pruned.model.shape.token_shares]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 1


LEARNED = {"allocation": "learned", "samples": 16, "gate_epochs": 1.0}


def test_shares_are_learned_within_the_same_operations(build, candidate):
    """Whichever schedule is better, the goal is met exactly, and the weights stay."""
    length = typical_length(candidate)
    before = {name: value.clone() for name, value in candidate.model.state_dict().items()}
    uniform = apply(PruneTokens.of(keep=0.6), build()).model.shape
    messages = []
    step = PruneTokens.of(keep=0.6, **LEARNED)
    assert step.out_of_reach(candidate, RunContext()) is None
    (pruned,) = step.apply(candidate, RunContext(log=messages.append))
    shape = pruned.model.shape
    assert messages[0].startswith("divergence of 16 other answers: ")
    assert (shape != uniform) == messages[0].endswith("so they are taken")
    whole = macs(SHAPE, length, candidate.model.style, TASK.num_labels)
    assert 0.59 * whole < macs(shape, length, candidate.model.style, TASK.num_labels) <= 0.6 * whole
    assert all(torch.equal(before[name], value) for name, value in pruned.model.state_dict().items())


def test_shares_are_learned_for_a_latency(candidate):
    step = PruneTokens.of(speedup=1.25, number_format="float", **LEARNED)
    (pruned,) = step.apply(candidate, RunContext(cost=Clock()))
    latency = 1e3 * Clock().for_format("float")(pruned.model.shape).value
    assert 4.7 < latency <= 4.8


def test_a_target_elsewhere_cannot_measure_it():
    target = Target(url="http://device:8080")
    for step, fields in ((PruneTokens.of(speedup=2.0), ["speedup"]), (PruneTokens.of(keep=0.5), [])):
        assert list(step.target_problems(target, ())) == fields


def test_latencies_are_in_the_key_only_where_they_count():
    read = {"target": "here", "cost": "table"}
    assert PruneTokens.of(speedup=2.0).decisive_services(read, TASK, Target()) == read
    for fields in ({"keep": 0.5}, {"schedule": (0.5, 0.5, 0.5)}):
        assert PruneTokens.of(**fields).decisive_services(read, TASK, Target()) == {}


def test_the_seed_is_in_the_key_where_shares_are_learned_alone():
    read = {"seed": 3, "target": "here", "cost": "table"}
    for fields, expected in (
        ({"keep": 0.5}, []),
        ({"speedup": 2.0}, ["target", "cost"]),
        ({"keep": 0.5, "allocation": "learned"}, ["seed"]),
        ({"speedup": 2.0, "allocation": "learned"}, ["seed", "target", "cost"]),
    ):
        assert list(PruneTokens.of(**fields).decisive_services(read, TASK, Target())) == expected


def test_fields_that_came_later_are_in_the_key_where_they_are_given():
    assert identity(PruneTokens.of(keep=0.5)) == {"schedule": [], "keep": 0.5}
    learned = identity(PruneTokens.of(keep=0.5, allocation="learned", gate_epochs=1.0))
    assert learned == {"schedule": [], "keep": 0.5, "allocation": "learned", "gate_epochs": 1.0}


def test_a_schedule_may_be_made_stricter(candidate):
    pruned = apply(PruneTokens.of(schedule=(0.9, 0.8, 0.8)), candidate)
    assert apply(PruneTokens.of(schedule=(0.9, 0.5, 0.5)), pruned).model.shape.tokens == (0.9, 0.5, 0.5)
    with pytest.raises(InputError, match=r"prune_tokens: schedule: layer 0 passes on 0.9"):
        apply(PruneTokens.of(schedule=(1.0, 0.5, 0.5)), pruned)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give one of schedule, .*; got none"),
        ({"schedule": (0.5, 0.5, 0.5), "keep": 0.5}, "give one of .*; got schedule, keep"),
        ({"speedup": 2.0, "latency_ms": 1.0}, "give one of .*; got latency_ms, speedup"),
        ({"keep": 0.5, "target": "server"}, "target: is for speedup and latency_ms, got keep"),
        ({"speedup": 2.0}, "speedup: there are no latencies of this target; use keep"),
        ({"schedule": (0.5, 0.6, 0.5)}, "no share may rise, but share 1 does, 0.5 to 0.6"),
        ({"schedule": (1, 1, 1)}, "changes nothing"),
        ({"schedule": (0.5, 0.5, 0.5), "allocation": "learned"}, "divides a goal among the layers, and schedule does"),
        ({"schedule": (0.5,)}, "has 1 shares, the model 3 layers"),
        ({"keep": 0.1}, "keep: 0.1 is below the 0.1[1-9]+ that is left"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(candidate, fields, message):
    step = PruneTokens.of(**fields)
    with pytest.raises(InputError, match=f"prune_tokens: .*{message}"):
        apply(step, candidate)
    reasons = step.problems() or [step.out_of_reach(candidate, RunContext())]
    assert len(reasons) == 1
    assert candidate.model.shape == SHAPE


def test_models_without_softmax_attention_or_with_one_layer_are_refused(build):
    for shape, reason in (
        (Shape.uniform(layers=1, hidden=32, heads=4, ffn=64), "at least two layers"),
        (SHAPE.with_attention("local:3", "kernel", "softmax"), "apart from the last, has softmax attention"),
    ):
        step = PruneTokens.of(keep=0.6)
        assert reason in step.out_of_reach(build(shape), RunContext())
        with pytest.raises(InputError, match=reason):
            apply(step, build(shape))


def test_gates_need_attention_that_they_can_weigh(build):
    step = PruneTokens.of(keep=0.6, **LEARNED)
    linear = SHAPE.with_attention("softmax", "kernel", "softmax")
    assert "learned weighs tokens by gates in softmax attention" in step.out_of_reach(build(linear), RunContext())
    with pytest.raises(InputError, match="prune_tokens: allocation: learned weighs"):
        apply(step, build(linear))


@pytest.mark.parametrize("match", [("logits",), ("logits", "hidden")])
def test_it_learns_to_do_with_fewer(build, match):
    student = apply(PruneTokens.of(schedule=(0.5, 0.3, 0.3)), build())
    before = {name: value.clone() for name, value in student.model.state_dict().items()}
    context = RunContext(teacher=Teacher("teacher", lambda: build(seed=1)))
    step = Distill.of(match=match, num_train_epochs=1, learning_rate=1e-3, evaluations_per_epoch=0)
    (pruned,) = step.apply(student, context)
    assert pruned.model.shape.tokens == (0.5, 0.3, 0.3)
    assert any(not torch.equal(before[name], value) for name, value in pruned.model.state_dict().items())


@pytest.mark.parametrize("match", ["attention", "relations"])
def test_attention_of_fewer_tokens_is_not_compared(build, match):
    student = apply(PruneTokens.of(schedule=(0.5, 0.3, 0.3)), build())
    context = RunContext(teacher=Teacher("teacher", build))
    with pytest.raises(InputError, match=f"match '{match}' compares all pairs of tokens, and the student's"):
        list(Distill.of(match=(match,), num_train_epochs=1).apply(student, context))


def test_fine_tuning_keeps_the_schedule(candidate):
    pruned = apply(PruneTokens.of(schedule=(0.5, 0.3, 0.3)), candidate)
    (tuned,) = Finetune.of(num_train_epochs=1, learning_rate=1e-3).apply(pruned, RunContext())
    assert tuned.model.shape.tokens == (0.5, 0.3, 0.3)


@pytest.mark.parametrize("criterion", ["obs", "ziplm", "fisher", "taylor"])
def test_heads_and_neurons_are_pruned_beside_it(candidate, criterion):
    """In either order, and layers that judge tokens keep a head."""
    fewer = apply(PruneTokens.of(schedule=(0.5, 0.3, 0.3)), candidate)
    whole = macs(fewer.model.shape, 10)
    step = Prune.of(keep=0.3, cost="macs", ffn_multiple=8, samples=16, criterion=criterion)
    (pruned,) = step.apply(fewer, RunContext())
    shape = pruned.model.shape
    assert shape.tokens == (0.5, 0.3, 0.3)
    assert macs(shape, 10) < 0.4 * whole
    assert shape.layers[0].heads >= 1
    assert shape.layers[1].heads >= 1
