import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.data.batching import Encoded
from limbeck.train import precision
from limbeck.train.config import TrainingConfig
from limbeck.train.loop import fit
from limbeck.train.objectives import Loss, Weighted
from limbeck.train.precision import half_of, is_faster, time_both
from limbeck.train.task_loss import TaskLoss

PLAN = TrainingConfig(num_train_epochs=2, learning_rate=3e-3, per_device_train_batch_size=8)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def words():
    rng = random.Random(0)
    rows = [[2, *(rng.randint(5, 20) for _ in range(rng.randint(4, 12))), 3] for _ in range(64)]
    return Encoded(rows, None, [int(7 in row) for row in rows], 0, "classification")


@pytest.fixture
def worthwhile(monkeypatch):
    """Let a trial precede the smallest training."""
    monkeypatch.setattr(precision, "FEWEST_BATCHES", 1)
    monkeypatch.setattr(precision, "LEAST_OPERATIONS", 0)


class Memo:
    """Really measures, then answers that the half precision takes ``ratio`` of float32's time."""

    def __init__(self, ratio):
        self.ratio, self.names = ratio, []

    def __call__(self, name, build):
        self.names.append(name)
        measured = build()["seconds"]
        assert measured.shape[1] == 2
        assert (measured > 0).all()
        return {"seconds": np.array([[1.0, self.ratio]] * 3)}


def trained(make_model, words, plan, objective=None, **options):
    model = make_model()
    objective = objective or Weighted({"task": (1.0, TaskLoss(model.loss))})
    report = fit(model, objective, words, plan, **options)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, report


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("ratio", "chosen"), [(1.5, "no"), (0.5, "bf16")])
def test_a_trial_leaves_no_trace_in_the_training(make_model, words, worthwhile, ratio, chosen):
    """Dropout is on, so the same weights need the same random numbers, batches and moments."""
    memo, messages = Memo(ratio), []
    options = {"memo": memo, "log": lambda message, **numbers: messages.append(message)}
    automatic, report = trained(make_model, words, PLAN, **options)
    fixed, expected = trained(make_model, words, replace(PLAN, mixed_precision=chosen))
    assert len(memo.names) == 1
    assert same(automatic, fixed)
    assert report.mixed_precision == expected.mixed_precision == chosen
    assert messages[0].startswith(f"mixed_precision auto: {'float32' if chosen == 'no' else 'bfloat16'}")


def test_the_two_precisions_train_differently(make_model, words):
    """Else the test above would hold for any choice."""
    assert not same(*(trained(make_model, words, replace(PLAN, mixed_precision=each))[0] for each in ("no", "bf16")))


def test_a_short_training_has_no_trial(make_model, words):
    memo = Memo(0.5)
    automatic, report = trained(make_model, words, PLAN, memo=memo)
    assert report.mixed_precision == "no"
    assert memo.names == []
    assert same(automatic, trained(make_model, words, replace(PLAN, mixed_precision="no"))[0])


def test_gradients_modes_buffers_and_random_states_are_put_back(make_model, words, worthwhile):
    model = make_model()
    model.register_buffer("seen", torch.zeros(()))
    marks = [torch.full_like(p, 0.25) for p in model.parameters()]
    for parameter, mark in zip(model.parameters(), marks, strict=True):
        parameter.grad = mark
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def objective(trained, batch, progress):
        trained.seen += 1
        yield Loss(trained.loss(trained.run(batch)[0], batch["labels"]), {})

    torch.manual_seed(5)
    state = torch.get_rng_state()
    arguments = (model, objective, words, PLAN, 0, None, lambda message: None, Memo(0.5))
    assert precision.resolved(*arguments) == "bf16"
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(p.grad is mark for p, mark in zip(model.parameters(), marks, strict=True))
    assert same(before, model.state_dict())


@pytest.mark.parametrize("wrong", [1.2, float("nan"), float("inf")])
def test_a_half_precision_with_another_loss_is_not_used(make_model, words, worthwhile, wrong):
    def objective(trained, batch, progress):
        loss = trained.loss(trained.run(batch)[0], batch["labels"])
        yield Loss(loss * (wrong if torch.is_autocast_enabled("cpu") else 1.0), {})

    messages = []
    _, report = trained(make_model, words, PLAN, objective, memo=Memo(0.5), log=lambda m, **n: messages.append(m))
    assert report.mixed_precision == "no"
    assert "float32; the loss in bfloat16 differs by" in messages[0]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("first", ["no", "bf16"])
def test_a_resumed_training_keeps_its_precision(make_model, words, worthwhile, tmp_path, first):
    """On a machine where the times are the other way round."""
    plan = replace(PLAN, save_seconds=0)
    ratio = {"no": 1.5, "bf16": 0.5}[first]

    def stop(progress):
        if progress.step == 5:
            raise Interrupted

    with pytest.raises(Interrupted):
        trained(make_model, words, plan, scratch=tmp_path, memo=Memo(ratio), after_step=stop)
    other = Memo(1 / ratio)
    resumed, report = trained(make_model, words, plan, scratch=tmp_path, memo=other)
    assert report.mixed_precision == first
    assert other.names == []
    assert same(resumed, trained(make_model, words, replace(plan, mixed_precision=first))[0])


def test_checkpoints_of_before_do_not_say_a_precision(make_model, words, worthwhile, tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    for content in ("{", json.dumps({"loop": {"steps": 3}}), json.dumps({"loop": {"mixed_precision": "int4"}})):
        (tmp_path / "checkpoint-3" / "loop.json").write_text(content)
        memo = Memo(0.5)
        arguments = (make_model(), Weighted({}), words, PLAN, 0, tmp_path, lambda message: None, memo)
        model = arguments[0]
        arguments = (model, Weighted({"task": (1.0, TaskLoss(model.loss))}), *arguments[2:])
        assert precision.resolved(*arguments) == "bf16"
        assert len(memo.names) == 1


def clock(*lengths):
    """A clock by which the runs, in order, take these seconds."""
    now, moments = 0.0, []
    for length in lengths:
        moments += [now, now + length]
        now += length
    ticks = iter(moments)
    return lambda: next(ticks)


def test_rounds_alternate_and_stop_after_a_while():
    order = []
    slow = time_both(order.append, "bf16", clock(9, 30, 5, 3, 3, 5, 5, 3))
    assert slow["seconds"].tolist() == [[3, 5], [3, 5], [3, 5]]
    assert order == ["no", "bf16", "bf16", "no", "no", "bf16", "bf16", "no"]
    quick = time_both(order.append, "bf16", clock(*[0.01] * 100))
    assert len(quick["seconds"]) == precision.ROUNDS[1]


def test_a_half_precision_that_is_only_emulated_gets_one_pass():
    order = []
    times = time_both(order.append, "bf16", clock(2, 40))
    assert order == ["no", "bf16"]
    assert times["seconds"].tolist() == [[2, 40]]
    assert not is_faster(times)
    prepared = time_both(order.append, "bf16", clock(0.01, 0.5, *[0.01] * 100))  # a first pass of half a second
    assert len(prepared["seconds"]) == precision.ROUNDS[1]


def test_one_disturbed_round_does_not_decide():
    assert is_faster({"seconds": np.array([[1.0, 0.6], [1.0, 0.6], [1.0, 9.0]])})
    assert not is_faster({"seconds": np.array([[1.0, 1.0], [1.0, 0.99], [9.0, 1.0]])})


def test_stored_times_are_those_of_the_same_case(make_model, words, worthwhile, monkeypatch):
    memo = Memo(1.5)

    def add(shape=None, *, plan=PLAN, terms=("task",), **style):
        model = make_model(shape, **style)
        objective = Weighted({name: (1.0, TaskLoss(model.loss)) for name in terms})
        precision.resolved(model, objective, words, plan, 0, None, lambda message: None, memo)

    for _ in range(2):
        add()
    assert len(set(memo.names)) == 1
    add(Shape.uniform(layers=1, hidden=32, heads=4, ffn=64))
    add(plan=replace(PLAN, per_device_train_batch_size=16))
    add(terms=("task", "logits"))
    add(position_offset=1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    add()
    monkeypatch.setattr(precision, "machine", lambda: "another processor")
    add()
    assert len(set(memo.names)) == 7


def test_float16_is_for_gpus_without_bfloat16(monkeypatch):
    assert half_of(CPU) == "bf16"
    for native, half in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert half_of(torch.device("cuda")) == half
