"""How to train: the hyper-parameters that every training technique shares. Light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le


@dataclass(frozen=True)
class Plan:
    """Hyper-parameters of one training run; names as in ``transformers.TrainingArguments``.

    AdamW without weight decay on biases and LayerNorm, gradient clipping, and length-bucketed batches. The best
    checkpoint by the task's metric on the validation split is kept.
    """

    num_train_epochs: Annotated[float, Gt(0)] = 3.0
    learning_rate: Annotated[float, Gt(0)] = 5e-5
    per_device_train_batch_size: Annotated[int, Ge(1)] = 32
    gradient_accumulation_steps: Annotated[int, Ge(1)] = 1
    weight_decay: Annotated[float, Ge(0)] = 0.01
    warmup_ratio: Annotated[float, Ge(0), Le(1)] = 0.1
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    max_grad_norm: Annotated[float, Gt(0)] = 1.0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    evaluations_per_epoch: Annotated[int, Ge(0)] = 2
    save_seconds: Annotated[float, Ge(0)] = 120.0

    aliases: ClassVar[dict[str, str]] = {
        "epochs": "num_train_epochs",
        "batch_size": "per_device_train_batch_size",
    }
    """Shorter names that a recipe may use."""

    neutral: ClassVar[frozenset[str]] = frozenset({"save_seconds"})
    """Fields that do not change the result and stay out of the cache key."""
