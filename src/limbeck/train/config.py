"""The hyper-parameters that all training techniques share, as a group of fields. Imports no torch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from limbeck.core.field_groups import CheckedGroup, fields_of, values_of
from limbeck.core.step import StepInfo

if TYPE_CHECKING:
    from limbeck.core.shape import Shape
    from limbeck.core.task_kind import TaskKind

FLOPS_PER_CORE = 30e9
"""Rough floating-point operations per second in training on one core; half precision about doubles it."""

PASSES = 3.0
"""Cost of a training step in forward passes; backward costs two."""
META_PASSES = 16.0
"""Likewise of Meta Pseudo Labels: both models learn from both batches, and a teacher is usually larger."""

NO_LABELS = "needs labels, and the task is texts without labels"
"""Why a step, or a field of it, is refused for texts that a model answers (``Task.answered_by``)."""

KEPT_STEPS = "steps"
"""Where in a step's scratch folder the weights that ``save_steps`` keeps lie until the result is stored."""


def weight_problems(kind: TaskKind, class_weights: str | Sequence[float], gamma: float) -> dict[str, str]:
    """Return the reason why classes cannot be weighted in tasks of a kind, by the field that says so.

    Args:
        kind: The kind of task.
        class_weights: 'none', 'balanced', or a weight for every label.
        gamma: Focusing parameter of the focal loss; 0 for none.
    """
    if not kind.numeric or (class_weights == "none" and not gamma):
        return {}
    field = "focal_gamma" if class_weights == "none" else "class_weights"
    return {field: f"class_weights and focal_gamma are for classes; this task is a {kind.name}"}


def softmax_problems(kind: TaskKind, options: Any, names: Iterable[str]) -> dict[str, str]:
    """Return why options of the comparison with a teacher's logits change nothing for a kind of task, by field.

    Such options are of distributions over classes. Numbers and vectors are compared by squared error, several labels by
    binary cross-entropy.

    Args:
        kind: The kind of task.
        options: A step, or a group of fields.
        names: Fields of it that matter to distributions over classes alone; at their default they are no problem.
    """
    if not (kind.numeric or kind.several):
        return {}
    loss_name = "squared error" if kind.numeric else "binary cross-entropy"
    values, defaults = values_of(options), {field.name: field.default for field in fields_of(type(options))}
    reason = f"has no effect on answers of kind {kind.name}, which are compared by {loss_name}; keep the default"
    return {name: f"{reason}, {defaults[name]}" for name in names if values[name] != defaults[name]}


def label_weight_problems(task_weight: float) -> dict[str, str]:
    """Return why the loss on labels can have no weight where texts have none, by field; see ``Step.label_problems``."""
    return {"task_weight": f"{NO_LABELS}; use task_weight: 0"} if task_weight else {}


def forward_seconds(shape: Shape, texts: float, tokens: float) -> float:
    """Estimate the time of a forward pass in torch on all cores: two operations per token and weight of the layers.

    Args:
        shape: The model's shape.
        texts: Number of texts.
        tokens: Mean tokens per text.

    Returns:
        Seconds.

    >>> from limbeck.core.shape import Shape
    >>> forward_seconds(Shape.uniform(layers=6, hidden=384, heads=12, ffn=1536), 0, 30)
    0.0
    """
    return 2.0 * shape.weights * texts * tokens / (FLOPS_PER_CORE * (os.cpu_count() or 1))


def kept_steps(scratch: Path | None) -> tuple[Path, ...]:
    """Return the files of weights that a training with ``save_steps`` kept, in their order."""
    return tuple(sorted((scratch / KEPT_STEPS).glob("*.safetensors"))) if scratch is not None else ()


@dataclass(frozen=True)
class TrainingConfig(CheckedGroup):
    """Hyper-parameters of one training run; names as in ``transformers.TrainingArguments``.

    AdamW without weight decay on biases and LayerNorm, gradient clipping, and length-bucketed batches. The best
    checkpoint by the task's metric on the validation split is kept.

    Attributes:
        num_train_epochs: Passes over the training texts; may be a fraction.
        learning_rate: The highest learning rate.
        per_device_train_batch_size: Texts in a batch, on each process.
        gradient_accumulation_steps: Batches per optimizer step.
        weight_decay: AdamW's weight decay, on matrices only.
        warmup_ratio: Fraction of the steps in which the learning rate rises.
        warmup_steps: Steps in which it rises, instead of a fraction of them; 0 leaves it to warmup_ratio.
        lr_scheduler_type: How the learning rate falls after that.
        end_learning_rate: Last learning rate of lr_scheduler_type: polynomial.
        lr_power: Power with which that falls; 1 is linear.
        adam_epsilon: AdamW's epsilon, in the denominator of its step.
        max_grad_norm: Gradients are clipped to this norm.
        mixed_precision: Arithmetic of the forward pass: float32 (no), bfloat16, or float16 on a GPU; auto times it and
            takes the fastest in which the loss is the same.
        evaluations_per_epoch: How often the validation split is scored; 0 keeps the last weights.
        min_steps: Fewest optimizer steps; small data sets are passed more often than ``num_train_epochs`` to reach it.
        early_stopping_patience: Stop after this many evaluations without a better score; 0 never stops early.
        save_steps: Optimizer steps between weights that are kept beside the result, to be opened as models (folders
            step_* of --out); 0 keeps none. Each takes as much disk as the model.
        save_seconds: Seconds between checkpoints for resuming; does not change the result.
        save_total_limit: How many of these checkpoints to keep, the newest.
    """

    num_train_epochs: Annotated[float, Gt(0), Le(100_000)] = 3.0
    learning_rate: Annotated[float, Gt(0), Le(100)] = 5e-5
    per_device_train_batch_size: Annotated[int, Ge(1), Le(100_000)] = 32
    gradient_accumulation_steps: Annotated[int, Ge(1), Le(100_000)] = 1
    weight_decay: Annotated[float, Ge(0), Le(100)] = 0.01
    warmup_ratio: Annotated[float, Ge(0), Le(1)] = 0.1
    warmup_steps: Annotated[int, Ge(0), Le(1_000_000_000)] = 0
    lr_scheduler_type: Literal["linear", "cosine", "constant", "polynomial"] = "linear"
    end_learning_rate: Annotated[float, Ge(0), Le(100)] = 0.0
    lr_power: Annotated[float, Gt(0), Le(100)] = 1.0
    adam_epsilon: Annotated[float, Gt(0), Le(1)] = 1e-8
    max_grad_norm: Annotated[float, Gt(0), Le(1_000_000)] = 1.0
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    evaluations_per_epoch: Annotated[int, Ge(0)] = 2
    min_steps: Annotated[int, Ge(0)] = 0
    early_stopping_patience: Annotated[int, Ge(0)] = 0
    save_steps: Annotated[int, Ge(0), Le(1_000_000_000)] = 0
    save_seconds: Annotated[float, Ge(0), Le(1_000_000)] = 120.0
    save_total_limit: Annotated[int, Ge(1), Le(1_000)] = 1

    def problems(self) -> list[str]:
        """Return the conflicts between fields, and those that have no effect."""
        problems = []
        if self.warmup_steps and self.warmup_ratio not in (0.0, type(self).warmup_ratio):
            problems.append(f"warmup_ratio: {self.warmup_ratio:g} has no effect beside warmup_steps; give one of them")
        if self.lr_scheduler_type != "polynomial":
            for name in ("end_learning_rate", "lr_power"):
                if getattr(self, name) != getattr(type(self), name):
                    problems.append(f"{name}: belongs to lr_scheduler_type: polynomial, got {self.lr_scheduler_type}")
        if self.end_learning_rate > self.learning_rate:
            problems.append(
                f"end_learning_rate: should be at most learning_rate, got {self.end_learning_rate:g} and "
                f"{self.learning_rate:g}"
            )
        return problems

    def total_steps(self, batches: int) -> int:
        """Return the optimizer steps of a training with that many batches in an epoch."""
        per_epoch = math.ceil(batches / self.gradient_accumulation_steps)
        return max(1, round(per_epoch * self.num_train_epochs), self.min_steps)

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float, passes: float = PASSES) -> float:
        """Estimate the time of training and of its evaluations.

        Args:
            shape: The model's shape.
            rows: Number of texts by split.
            tokens: Mean tokens per text.
            passes: Cost of a training step in forward passes of the model.

        Returns:
            Seconds, rough.
        """
        evaluated = self.evaluations_per_epoch * rows.get("validation", 0)
        per_step = self.per_device_train_batch_size * self.gradient_accumulation_steps
        epochs = max(self.num_train_epochs, self.min_steps * per_step / max(1, rows.get("train", 0)))
        texts = epochs * passes * rows.get("train", 0) + self.num_train_epochs * evaluated
        return forward_seconds(shape, texts, tokens) / (2 if self.mixed_precision in ("bf16", "fp16") else 1)


TRAINING = StepInfo(
    "",
    trains=True,
    keeps_shape=True,
    every_process=True,  # the loop shards each batch over the processes, so all must run it
    aliases={"epochs": "num_train_epochs", "batch_size": "per_device_train_batch_size"},
    neutral={"save_seconds", "save_total_limit"},
    added={
        "min_steps",
        "early_stopping_patience",
        "warmup_steps",
        "end_learning_rate",
        "lr_power",
        "adam_epsilon",
        "save_steps",
    },
)
"""What every technique with a :class:`TrainingConfig` declares; each replaces the name and adds its own."""

LAST_WEIGHTS = TrainingConfig(evaluations_per_epoch=0)
"""Of techniques that train slices, which are at their best at different times: the last weights are kept."""
