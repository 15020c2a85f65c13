"""Choose the arithmetic of a training by timing it: what ``mixed_precision: auto`` does before the first step.

bfloat16 halves or doubles the time of a step, as the processor has it. So passes of the actual model on a batch of the
actual size are timed in float32 and in the half precision of the device, in turn. The times are facts of the machine,
the shape and the batch, and are measured once. The half precision is used where it is faster and, with the weights
that are about to be trained, gives the same loss.

The trial leaves no trace: it takes no optimizer step, and gradients, modes and random states are put back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import nn

from limbeck.core.cost import Memo
from limbeck.core.measurement import machine
from limbeck.core.shape import short_key
from limbeck.data.batching import Encoded, collate, length_batches
from limbeck.distributed import context as processes
from limbeck.distributed import gradients
from limbeck.train import checkpoint
from limbeck.train.config import PASSES, TrainingConfig
from limbeck.train.mlm import OnMasked
from limbeck.train.objectives import Batch, LiveTeacher, Objective, Progress, Weighted, extra_modules
from limbeck.train.supernet_loss import SandwichLoss

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.train.checkpoint import Log

Precision = Literal["no", "bf16", "fp16"]
NAMES: Mapping[str, str] = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}
VERSION = 2  #: part of the key of stored times; bump it when they come out otherwise
FEWEST_BATCHES = 100
"""Trainings of fewer batches, or of less arithmetic, are over before a trial, of ten passes or so, pays; they use
float32."""
LEAST_OPERATIONS = 1e12
SECONDS = 2.0  #: a trial ends after that, once each precision was timed often enough
ROUNDS = (3, 9)  #: fewest and most timed passes in each precision
GAIN = 0.97  #: the half precision has to take less than that share of float32's time
TOLERANCE = 0.05
"""Largest difference of the losses in the two precisions, relative to that in float32."""
HOPELESS = 4.0
"""A half precision whose first pass takes that many times float32's, and ``SECONDS`` longer, is not tried again: no
preparation of a first pass takes so long, but processors that only emulate bfloat16 do."""


class Trial(NamedTuple):
    """One batch of a training, in a precision that can be chosen."""

    model: LimbeckForSequenceClassification
    objective: Objective
    batch: Batch
    total: int

    def loss(self, precision: str, *, backward: bool = False) -> float:
        """Compute the loss of the batch, and back-propagate it if asked to."""
        device, total = self.batch["input_ids"].device, 0.0
        losses = iter(self.objective(self.model, self.batch, Progress(0, self.total)))
        while True:
            with autocast(device, precision):
                loss = next(losses, None)
            if loss is None:
                break
            if backward:
                loss.total.backward()  # type: ignore[no-untyped-call]
            total += float(loss.total.detach())
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return total

    def train(self, mode: bool) -> None:
        """Turn dropout on or off."""
        for module in (self.model, extra_modules(self.objective)):
            module.train(mode)

    def step(self, precision: str) -> None:
        """Do what a training step does but for the optimizer's part, which is in float32 anyway."""
        self.train(True)
        self.loss(precision, backward=True)
        for module in (self.model, extra_modules(self.objective)):
            module.zero_grad()

    def exact_loss(self, precision: str) -> float:
        """Compute the loss without dropout."""
        self.train(False)
        torch.manual_seed(0)  # sampled pseudo labels are the same in both precisions
        with torch.no_grad():
            return self.loss(precision)


def resolved(
    model: LimbeckForSequenceClassification,
    objective: Objective,
    encoded: Encoded,
    config: TrainingConfig,
    seed: int,
    folder: Path | None,
    log: Log,
    memo: Memo,
) -> Precision:
    """Return the precision to train in: the one that the configuration names, or the one that ``auto`` chooses.

    Where several processes train, process 0 chooses. A training that goes on from a checkpoint keeps its precision.

    Args:
        model: The model, before the first step.
        objective: Yields the losses of a batch.
        encoded: The training texts.
        config: Hyper-parameters.
        seed: Seed of the batches.
        folder: Folder of the checkpoints; None if there are none.
        log: Called with a message if there was a choice.
        memo: Keeps the times.
    """
    if config.mixed_precision != "auto":
        return config.mixed_precision

    def choose() -> Precision:
        if folder is not None and (before := checkpoint.precision(folder)) is not None:
            return before
        batch_size = config.per_device_train_batch_size * processes.count()
        batches = length_batches(encoded.lengths, batch_size, seed)
        steps = config.total_steps(len(batches))
        tokens = [len(batch) * int(encoded.lengths[batch].max()) for batch in batches]
        mean, count = float(np.mean(tokens)), steps * config.gradient_accumulation_steps
        if not is_worth_a_trial(count, count * mean * PASSES * 2 * model.shape.weights):
            return "no"
        typical = batches[int(np.abs(np.array(tokens) - mean).argmin())]
        return _choose(model, objective, collate(encoded, gradients.shard(typical)[0]), steps, log, memo)

    return processes.broadcast_from_main(choose)


def _choose(
    model: LimbeckForSequenceClassification, objective: Objective, batch: Batch, total: int, log: Log, memo: Memo
) -> Precision:
    device = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).device  # where Accelerate will train
    module: nn.Module = model.to(device)
    extra = extra_modules(objective).to(device)
    trial = Trial(model, objective, {name: value.to(device) for name, value in batch.items()}, total)
    what = {"shape": model.shape.to_json(), "style": str(model.encoder.style), "objective": _signature(objective)}
    name = trial_name(device, {**what, "batch": list(batch["input_ids"].shape), "processes": processes.count()})
    with _undisturbed((module, extra), device):
        return choose(name, half_of(device), trial.step, trial.exact_loss, memo, log)


# --- for any computation -------------------------------------------------------------------------------------------


def choose(
    name: str,
    half: Precision,
    run: Callable[[Precision], object],
    loss: Callable[[Precision], float],
    memo: Memo,
    log: Log,
) -> Precision:
    """Choose between float32 and a half precision: the faster, if the loss is the same in it.

    Args:
        name: What the times are stored under.
        half: The half precision.
        run: Computes in a precision; this is timed.
        loss: Returns the loss in a precision.
        memo: Keeps the times.
        log: Called with a message about the choice.
    """
    times = memo(name, lambda: time_both(run, half))
    full, other = np.median(times["seconds"], axis=0)
    seconds = f"a batch takes {full:.3g} s in float32, {other:.3g} s in {NAMES[half]}"
    if not is_faster(times):
        log(f"mixed_precision auto: float32; {seconds}")
        return "no"
    expected, value = loss("no"), loss(half)
    difference = abs(value - expected) / max(abs(expected), 1e-12)
    if not difference <= TOLERANCE:  # nor where it is no number
        log(f"mixed_precision auto: float32; the loss in {NAMES[half]} differs by {difference:.1%}")
        return "no"
    log(f"mixed_precision auto: {NAMES[half]}; {seconds}, and the losses differ by {difference:.2%}")
    return half


def is_worth_a_trial(batches: float, operations: float) -> bool:
    """Return whether so much work gains more by a better precision than a trial costs."""
    return batches >= FEWEST_BATCHES and operations >= LEAST_OPERATIONS


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which matrix products have this precision."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "no")


def half_of(device: torch.device) -> Precision:
    """Return the half precision of a device: float16 for GPUs that only emulate bfloat16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "fp16"
    return "bf16"


def time_both(
    run: Callable[[Precision], object], half: Precision, now: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Time a computation in float32 and in a half precision, in turn, after one run of each that does not count.

    Only where the half precision is hopelessly slow do the first runs count, and are all there are.

    Args:
        run: Computes in the precision that it is given.
        half: The half precision.
        now: Clock in seconds.

    Returns:
        ``seconds`` [rounds, 2]: in float32 and in the half precision.
    """
    pair: tuple[Precision, Precision] = ("no", half)

    def timed(precision: Precision) -> float:
        start = now()
        run(precision)
        return now() - start

    first = timed("no"), timed(half)
    if first[1] > max(HOPELESS * first[0], first[0] + SECONDS):
        return {"seconds": np.array([first])}
    seconds: list[tuple[float, float]] = []
    while len(seconds) < ROUNDS[0] or (len(seconds) < ROUNDS[1] and np.sum(seconds) < SECONDS):
        measured = {precision: timed(precision) for precision in (pair if len(seconds) % 2 else pair[::-1])}
        seconds.append((measured["no"], measured[half]))
    return {"seconds": np.array(seconds)}


def is_faster(times: Mapping[str, Any]) -> bool:
    """Return whether the half precision was clearly faster, by the median of the rounds' ratios."""
    seconds = times["seconds"]
    return bool(np.median(seconds[:, 1] / seconds[:, 0]) < GAIN)


def trial_name(device: torch.device, computation: Mapping[str, object]) -> str:
    """Return the name under which the times of a computation on this machine and device are stored."""
    parts: dict[str, object] = {"version": VERSION, "machine": machine(), "threads": torch.get_num_threads()}
    parts |= {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type}
    parts |= computation
    return f"precision-{short_key(parts)}"


def _signature(objective: Objective) -> str:
    """Return what an objective computes, as far as it decides the time of a step."""
    if isinstance(objective, OnMasked):
        return f"masked {_signature(objective.objective)}"
    parts = [type(objective).__name__]
    if isinstance(objective, (Weighted, SandwichLoss)):
        parts += objective.terms
        parts += [str(objective.teacher.model.shape)] if isinstance(objective.teacher, LiveTeacher) else []
    return " ".join(parts)


@contextmanager
def _undisturbed(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Put gradients, buffers, modes and torch's random state back after the body."""
    gradients_before = [(parameter, parameter.grad) for module in modules for parameter in module.parameters()]
    buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    modes = [(inner, inner.training) for module in modules for inner in module.modules()]
    for parameter, _ in gradients_before:
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for parameter, gradient in gradients_before:
            parameter.grad = gradient
        for buffer, before in buffers:
            buffer.copy_(before)
        for inner, mode in modes:
            inner.training = mode
