"""Two processes train as one with the same whole batch. The runs are real: this file is also their program."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from random_models import build_model
from safetensors.torch import load_file, save_file

from limbeck.core.shape import Shape
from limbeck.data.batching import Encoded, predict
from limbeck.distributed import context as processes
from limbeck.distributed import gradients
from limbeck.train.config import TrainingConfig
from limbeck.train.distillation_losses import HiddenLoss
from limbeck.train.loop import fit
from limbeck.train.objectives import LiveTeacher, Weighted
from limbeck.train.task_loss import TaskLoss

SUPPORT = str(Path(__file__).parent.parent / "support")
ROWS = 97  # in batches of 16 a single row is left over, fewer than there are processes
EPOCHS = 3
STEPS = 21


def build(**more):
    return build_model(**more, dropout=0.0, attention_dropout=0.0, classifier_dropout=0.0)


def words():
    rng = random.Random(0)
    rows = [[2, *(rng.randint(5, 20) for _ in range(rng.randint(4, 12))), 3] for _ in range(ROWS)]
    return Encoded(rows, None, [int(7 in row or 9 in row) for row in rows], 0, "classification")


def task_loss(model):
    return Weighted({"task": (1.0, TaskLoss(model.loss))})


def distillation(model):
    """Losses with parameters of their own; the classifier plays no part in them."""
    teacher = build(shape=Shape.uniform(layers=2, hidden=48, heads=4, ffn=64), seed=1)
    torch.manual_seed(3)
    return Weighted({"hidden": (1.0, HiddenLoss("mse", "uniform", (2, 2), (32, 48)))}, LiveTeacher(teacher.eval()))


class Watched:
    """An objective that notes the rows it sees and may fail at a step."""

    def __init__(self, inner, fail_at=None):
        self.inner, self.fail_at, self.seen = inner, fail_at, []
        self.modules = inner.modules

    def __call__(self, model, batch, progress):
        self.seen.append([progress.step, batch["index"].tolist()])
        if progress.step == self.fail_at:
            raise MemoryError("too large")
        yield from self.inner(model, batch, progress)


class Interrupted(Exception):
    pass


def train(objective=task_loss, *, batch, accumulation=1, scratch=None, fail_at=None, stop_at=None, score=None):
    """One training; the curve of each term, what was seen, the report, and the model."""
    model, logged = build(), []
    watched = Watched(objective(model), fail_at)
    plan = TrainingConfig(
        num_train_epochs=EPOCHS,
        learning_rate=1e-3,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        evaluations_per_epoch=1,
        save_seconds=0,
    )

    def log(message, **numbers):
        if not message:
            logged.append({name: value for name, value in numbers.items() if name != "seconds"})

    def stop(progress):
        if progress.step == stop_at:
            raise Interrupted

    def accuracy(trained):
        return float((predict(trained, words()).argmax(-1) == words().labels).mean())

    report = fit(model, watched, words(), plan, evaluate=score or accuracy, scratch=scratch, log=log, after_step=stop)
    extra = {f"extra.{name}": tensor for name, tensor in watched.modules.state_dict().items()}
    results = {"curve": logged, "seen": watched.seen, "history": report.history, "best": report.best_step}
    return results, dict(model.state_dict()) | extra


def failure(**options):
    """How a training ends that cannot go on."""
    try:
        train(batch=8, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def broken(model):
    if processes.rank() == 0:
        raise RuntimeError("no score")
    return 0.0


def falling():
    scores = iter(range(100, 0, -1))
    return lambda model: float(next(scores))


def main(folder: Path) -> None:
    """One of the two processes: everything that the tests below look at."""
    torch.set_num_threads(1)
    trainings = {
        "plain": train(batch=8),
        "accumulated": train(batch=4, accumulation=2),
        "distilled": train(distillation, batch=8),
        "falling": train(batch=8, score=falling()),
    }
    failures = {
        "one process": failure(fail_at=4 if processes.rank() == 1 else None),
        "both": failure(fail_at=4),
        "evaluation": failure(score=broken),
        "afterwards": failure(),
    }
    stopped = failure(scratch=folder / "work", stop_at=9)
    other = failure(scratch=folder / "elsewhere", stop_at=2)
    trainings["resumed"] = train(batch=8, scratch=folder / "work")
    for name, (_, weights) in trainings.items():
        save_file(
            {key: t.contiguous() for key, t in weights.items()}, folder / f"{name}-{processes.rank()}.safetensors"
        )
    results = {name: summary for name, (summary, _) in trainings.items()} | {
        "failures": failures,
        "stopped": [stopped, other],
    }
    (folder / f"found-{processes.rank()}.json").write_text(json.dumps(results))
    processes.leave()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes found, and the folder of their weights."""
    folder = tmp_path_factory.mktemp("two")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    paths = filter(None, (SUPPORT, os.environ.get("PYTHONPATH")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    program = [sys.executable, __file__, str(folder)]
    done = subprocess.run([*launch, *program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = [json.loads((folder / f"found-{rank}.json").read_text()) for rank in (0, 1)]
    return results, folder


def close(results, expected, tolerance=1e-4):
    """Equal but for rounding. Softmax ignores the biases of keys: their gradients are noise that Adam magnifies."""
    assert results.keys() == expected.keys()
    for name in expected.keys() - {name for name in expected if name.endswith("key.bias")}:
        torch.testing.assert_close(results[name], expected[name], rtol=1e-3, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "objective", "batch", "accumulation", "tolerance"),
    [
        ("plain", task_loss, 16, 1, 1e-4),
        ("accumulated", task_loss, 8, 2, 1e-4),
        ("distilled", distillation, 16, 1, 1e-3),  # a mean over tokens, where shares are weighted by rows
    ],
)
def test_two_processes_train_as_one_with_the_whole_batch(two, name, objective, batch, accumulation, tolerance):
    results, folder = two
    expected, weights = train(objective, batch=batch, accumulation=accumulation)
    curve = results[0][name]["curve"]
    assert [row["step"] for row in curve] == [10, 20, STEPS]
    for row, reference in zip(curve, expected["curve"], strict=True):
        assert row == pytest.approx(reference, rel=1e-4, abs=1e-6)
    assert results[0][name]["history"] == results[1][name]["history"] == expected["history"]
    both = [load_file(folder / f"{name}-{rank}.safetensors") for rank in (0, 1)]
    assert all(torch.equal(both[0][key], both[1][key]) for key in weights)
    close(both[0], weights, tolerance)


@pytest.mark.slow
def test_each_example_is_seen_once_an_epoch(two):
    results, _ = two
    shares = [results[rank]["plain"]["seen"] for rank in (0, 1)]
    for epoch in range(EPOCHS):
        seen = []
        for (step, first), (other, second) in zip(*shares, strict=True):
            assert step == other
            if step // (STEPS // EPOCHS) == epoch:
                seen += first if first == second else [*first, *second]  # a row too few is repeated with weight 0
        assert sorted(seen) == list(range(ROWS))


@pytest.mark.slow
def test_the_best_weights_of_process_0_are_left_in_all(two):
    results, folder = two
    _, weights = train(batch=16, score=falling())
    assert [result["falling"]["best"] for result in results] == [7, 7]
    for rank in (0, 1):
        close(load_file(folder / f"falling-{rank}.safetensors"), weights)


@pytest.mark.slow
def test_resumed_equals_uninterrupted(two):
    results, folder = two
    assert results[0]["stopped"] == results[1]["stopped"] == ["Interrupted: ", "Interrupted: "]
    for rank in (0, 1):
        assert len(results[rank]["resumed"]["seen"]) == STEPS - 8  # the checkpoint is of the step before the last
        assert results[rank]["resumed"]["history"] == results[rank]["plain"]["history"]
        again, whole = (load_file(folder / f"{name}-{rank}.safetensors") for name in ("resumed", "plain"))
        assert all(torch.equal(again[name], whole[name]) for name in whole)


@pytest.mark.slow
def test_a_checkpoint_of_more_processes_is_not_gone_on_from(two):
    _, folder = two
    results, _ = train(batch=16, scratch=folder / "elsewhere")
    assert len(results["seen"]) == STEPS


@pytest.mark.slow
def test_a_failure_of_one_process_is_one_of_all(two):
    (first, second), _ = two
    assert second["failures"]["one process"] == "MemoryError: too large"
    assert "process 1 of 2 (pid " in first["failures"]["one process"]
    assert first["failures"]["one process"].endswith("): MemoryError: too large")
    assert first["failures"]["both"] == second["failures"]["both"] == "MemoryError: too large"
    assert first["failures"]["evaluation"] == "RuntimeError: no score"
    assert second["failures"]["evaluation"].endswith("): RuntimeError: no score")
    assert first["failures"]["afterwards"] == second["failures"]["afterwards"] == "none"


def test_shares_of_a_batch(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank, expected in enumerate([([4, 7], 0.4), ([5, 8], 0.4), ([6], 0.2)]):
        monkeypatch.setenv("RANK", str(rank))
        assert gradients.shard([4, 5, 6, 7, 8]) == expected
    assert gradients.shard([4, 5]) == ([4], 0.0)


def test_alone_nothing_changes():
    model = build()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients.broadcast_weights(model)
    gradients.sum_gradients(list(model.parameters()))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert gradients.shard([3, 1, 2]) == ([3, 1, 2], 1.0)
    assert gradients.reduce_terms(2.5, {"loss": torch.tensor(1.0)}, 1.0) == (2.5, {"loss": torch.tensor(1.0)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
