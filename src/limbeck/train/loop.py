"""The only training loop, on Accelerate: any objective, evaluated on the way, resumable to the bit."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, set_seed
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader

from limbeck.data.batching import Encoded, collate, length_batches
from limbeck.distributed import context as processes
from limbeck.distributed import gradients
from limbeck.errors import InputError
from limbeck.train import checkpoint as state
from limbeck.train.config import TrainingConfig
from limbeck.train.objectives import Objective, Progress, StepTaken
from limbeck.train.schedules import SCHEDULES

Log = Callable[..., None]


@dataclass
class FitReport:
    """What happened: optimiser steps, time, speed, the evaluations, and which one was kept."""

    steps: int = 0
    seconds: float = 0.0
    examples_per_second: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_score: float | None = None
    best_step: int | None = None


class _LengthSampler:
    """Batches of one epoch; depends on seed and epoch alone, so a resumed epoch is the same epoch."""

    def __init__(self, encoded: Encoded, batch_size: int, seed: int) -> None:
        self.encoded, self.batch_size, self.seed, self.epoch = encoded, batch_size, seed, 0
        self.drop_last = False

    def start(self, epoch: int) -> None:
        """Choose the epoch; not called ``set_epoch``, which Accelerate would call with a count of its own."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        return iter(length_batches(self.encoded.lengths, self.batch_size, self.seed, self.epoch))

    def __len__(self) -> int:
        return math.ceil(len(self.encoded) / self.batch_size)


def parameter_groups(modules: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """No weight decay on biases and LayerNorm (vectors), decay on matrices."""
    trained = [p for p in modules.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _optimiser(modules: nn.Module, plan: TrainingConfig, total: int) -> tuple[torch.optim.Optimizer, Any]:
    fused = all(p.dtype == torch.float32 for p in modules.parameters())
    groups = parameter_groups(modules, plan.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, fused=fused)
    rate = SCHEDULES[plan.lr_scheduler_type](plan.warmup_ratio)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step / total))


def fit(
    model: Any,
    objective: Objective,
    encoded: Encoded,
    plan: TrainingConfig,
    *,
    seed: int = 0,
    evaluate: Callable[[Any], float] | None = None,
    scratch: Path | None = None,
    log: Log = lambda message, **numbers: None,
    after_step: Callable[[Progress], None] = lambda progress: None,
) -> FitReport:
    """Train ``model`` in place and leave in it the weights with the best score (the last ones without ``evaluate``).

    With ``scratch`` the loop's state is kept there every ``plan.save_seconds``; calling again with the same arguments
    goes on from it and ends in the same weights as a run that was never interrupted.

    Where several processes run, all must call this with the same arguments: batches are as many times larger, each
    process takes its share of every batch, and process 0 alone evaluates and writes (see ``distributed/gradients.py``).
    """
    if processes.count() > 1:
        processes.join()
    with processes.synchronized(), nullcontext(scratch) if scratch else tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        resumable = scratch is not None
        return _Loop(model, objective, encoded, plan, seed, evaluate, folder, log, after_step, resumable).run()


class _Loop:
    """One run of the loop; lives as long as the call to :func:`fit`."""

    def __init__(
        self,
        model: Any,
        objective: Objective,
        encoded: Encoded,
        plan: TrainingConfig,
        seed: int,
        evaluate: Callable[[Any], float] | None,
        folder: Path,
        log: Log,
        after_step: Callable[[Progress], None],
        resumable: bool,
    ) -> None:
        self.objective, self.plan, self.evaluate = objective, plan, evaluate
        self.folder, self.log, self.after_step, self.resumable = folder, log, after_step, resumable
        set_seed(seed + processes.rank())  # dropout of its own for every process
        AcceleratorState._reset_state()  # or the precision of this process's first training would bind all others
        self.accelerator = Accelerator(
            gradient_accumulation_steps=plan.gradient_accumulation_steps,
            mixed_precision=plan.mixed_precision,
            step_scheduler_with_optimizer=False,
            dataloader_config=DataLoaderConfiguration(use_seedable_sampler=False),
            rng_types=[],
        )
        if plan.mixed_precision == "fp16" and self.accelerator.scaler is None:  # Accelerate would ignore it silently
            raise InputError("mixed_precision: fp16 needs a GPU, which scales the loss; use bf16 or no on this machine")
        state.attach(self.accelerator)
        self.sampler = _LengthSampler(encoded, plan.per_device_train_batch_size * processes.count(), seed)

        def collate_mine(indices: list[int]) -> tuple[dict[str, torch.Tensor], float, int]:
            mine, weight = gradients.shard(indices)
            return collate(encoded, mine), weight, len(indices)

        loader: DataLoader[Any] = DataLoader(
            range(len(encoded)),  # type: ignore[arg-type]
            batch_sampler=self.sampler,  # type: ignore[arg-type]
            collate_fn=collate_mine,
            generator=torch.Generator(),  # the loader must not draw from the generator that dropout uses
        )
        self.extra = getattr(objective, "modules", nn.ModuleDict())
        trained = nn.ModuleDict({"model": model, "extra": self.extra})
        self.steps_per_epoch = math.ceil(len(loader) / plan.gradient_accumulation_steps)
        self.total = max(1, round(self.steps_per_epoch * plan.num_train_epochs), plan.min_steps)
        optimizer, scheduler = _optimiser(trained, plan, self.total)
        # Not wrapped for several processes: that would see ``forward`` alone, and objectives call the model otherwise.
        self.model, self.extra = (self.accelerator.prepare_model(m, evaluation_mode=True) for m in (model, self.extra))
        self.optimizer, self.scheduler = self.accelerator.prepare(optimizer, scheduler)
        self.loader = prepare_data_loader(loader, self.accelerator.device, 1, 0, put_on_device=True, rng_types=[])
        gradients.broadcast_weights(trained)
        self.companions = [self._prepared(*companion) for companion in getattr(objective, "companions", ())]
        if self.companions and processes.count() > 1:
            raise InputError("what trains a second model beside the first runs on one process; start it without others")
        self.evaluate_at = self._evaluations() if evaluate else set()
        self.report = FitReport()
        self.examples = 0

    def _evaluations(self) -> set[int]:
        """Steps after which to score: several times an epoch; no more often in all where ``min_steps`` adds epochs."""
        every = max(1, self.steps_per_epoch // max(1, self.plan.evaluations_per_epoch))
        planned = round(self.steps_per_epoch * self.plan.num_train_epochs)
        if planned < self.total:
            every = max(every, self.total * every // max(1, planned))
        return {*range(every, self.total, every), self.total}

    def _exhausted(self) -> bool:
        """Whether the last ``early_stopping_patience`` evaluations brought nothing better."""
        patience, history = self.plan.early_stopping_patience, self.report.history
        if not patience or self.report.best_step is None:
            return False
        return sum(1 for entry in history if entry["step"] > self.report.best_step) >= patience

    def _prepared(self, module: nn.Module, plan: TrainingConfig, every: int) -> tuple[Any, Any, float, int]:
        """Optimiser and scheduler of a companion, which from now on is saved and loaded with the rest."""
        module = self.accelerator.prepare_model(module, evaluation_mode=True)  # moved, not wrapped
        total = max(1, self.total // every)
        return (*self.accelerator.prepare(*_optimiser(module, plan, total)), plan.max_grad_norm, every)

    def run(self) -> FitReport:
        kept = state.load(self.accelerator, self.folder, self.log) if self.resumable else None
        if kept is not None:
            self.report = FitReport(**kept)
            self.log(f"resumed at step {self.report.steps} of {self.total}")
        started, before = time.monotonic(), self.report.seconds
        saved = before
        self.model.train()
        for batch, weight, rows in self._batches():
            terms = self._learn(batch, weight)
            self.examples += rows
            if not self.accelerator.sync_gradients:
                continue
            self.report.steps += 1
            self.report.seconds, terms = gradients.reduce_terms(before + time.monotonic() - started, terms, weight)
            progress = Progress(self.report.steps, self.total)
            self.after_step(progress)
            self._tell(progress, terms)
            if self.report.steps in self.evaluate_at:
                self._judge()
            if self.resumable and self.report.seconds - saved >= self.plan.save_seconds:
                state.save(self.accelerator, self.folder, vars(self.report), self.plan.save_total_limit)
                saved = self.report.seconds
            if self.report.steps >= self.total:
                break
            if self._exhausted():
                self.log(
                    f"stopped at step {self.report.steps} of {self.total}: {self.plan.early_stopping_patience} "
                    f"evaluations without a better score than that of step {self.report.best_step}"
                )
                break
        self._finish(time.monotonic() - started)
        return self.report

    def _batches(self) -> Iterator[tuple[dict[str, torch.Tensor], float, int]]:
        """This process's share of every batch, its weight, and the rows of the whole batch.

        All epochs, from where the report stands; whole accumulation windows are skipped. None where a resumed training
        had stopped early already.
        """
        while self.report.steps < self.total and not self._exhausted():
            epoch, done = divmod(self.report.steps, self.steps_per_epoch)
            self.sampler.start(epoch)
            skipped = done * self.plan.gradient_accumulation_steps
            yield from self.accelerator.skip_first_batches(self.loader, skipped) if skipped else self.loader

    def _learn(self, batch: dict[str, torch.Tensor], weight: float) -> dict[str, torch.Tensor]:
        terms: dict[str, torch.Tensor] = {}
        with self.accelerator.accumulate(self.model, self.extra):
            losses = iter(self.objective(self.model, batch, Progress(self.report.steps, self.total)))
            while True:
                with self.accelerator.autocast():  # the forward pass only: backward has its own types
                    loss = next(losses, None)
                if loss is None:
                    break
                self.accelerator.backward(loss.total * weight)
                terms |= loss.terms
                terms["loss"] = loss.total.detach()
            if self.accelerator.sync_gradients:
                trained = [p for group in self.optimizer.param_groups for p in group["params"]]
                gradients.sum_gradients(trained)
                norm = self.accelerator.clip_grad_norm_(trained, self.plan.max_grad_norm)
            self.optimizer.step()
            if self.accelerator.sync_gradients:
                if self.companions and not self.accelerator.optimizer_step_was_skipped:
                    terms |= self._follow(norm)
                self.scheduler.step()
            self.optimizer.zero_grad()
        return terms

    def _follow(self, norm: Any) -> dict[str, torch.Tensor]:
        """Let the companions whose turn it is take their steps, each on its own loss."""
        terms: dict[str, torch.Tensor] = {}
        due = [companion for companion in self.companions if (self.report.steps + 1) % companion[3] == 0]
        if not due:
            return terms
        clipping = min(1.0, self.plan.max_grad_norm / (float(norm) + 1e-6))  # as clip_grad_norm_ has it
        taken = StepTaken(self.optimizer, clipping, Progress(self.report.steps, self.total))
        losses = iter(self.objective.follow(self.accelerator.unwrap_model(self.model), taken))  # type: ignore[attr-defined]
        for optimizer, scheduler, max_norm, _ in due:
            with self.accelerator.autocast():
                loss = next(losses)
            self.accelerator.backward(loss.total)
            self.accelerator.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            terms |= loss.terms
        return terms

    def _tell(self, progress: Progress, terms: dict[str, torch.Tensor]) -> None:
        loss = float(terms["loss"])
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {progress.step}; lower learning_rate (now {self.plan.learning_rate:g})"
            )
        if progress.step % 10 == 0 or progress.step == progress.total:
            numbers = {name: float(term) for name, term in terms.items()}
            self.log("", step=progress.step, total=progress.total, seconds=self.report.seconds, **numbers)

    def _judge(self) -> None:
        evaluate, model = self.evaluate, self.accelerator.unwrap_model(self.model)
        assert evaluate is not None
        score = processes.broadcast_from_main(lambda: float(evaluate(model.eval())))
        model.train()
        step = self.report.steps
        self.report.history.append({"step": step, "score": score})
        self.log(f"step {step} of {self.total}: score {score:.4f}", step=step, total=self.total, score=score)
        if self.report.best_score is None or score > self.report.best_score:
            self.report.best_score, self.report.best_step = score, step
            processes.broadcast_from_main(lambda: self._keep_best(model))

    def _keep_best(self, model: Any) -> None:
        fresh = self.folder / "best.new"
        save_file({name: t.detach().contiguous() for name, t in model.state_dict().items()}, fresh)
        fresh.replace(self.folder / "best.safetensors")

    def _finish(self, seconds: float) -> None:
        model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        if self.report.best_step not in (None, self.report.steps):
            processes.broadcast_from_main(lambda: self._take_best(model))
            gradients.broadcast_weights(model)
        model.eval()
        self.report.examples_per_second = self.examples / max(seconds, 1e-9)
        self.accelerator.free_memory()

    def _take_best(self, model: Any) -> None:
        model.load_state_dict(load_file(self.folder / "best.safetensors"))
