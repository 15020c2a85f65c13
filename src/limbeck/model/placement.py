"""Where a model that only answers runs while others train: on a GPU if torch finds one."""

from __future__ import annotations

from typing import TypeVar

import torch
from accelerate.utils import parse_flag_from_env
from torch import nn

T = TypeVar("T")


def on_accelerator(model: T) -> T:
    """Move a torch model to the GPU on which this process trains, in place; any other model stays as it is.

    Args:
        model: A model; with ``ACCELERATE_USE_CPU`` set, as Accelerate reads it, it stays where it is.

    Returns:
        The same model.
    """
    if isinstance(model, nn.Module) and torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU"):
        model.to("cuda")
    return model
