"""The only training loop, on Accelerate: for any objective, with evaluations, resumable bit for bit."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, set_seed
from pydantic import TypeAdapter
from torch import nn
from torch.utils.data import DataLoader

from limbeck.core.cost import Memo, measure_now
from limbeck.data.batching import Encoded, collate
from limbeck.distributed import context as processes
from limbeck.distributed import gradients
from limbeck.errors import InputError
from limbeck.storage.drafts import temporary_folder
from limbeck.train import checkpoint, precision
from limbeck.train.checkpoint import Log
from limbeck.train.config import TrainingConfig
from limbeck.train.epoch_sampler import EpochSampler
from limbeck.train.objectives import CoTrainedModule, CoTraining, Objective, Progress, StepTaken, extra_modules
from limbeck.train.schedules import schedule_of

if TYPE_CHECKING:
    from accelerate.optimizer import AcceleratedOptimizer
    from accelerate.scheduler import AcceleratedScheduler
    from torch.optim.lr_scheduler import LambdaLR

    from limbeck.model.encoder import LimbeckForSequenceClassification

Evaluate = Callable[["LimbeckForSequenceClassification"], float]
"""Scores a model, higher is better."""
BEST = "best.safetensors"


@dataclass
class FitReport:
    """Summary of a training: optimizer steps, time, speed, the evaluations, the best of them, and the arithmetic."""

    steps: int = 0
    seconds: float = 0.0
    examples_per_second: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_score: float | None = None
    best_step: int | None = None
    mixed_precision: str = "no"

    @property
    def pace(self) -> str:
        """Steps, time and arithmetic as text."""
        return f"{self.steps} steps in {self.seconds:.0f} s ({precision.NAMES[self.mixed_precision]})"


class _CoTrainer(NamedTuple):
    """What the loop needs to train a co-trained module."""

    optimizer: AcceleratedOptimizer
    scheduler: AcceleratedScheduler
    max_grad_norm: float
    every: int


def parameter_groups(modules: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into matrices, with weight decay, and biases and norms (vectors), without."""
    trained = [p for p in modules.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _optimizer(modules: nn.Module, config: TrainingConfig, total: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    fused = all(p.dtype == torch.float32 for p in modules.parameters())
    groups = parameter_groups(modules, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, eps=config.adam_epsilon, fused=fused)
    rate = schedule_of(config, total)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step / total))


def fit(
    model: LimbeckForSequenceClassification,
    objective: Objective,
    encoded: Encoded,
    config: TrainingConfig,
    *,
    seed: int = 0,
    evaluate: Evaluate | None = None,
    scratch: Path | None = None,
    log: Log = lambda message, **numbers: None,
    before_training: Callable[[], None] | None = None,
    after_step: Callable[[Progress], None] = lambda progress: None,
    memo: Memo = measure_now,
) -> FitReport:
    """Train a model in place; leave in it the weights with the best score, or the last ones without ``evaluate``.

    Where several processes run, all must call this with the same arguments. The batch size is multiplied by their
    number, each process takes its shard of every batch, and only process 0 evaluates and writes (see
    ``distributed/gradients.py``).

    Args:
        model: The model to train.
        objective: Yields the losses of a batch.
        encoded: The tokenized training texts.
        config: Hyper-parameters.
        seed: Determines the batches and dropout.
        evaluate: Scores the model several times an epoch.
        scratch: Folder for checkpoints, one every ``config.save_seconds``. Calling again with the same arguments
            continues from the newest one and ends with the same weights as an uninterrupted run. Those that cannot be
            read are reported and ignored.
        log: Called with a message, and with numbers by name.
        before_training: Called once the model is on its device, unless a checkpoint is continued; the weights that it
            leaves are scored, too.
        after_step: Called after every optimizer step, and after ``before_training``.
        memo: Keeps the times that ``mixed_precision: auto`` measures.

    Returns:
        A summary of the training.

    Raises:
        FloatingPointError: The loss is not finite.
        InputError: The machine cannot train as configured.
    """
    if processes.count() > 1:
        processes.join()
    with processes.synchronized(), nullcontext(scratch) if scratch else temporary_folder() as work:
        folder = Path(work)
        folder.mkdir(parents=True, exist_ok=True)
        resumable = scratch is not None
        chosen = precision.resolved(model, objective, encoded, config, seed, folder if resumable else None, log, memo)
        config = replace(config, mixed_precision=chosen)
        loop = _Loop(model, objective, encoded, config, seed, evaluate, folder, log, after_step, resumable)
        return loop.run(before_training)


class _Loop:
    """One run of the loop; lives as long as the call to :func:`fit`."""

    def __init__(
        self,
        model: LimbeckForSequenceClassification,
        objective: Objective,
        encoded: Encoded,
        config: TrainingConfig,
        seed: int,
        evaluate: Evaluate | None,
        folder: Path,
        log: Log,
        after_step: Callable[[Progress], None],
        resumable: bool,
    ) -> None:
        self.objective, self.config, self.evaluate = objective, config, evaluate
        self.folder, self.log, self.after_step, self.resumable = folder, log, after_step, resumable
        set_seed(seed + processes.rank())  # each process has its own dropout
        AcceleratorState._reset_state()  # or this process's first training would fix the precision of all later ones
        self.accelerator = Accelerator(
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            mixed_precision=config.mixed_precision,
            step_scheduler_with_optimizer=False,
            dataloader_config=DataLoaderConfiguration(use_seedable_sampler=False),
            rng_types=[],
        )
        if config.mixed_precision == "fp16" and self.accelerator.scaler is None:  # Accelerate would ignore it silently
            raise InputError(
                "mixed_precision: fp16 needs a GPU, which scales the loss; use auto or bf16 on this machine"
            )
        checkpoint.attach(self.accelerator)
        self.sampler = EpochSampler(encoded, config.per_device_train_batch_size * processes.count(), seed)

        def collate_shard(indices: list[int]) -> tuple[dict[str, torch.Tensor], float, int]:
            rows, weight = gradients.shard(indices)
            return collate(encoded, rows), weight, len(indices)

        loader: DataLoader[Any] = DataLoader(
            range(len(encoded)),  # type: ignore[arg-type]
            batch_sampler=self.sampler,
            collate_fn=collate_shard,
            generator=torch.Generator(),  # not the generator that dropout uses
        )
        self.extra = extra_modules(objective)
        trained = nn.ModuleDict({"model": model, "extra": self.extra})
        self.total = config.total_steps(len(loader))
        optimizer, scheduler = _optimizer(trained, config, self.total)
        # Not wrapped in DistributedDataParallel, which only sees ``forward``; objectives call other methods.
        self.model, self.extra = (self.accelerator.prepare_model(m, evaluation_mode=True) for m in (model, self.extra))
        self.optimizer, self.scheduler = self.accelerator.prepare(optimizer, scheduler)
        self.loader = prepare_data_loader(loader, self.accelerator.device, 1, 0, put_on_device=True, rng_types=[])
        gradients.broadcast_weights(trained)
        co_trained: Sequence[CoTrainedModule] = objective.co_trained if isinstance(objective, CoTraining) else ()
        self.co_trainers = [self._prepare(module) for module in co_trained]
        if self.co_trainers and processes.count() > 1:
            raise InputError("what trains a second model beside the first runs on one process; start it without others")
        self.evaluate_at = self._evaluation_steps() if evaluate else set()
        self.report = FitReport(mixed_precision=config.mixed_precision)
        self.examples = 0

    def _evaluation_steps(self) -> set[int]:
        """Return the steps after which to score, evenly spaced; epochs added by ``min_steps`` add no evaluations."""
        count = max(1, round(self.config.num_train_epochs * self.config.evaluations_per_epoch))
        return {max(1, round(self.total * number / count)) for number in range(1, count + 1)}

    def _exhausted(self) -> bool:
        """Check whether the last ``early_stopping_patience`` evaluations brought no better score."""
        patience, history = self.config.early_stopping_patience, self.report.history
        if not patience or self.report.best_step is None:
            return False
        return sum(1 for entry in history if entry["step"] > self.report.best_step) >= patience

    def _prepare(self, co_trained: CoTrainedModule) -> _CoTrainer:
        """Give a co-trained module an optimizer and a scheduler; checkpoints include them from now on."""
        module: nn.Module = self.accelerator.prepare_model(co_trained.module, evaluation_mode=True)  # not wrapped
        total = max(1, self.total // co_trained.every)
        optimizer, scheduler = self.accelerator.prepare(*_optimizer(module, co_trained.config, total))
        return _CoTrainer(optimizer, scheduler, co_trained.config.max_grad_norm, co_trained.every)

    def run(self, before_training: Callable[[], None] | None) -> FitReport:
        folder, log = self.folder, self.log
        counters = checkpoint.load(self.accelerator, folder, log, self._check_counters) if self.resumable else None
        if counters is not None:
            self.report = FitReport(**{**counters, "mixed_precision": self.config.mixed_precision})
            self.log(f"resumed at step {self.report.steps} of {self.total}")
        elif before_training is not None:
            before_training()
            self.after_step(Progress(0, self.total))
            if self.evaluate is not None:
                self._evaluate()
        started, before = time.monotonic(), self.report.seconds
        saved = before
        self.model.train()
        for batch, weight, rows in self._batches():
            terms = self._step(batch, weight)
            self.examples += rows
            if not self.accelerator.sync_gradients:
                continue
            self.report.steps += 1
            self.report.seconds, terms = gradients.reduce_terms(before + time.monotonic() - started, terms, weight)
            progress = Progress(self.report.steps, self.total)
            self.after_step(progress)
            self._log(progress, terms)
            if self.report.steps in self.evaluate_at:
                self._evaluate()
            if self.resumable and self.report.seconds - saved >= self.config.save_seconds:
                checkpoint.save(self.accelerator, self.folder, vars(self.report), self.config.save_total_limit)
                saved = self.report.seconds
            if self.report.steps >= self.total:
                break
            if self._exhausted():
                self.log(
                    f"stopped at step {self.report.steps} of {self.total}: {self.config.early_stopping_patience} "
                    f"evaluations without a better score than that of step {self.report.best_step}"
                )
                break
        self._finish(time.monotonic() - started)
        return self.report

    def _check_counters(self, counters: dict[str, Any]) -> None:
        """Refuse counters of another form, and those whose best weights are lost."""
        report = TypeAdapter(FitReport).validate_json(json.dumps(counters), strict=True)
        if report.best_step is not None:
            checkpoint.load_weights(self.folder / BEST, report.best_step)

    def _batches(self) -> Iterator[tuple[dict[str, torch.Tensor], float, int]]:
        """Yield this process's shard of every batch, its weight, and the number of rows of the whole batch.

        Runs through all epochs, starting after the steps in the report by skipping whole accumulation windows. Yields
        nothing if a resumed training had already stopped early.
        """
        while self.report.steps < self.total and not self._exhausted():
            skipped = self.sampler.seek(self.report.steps, self.config.gradient_accumulation_steps)
            yield from self.accelerator.skip_first_batches(self.loader, skipped) if skipped else self.loader

    def _step(self, batch: dict[str, torch.Tensor], weight: float) -> dict[str, torch.Tensor]:
        """Back-propagate the losses of a batch and, at the end of an accumulation window, update the weights."""
        terms: dict[str, torch.Tensor] = {}
        with self.accelerator.accumulate(self.model, self.extra):
            losses = iter(self.objective(self.model, batch, Progress(self.report.steps, self.total)))
            while True:
                with self.accelerator.autocast():  # only for the forward pass; backward uses its own types
                    loss = next(losses, None)
                if loss is None:
                    break
                self.accelerator.backward(loss.total * weight)
                terms |= loss.terms
                terms["loss"] = loss.total.detach()
            if self.accelerator.sync_gradients:
                trained = [p for group in self.optimizer.param_groups for p in group["params"]]
                gradients.sum_gradients(trained)
                norm = self.accelerator.clip_grad_norm_(trained, self.config.max_grad_norm)
            self.optimizer.step()
            # gradients in float16 may overflow until the loss is scaled less: such a step changes nothing
            if self.accelerator.sync_gradients and not self.accelerator.optimizer_step_was_skipped:
                terms |= self._step_co_trained(float(norm)) if self.co_trainers else {}
                self.scheduler.step()
            self.optimizer.zero_grad()
        return terms

    def _step_co_trained(self, norm: float) -> dict[str, torch.Tensor]:
        """Train the co-trained modules that are due after a step with this gradient norm, each on its own loss."""
        terms: dict[str, torch.Tensor] = {}
        due = [trainer for trainer in self.co_trainers if (self.report.steps + 1) % trainer.every == 0]
        if not due:
            return terms
        assert isinstance(self.objective, CoTraining)
        clipping = min(1.0, self.config.max_grad_norm / (norm + 1e-6))  # as clip_grad_norm_ computes it
        taken = StepTaken(self.optimizer, clipping, Progress(self.report.steps, self.total))
        losses = iter(self.objective.auxiliary_losses(self.accelerator.unwrap_model(self.model), taken))
        for optimizer, scheduler, max_norm, _ in due:
            with self.accelerator.autocast():
                loss = next(losses)
            self.accelerator.backward(loss.total)
            self.accelerator.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_norm)
            optimizer.step()
            if not optimizer.step_was_skipped:
                scheduler.step()
            optimizer.zero_grad()
            terms |= loss.terms
        return terms

    def _log(self, progress: Progress, terms: dict[str, torch.Tensor]) -> None:
        loss = float(terms["loss"])
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {progress.step}; lower learning_rate (now {self.config.learning_rate:g})"
            )
        if progress.step % 10 == 0 or progress.step == progress.total:
            numbers = {name: float(term) for name, term in terms.items()}
            self.log("", step=progress.step, total=progress.total, seconds=self.report.seconds, **numbers)

    def _evaluate(self) -> None:
        """Score the model, and save its weights if they are the best so far."""
        evaluate, model = self.evaluate, self.accelerator.unwrap_model(self.model)
        assert evaluate is not None
        score = processes.broadcast_from_main(lambda: float(evaluate(model.eval())))
        model.train()
        step = self.report.steps
        self.report.history.append({"step": step, "score": score})
        self.log(f"step {step} of {self.total}: score {score:.4f}", step=step, total=self.total, score=score)
        # one number decides: weights of one training cost the same, so there is nothing simpler to fall back on than
        # the likelier better ones; of equal ones the earlier
        if self.report.best_score is None or score > self.report.best_score:
            self.report.best_score, self.report.best_step = score, step
            processes.broadcast_from_main(lambda: self._save_best(model))

    def _save_best(self, model: nn.Module) -> None:
        checkpoint.save_weights(self.folder / BEST, model.state_dict(), self.report.steps)

    def _finish(self, seconds: float) -> None:
        """Restore the best weights and complete the report."""
        model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        if self.report.best_step not in (None, self.report.steps):
            processes.broadcast_from_main(lambda: self._load_best(model))
            gradients.broadcast_weights(model)
        model.eval()
        self.report.examples_per_second = self.examples / max(seconds, 1e-9)
        self.accelerator.free_memory()

    def _load_best(self, model: nn.Module) -> None:
        assert self.report.best_step is not None
        model.load_state_dict(checkpoint.load_weights(self.folder / BEST, self.report.best_step))
