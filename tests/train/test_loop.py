import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.data.batching import Encoded, predict, request_batches
from limbeck.train.config import TrainingConfig
from limbeck.train.loop import fit, parameter_groups
from limbeck.train.objectives import CoTrainedModule, Loss, Weighted
from limbeck.train.task_loss import TaskLoss


@pytest.fixture(scope="module")
def words():
    """Sequences of 6 to 14 tokens; the label says whether token 7 or 9 is among them."""
    rng = random.Random(0)
    rows = [[2, *(rng.randint(5, 20) for _ in range(rng.randint(4, 12))), 3] for _ in range(96)]
    return Encoded(rows, None, [int(7 in row or 9 in row) for row in rows], 0, "classification")


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def task_loss(model):
    return Weighted({"task": (1.0, TaskLoss(model.loss))})


PLAN = TrainingConfig(num_train_epochs=3, learning_rate=3e-3, per_device_train_batch_size=8, evaluations_per_epoch=1)


class Interrupted(Exception):
    pass


def accuracy(encoded):
    def score(model):
        return float((predict(model, encoded).argmax(-1) == encoded.labels).mean())

    return score


FULL = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)


@pytest.mark.parametrize(
    ("accumulation", "shape"), [(1, FULL), (2, FULL), (1, FULL.with_layer(0, ffn=0).with_layer(1, heads=0, ffn=0))]
)
def test_resumed_equals_uninterrupted(make_model, words, tmp_path, accumulation, shape):
    plan = TrainingConfig(
        num_train_epochs=3,
        learning_rate=3e-3,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=accumulation,
        evaluations_per_epoch=1,
        save_seconds=0,
    )
    whole = make_model(shape)
    expected = fit(whole, task_loss(whole), words, plan, evaluate=accuracy(words))

    def stop_at(step):
        def after(progress):
            if progress.step == step:
                raise Interrupted

        return after

    for step in (3, 8, 14):  # in the first epoch, and at and after an evaluation
        broken = make_model(shape, seed=step)
        arguments = {"evaluate": accuracy(words), "scratch": tmp_path}
        if step == 3:
            broken = make_model(shape)
        with pytest.raises(Interrupted):
            fit(broken, task_loss(broken), words, plan, after_step=stop_at(step), **arguments)
    resumed = make_model(shape, seed=99)  # all weights must come from the checkpoint
    continued = fit(resumed, task_loss(resumed), words, plan, evaluate=accuracy(words), scratch=tmp_path)
    assert continued.steps == expected.steps
    assert continued.history == expected.history
    assert same(weights(resumed), weights(whole))


def test_epochs_of_whole_requests_may_differ_in_length(make_model, words, tmp_path):
    """As many steps as epochs of the first one's length, a whole epoch before the next, and the same when resumed."""
    rng = random.Random(0)
    sizes = [rng.randint(2, 6) for _ in range(20)]
    starts = [sum(sizes[:index]) for index in range(21)]
    requests = [tuple(range(*pair)) for pair in pairwise(starts)]
    rows = replace(words, input_ids=words.input_ids[: starts[-1]], labels=words.labels[: starts[-1]], requests=requests)
    lengths = [len(request_batches(requests, 8, 0, epoch)) for epoch in range(4)]
    assert len(set(lengths)) > 1
    plan = replace(PLAN, num_train_epochs=4, evaluations_per_epoch=0, save_seconds=0)
    seen = []

    def objective(model, batch, progress):
        seen.append((progress.step, tuple(batch["index"].tolist())))
        return task_loss(model)(model, batch, progress)

    def stop(progress):
        if progress.step == lengths[0] + 3:
            raise Interrupted

    whole, resumed = make_model(), make_model()
    report = fit(whole, objective, rows, plan)
    assert report.steps == 4 * lengths[0]
    first, second = seen[: lengths[0]], seen[lengths[0] : lengths[0] + lengths[1]]
    for epoch in (first, second):
        assert sorted(row for _, batch in epoch for row in batch) == list(range(starts[-1]))
    uninterrupted, seen[:] = list(seen), []
    with pytest.raises(Interrupted):
        fit(resumed, objective, rows, plan, scratch=tmp_path, after_step=stop)
    fit(resumed, objective, rows, plan, scratch=tmp_path)
    assert dict(seen) == dict(uninterrupted)
    assert same(weights(resumed), weights(whole))


def test_what_comes_before_training_is_not_repeated_after_a_checkpoint(make_model, words, tmp_path):
    plan = replace(PLAN, num_train_epochs=1, save_seconds=0)
    begun = []

    def stop(progress):
        if progress.step == 5:
            raise Interrupted

    for after in (stop, lambda progress: None):
        model = make_model(FULL)
        arguments = {"scratch": tmp_path, "after_step": after, "before_training": lambda: begun.append(None)}
        try:
            fit(model, task_loss(model), words, plan, **arguments)
        except Interrupted:
            continue
    assert len(begun) == 1


def tear(path):
    path.write_bytes(path.read_bytes()[:-1])


def rewrite(**changes):
    def harm(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return harm


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("checkpoint-14/weights-0.safetensors", tear),
        ("checkpoint-14/optimizer.bin", tear),
        ("checkpoint-14/random_states_0.pkl", Path.unlink),
        ("checkpoint-14/loop.json", Path.unlink),
        ("checkpoint-14/loop.json", lambda path: path.write_text("[" * 100_000)),
        ("checkpoint-14/loop.json", rewrite(loop=[])),
        ("checkpoint-14/loop.json", rewrite(loop={"steps": "14"})),
        ("checkpoint-14/loop.json", rewrite(loop={"steps": 14, "best_step": 20})),
        ("best.safetensors", Path.unlink),
        ("best.safetensors", tear),
    ],
)
def test_a_checkpoint_that_cannot_be_read_costs_progress_alone(make_model, words, tmp_path, file, harm):
    plan = replace(PLAN, num_train_epochs=2, save_seconds=0)
    small = Shape.uniform(layers=1, hidden=8, heads=2, ffn=8)
    whole = make_model(small)
    expected = fit(whole, task_loss(whole), words, plan, evaluate=accuracy(words))

    def stop(progress):
        if progress.step == 15:
            raise Interrupted

    interrupted, resumed, messages = make_model(small), make_model(small), []
    arguments = {"evaluate": accuracy(words), "scratch": tmp_path}
    with pytest.raises(Interrupted):
        fit(interrupted, task_loss(interrupted), words, plan, **arguments, after_step=stop)
    harm(tmp_path / file)

    def log(message, **numbers):
        messages.append(message)

    assert fit(resumed, task_loss(resumed), words, plan, **arguments, log=log).history == expected.history
    assert "the training begins again" in messages[0]
    assert same(weights(resumed), weights(whole))


def test_same_seed_same_weights_other_seed_other_weights(make_model, words):
    results = []
    for seed in (0, 0, 1):
        model = make_model()
        fit(
            model,
            task_loss(model),
            words,
            TrainingConfig(num_train_epochs=1, per_device_train_batch_size=16),
            seed=seed,
        )
        results.append(weights(model))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_the_best_weights_are_kept(make_model, words):
    """A score that falls from the second evaluation on leaves the weights of the first."""
    model, seen = make_model(), []

    def score(trained):
        seen.append(weights(trained))
        return -float(len(seen))

    report = fit(model, task_loss(model), words, PLAN, evaluate=score)
    assert report.best_step == report.history[0]["step"]
    assert len(seen) == 3
    assert same(weights(model), seen[0])


def test_it_learns(make_model, words):
    model = make_model(Shape.uniform(layers=1, hidden=32, heads=4, ffn=32), dropout=0.0, attention_dropout=0.0)
    plan = TrainingConfig(num_train_epochs=12, learning_rate=3e-3, per_device_train_batch_size=8)
    before = accuracy(words)(model)
    report = fit(model, task_loss(model), words, plan, evaluate=accuracy(words))
    assert report.best_score > 0.9 > before


def test_a_loss_that_is_not_finite_stops_with_the_step(make_model, words):
    model = make_model()

    def diverged(trained, batch, progress):
        total = trained.run(batch)[0].sum() * float("nan")
        yield Loss(total, {})

    with pytest.raises(FloatingPointError, match="step 1; lower learning_rate"):
        fit(model, diverged, words, PLAN)


def test_several_losses_a_step_add_their_gradients(make_model, words):
    """Two halves of a loss, back-propagated one by one, train as the whole does."""
    plan = TrainingConfig(num_train_epochs=1, per_device_train_batch_size=16, learning_rate=1e-3)
    results = []
    for parts in (1, 2):
        model = make_model(dropout=0.0, attention_dropout=0.0, classifier_dropout=0.0)

        def objective(trained, batch, progress, parts=parts):
            for _ in range(parts):
                yield Loss(trained.loss(trained.run(batch)[0], batch["labels"]) / parts, {})

        fit(model, objective, words, plan)
        results.append(weights(model))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=1e-3, atol=1e-4)


def test_weight_decay_spares_biases_and_norms(make_model):
    groups = parameter_groups(make_model(), 0.01)
    assert all(p.dim() > 1 for p in groups[0]["params"])
    assert all(p.dim() == 1 for p in groups[1]["params"])
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]


@pytest.mark.parametrize("order", [("no", "bf16"), ("bf16", "no")])
def test_one_process_may_train_in_several_precisions(make_model, words, order):
    for precision in order:
        model = make_model()
        plan = TrainingConfig(num_train_epochs=1, per_device_train_batch_size=32, mixed_precision=precision)
        assert fit(model, task_loss(model), words, plan).steps == 3
        assert model.dtype == torch.float32


def test_scaled_losses_train_as_plain_ones(make_model, words, tmp_path, monkeypatch):
    """Loss scaling, which Accelerate does on a GPU alone, done on the CPU; also interrupted and resumed."""
    from accelerate import Accelerator

    class Scaling(Accelerator):
        def __init__(self, **options):
            super().__init__(**options)
            if options["mixed_precision"] == "fp16":
                self.scaler, self.native_amp = torch.amp.GradScaler("cpu", init_scale=1024.0), True

    monkeypatch.setattr("limbeck.train.loop.Accelerator", Scaling)
    plan = TrainingConfig(
        num_train_epochs=1,
        learning_rate=1e-3,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        save_seconds=0,
    )
    stopped = []

    def stop(progress):
        if progress.step == 4 and not stopped:
            stopped.append(progress)
            raise Interrupted

    def trained(name, precision):
        model = make_model(dropout=0.0, attention_dropout=0.0, classifier_dropout=0.0)
        chosen = replace(plan, mixed_precision=precision)
        if name == "resumed":
            with pytest.raises(Interrupted):
                fit(model, task_loss(model), words, chosen, scratch=tmp_path / name, after_step=stop)
        fit(model, task_loss(model), words, chosen, scratch=tmp_path / name)
        return weights(model)

    start = weights(make_model(dropout=0.0, attention_dropout=0.0, classifier_dropout=0.0))
    plain, half, resumed = trained("plain", "no"), trained("half", "fp16"), trained("resumed", "fp16")
    assert same(half, resumed)
    assert not same(half, plain)

    def distance(a, b):
        return sum(float((a[name] - b[name]).square().sum()) for name in a)

    assert distance(half, plain) < 0.05 * distance(plain, start)


def test_evaluations_are_evenly_spaced_and_the_last_one_ends_the_training(make_model, words):
    plan = replace(PLAN, num_train_epochs=2, evaluations_per_epoch=5)
    report = fit(make_model(), task_loss(make_model()), words, plan, evaluate=lambda model: 0.0)
    assert [entry["step"] for entry in report.history] == [2, 5, 7, 10, 12, 14, 17, 19, 22, 24]


def test_steps_whose_gradients_overflow_change_nothing(make_model, words, monkeypatch):
    """Not the learning rate either, of which torch would warn where the first step is one."""
    from accelerate import Accelerator

    class Scaling(Accelerator):
        def __init__(self, **options):
            super().__init__(**options)
            self.scaler, self.native_amp = torch.amp.GradScaler("cpu", init_scale=2.0**30), True

    monkeypatch.setattr("limbeck.train.loop.Accelerator", Scaling)
    model, changes = make_model(), []

    def after(progress):
        changes.append(not same(weights(model), before[-1]))
        before.append(weights(model))

    before = [weights(model)]
    plan = replace(PLAN, mixed_precision="fp16", num_train_epochs=2, evaluations_per_epoch=0)
    report = fit(model, task_loss(model), words, plan, after_step=after)
    skipped = changes.index(True)
    assert report.steps == len(changes) == 24
    assert 0 < skipped < 20
    assert changes[skipped:].count(False) <= 2  # a larger gradient overflows once more
    assert all(tensor.isfinite().all() for tensor in before[-1].values())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_resumed_equals_uninterrupted_on_a_gpu(make_model, words, tmp_path, precision):
    """Within a hundredth of what the training changes: atomic sums of a GPU come in any order."""
    plan = replace(PLAN, save_seconds=0, mixed_precision=precision, num_train_epochs=2)

    def stop(progress):
        if progress.step == 9:
            raise Interrupted

    start, whole = weights(make_model()), make_model()
    fit(whole, task_loss(whole), words, plan)
    broken, resumed = make_model(), make_model(seed=99)
    with pytest.raises(Interrupted):
        fit(broken, task_loss(broken), words, plan, scratch=tmp_path, after_step=stop)
    report = fit(resumed, task_loss(resumed), words, plan, scratch=tmp_path)
    assert report.mixed_precision == precision
    assert next(resumed.parameters()).device.type == "cuda"
    expected, resumed_weights = weights(whole.cpu()), weights(resumed.cpu())

    def distance(a, b):
        return sum(float((a[name] - b[name]).square().sum()) for name in a) ** 0.5

    assert distance(resumed_weights, expected) < 0.01 * distance(expected, start)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_on_a_gpu_learn_as_float32_does(make_model, words, precision):
    plan, start = replace(PLAN, num_train_epochs=2), weights(make_model())
    trained = {}
    for name in ("no", precision):
        model = make_model()
        fit(model, task_loss(model), words, replace(plan, mixed_precision=name))
        trained[name] = weights(model.cpu())

    def distance(a, b):
        return sum(float((a[name] - b[name]).square().sum()) for name in a) ** 0.5

    assert 0 < distance(trained["no"], trained[precision]) < 0.3 * distance(trained["no"], start)


@pytest.mark.gpu
def test_distillation_on_a_gpu_moves_the_teacher(make_model, words):
    from limbeck.train.distillation_losses import HiddenLoss
    from limbeck.train.objectives import LiveTeacher

    student, teacher = make_model(), make_model(seed=1)
    terms = {"hidden": (1.0, HiddenLoss("mse", "uniform", (2, 2), (32, 32)))}
    report = fit(student, Weighted(terms, LiveTeacher(teacher)), words, TrainingConfig(num_train_epochs=1))
    assert report.steps == 3


class Beside:
    """The task's loss for the model; a companion that learns from the model's answers after each of its steps."""

    def __init__(self, model, partner):
        self.loss, self.seen = task_loss(model), []
        self.co_trained = [
            CoTrainedModule(partner, TrainingConfig(learning_rate=1e-2, weight_decay=0.0, lr_scheduler_type="cosine"))
        ]

    def __call__(self, model, batch, progress):
        self.batch, self.before = batch, model.classifier.weight.detach().clone()
        yield from self.loss(model, batch, progress)

    def auxiliary_losses(self, model, taken):
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
        rate = taken.optimizer.param_groups[0]["lr"]
        moved = float((model.classifier.weight.detach() - self.before).abs().max())
        self.seen.append((taken.progress.step, taken.clipping, float(norm), rate, moved))
        ((partner, _, _),) = self.co_trained
        answers = partner.run(self.batch)[0]
        noise = torch.rand(())  # random numbers that a resumed run must draw again
        yield Loss((answers - model.run(self.batch)[0].detach() * noise).square().mean(), {"beside": noise})


def test_a_co_trained_module_steps_after_every_step_of_the_model(make_model, words):
    model, other = make_model(), make_model(seed=5)
    before = weights(other)
    objective = Beside(model, other)
    plan = TrainingConfig(
        num_train_epochs=1, per_device_train_batch_size=8, max_grad_norm=0.3, learning_rate=1e-3, warmup_ratio=0.5
    )
    logged = []
    report = fit(model, objective, words, plan, log=lambda message, **numbers: logged.append(numbers))
    assert [step for step, *_ in objective.seen] == list(range(report.steps))
    for _, clipping, norm, rate, moved in objective.seen:
        assert norm <= 0.3 * 1.001  # the gradients of the step just taken, clipped
        assert (clipping < 1) == (norm > 0.299)
        assert 0 <= moved <= 2 * rate  # and its learning rate
    assert any(clipping < 1 for _, clipping, *_ in objective.seen)
    assert all(not torch.equal(before[name], tensor) for name, tensor in weights(other).items() if "classifier" in name)
    assert "beside" in logged[-1]


def test_a_co_trained_module_may_skip_steps(make_model, words):
    model, other = make_model(), make_model(seed=5)
    objective = Beside(model, other)
    objective.co_trained = [objective.co_trained[0]._replace(every=3)]
    fit(model, objective, words, TrainingConfig(num_train_epochs=2, per_device_train_batch_size=8))
    seen = [step for step, *_ in objective.seen]
    assert seen == list(range(2, seen[-1] + 1, 3))


def test_co_trained_modules_are_resumed_with_the_rest(make_model, words, tmp_path):
    plan = TrainingConfig(num_train_epochs=2, per_device_train_batch_size=8, save_seconds=0)
    whole = make_model(), make_model(seed=5)
    fit(whole[0], Beside(*whole), words, plan)

    def stop(progress):
        if progress.step == 9:
            raise Interrupted

    broken = make_model(), make_model(seed=5)
    with pytest.raises(Interrupted):
        fit(broken[0], Beside(*broken), words, plan, scratch=tmp_path, after_step=stop)
    resumed = make_model(seed=98), make_model(seed=99)
    fit(resumed[0], Beside(*resumed), words, plan, scratch=tmp_path)
    for a, b in zip(resumed, whole, strict=True):
        assert same(weights(a), weights(b))


def test_few_texts_are_passed_until_the_fewest_steps_are_done(make_model, words):
    model = make_model()
    few = replace(words, input_ids=words.input_ids[:16], labels=words.labels[:16])
    plan = replace(PLAN, num_train_epochs=1, min_steps=20)
    report = fit(model, task_loss(model), few, plan, evaluate=accuracy(few))
    assert report.steps == 20
    assert [entry["step"] for entry in report.history] == [20]  # as many evaluations as one epoch would have had
    enough = make_model()
    assert fit(enough, task_loss(enough), words, replace(PLAN, min_steps=20)).steps == 36  # three epochs are more


def test_training_stops_early_and_keeps_the_best(make_model, words):
    model, scores = make_model(), iter([0.5, 0.7, 0.6, 0.7, 0.6, 0.9])
    plan = replace(PLAN, num_train_epochs=6, early_stopping_patience=2)
    report = fit(model, task_loss(model), words, plan, evaluate=lambda model: next(scores))
    assert [entry["score"] for entry in report.history] == [0.5, 0.7, 0.6, 0.7]
    assert (report.best_score, report.best_step, report.steps) == (0.7, 24, 48)


def test_a_training_that_stops_early_is_resumed_to_the_same_weights(make_model, words, tmp_path):
    plan = replace(PLAN, num_train_epochs=6, early_stopping_patience=1, save_seconds=0)

    def falling(model):
        falling.calls += 1
        return {1: 0.5, 2: 0.8}.get(falling.calls, 0.1)

    falling.calls = 0
    whole = make_model()
    expected = fit(whole, task_loss(whole), words, plan, evaluate=falling)
    assert expected.steps == 36

    def stop(progress):
        if progress.step == 30:
            raise Interrupted

    falling.calls = 0
    broken = make_model()
    with pytest.raises(Interrupted):
        fit(broken, task_loss(broken), words, plan, evaluate=falling, scratch=tmp_path, after_step=stop)
    resumed = make_model(seed=9)
    report = fit(resumed, task_loss(resumed), words, plan, evaluate=falling, scratch=tmp_path)
    assert (report.steps, report.best_step) == (36, 24)
    assert same(weights(resumed), weights(whole))


def test_a_training_that_stopped_early_stays_stopped_when_it_is_resumed(make_model, words, tmp_path):
    """Killed after the checkpoint of the step at which it stopped: no further step, and the same weights."""
    plan = replace(PLAN, early_stopping_patience=1, save_seconds=0)

    def falling():
        scores = iter((0.9, 0.8, 0.7, 0.6))
        return lambda model: next(scores)

    first = make_model()
    stopped = fit(first, task_loss(first), words, plan, evaluate=falling(), scratch=tmp_path)
    assert stopped.steps < 36
    steps = []
    again = make_model(seed=99)
    report = fit(
        again, task_loss(again), words, plan, evaluate=falling(), scratch=tmp_path, after_step=lambda p: steps.append(p)
    )
    assert (steps, report.steps, report.history) == ([], stopped.steps, stopped.history)
    assert same(weights(first), weights(again))
