"""Weights of a model while it trains, kept as files beside its result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from limbeck.distributed import context as processes
from limbeck.storage.atomic import replacing
from limbeck.train.config import KEPT_STEPS
from limbeck.train.objectives import Progress

if TYPE_CHECKING:
    from torch import nn

    from limbeck.train.task_loss import TargetScale


def write_weights(model: nn.Module, path: Path, scale: TargetScale | None = None) -> None:
    """Write a model's weights as safetensors; of several processes the first one does.

    Args:
        model: The model.
        path: The file.
        scale: Scale of a regression's labels while it trains; the file predicts in the task's unit.
    """
    if processes.rank() != 0:
        return
    weights = {name: t.detach().cpu().clone().contiguous() for name, t in model.state_dict().items()}
    if scale is not None:
        weights["classifier.weight"].mul_(scale.std)
        weights["classifier.bias"].mul_(scale.std).add_(scale.mean)
    with replacing(path) as draft:
        save_file(weights, draft)


def keep_steps(
    model: nn.Module, every: int, scratch: Path | None, phase: str = "", scale: TargetScale | None = None
) -> Callable[[Progress], None]:
    """Return what to call after every optimizer step to keep the weights of each ``every``-th.

    Args:
        model: The model that is trained.
        every: Steps between two that are kept; 0 keeps none.
        scratch: Folder of the step, in which they are kept; None keeps none.
        phase: Name of the training where a step has several.
        scale: See :func:`write_weights`.
    """
    if not every or scratch is None:
        return lambda progress: None
    folder = scratch / KEPT_STEPS
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f"{phase}_" if phase else ""

    def after_step(progress: Progress) -> None:
        if progress.step and progress.step % every == 0:
            write_weights(model, folder / f"{prefix}step_{progress.step:06}.safetensors", scale)

    return after_step
