"""Weights that are numbers: no tensor of a checkpoint holds NaN or infinity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from limbeck.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def check_finite(weights: Mapping[str, Tensor], source: object = "model") -> None:
    """Refuse weights that hold NaN or infinity, and name the tensors.

    A sum that is finite has finite terms, so one pass without a copy clears almost every tensor.

    Args:
        weights: Tensors by name.
        source: What to call the model in errors.

    Raises:
        InputError: Names the first tensors with their counts.
    """
    import torch

    bad = []
    for name, weight in weights.items():
        if not weight.is_floating_point() or weight.is_meta or bool(torch.isfinite(weight.sum(dtype=torch.float32))):
            continue
        nans, infinite = int(torch.isnan(weight).sum()), int(torch.isinf(weight).sum())
        if nans or infinite:
            counts = [f"{count:,} {what}" for count, what in ((nans, "NaN"), (infinite, "infinite")) if count]
            bad.append(f"'{name}' has {' and '.join(counts)} of {weight.numel():,} numbers")
    if bad:
        more = f", and {len(bad) - 3} more tensors" if len(bad) > 3 else ""
        raise InputError(
            f"{source}: {'; '.join(bad[:3])}{more}; such a model answers nothing, take a checkpoint from before the "
            "training diverged, or the file again"
        )
