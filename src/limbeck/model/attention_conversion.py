"""Give layers of a model other attention cores, and a model more positions; all other weights stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from limbeck.core.shape import Shape, skipped_positions
from limbeck.errors import InputError
from limbeck.model.pruning.slicing import write_shape

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification

SHARES = {"none": "none", "kv": "kv", "layer": "layer", "headwise": "none", "per_head": "per_head"}
"""Which length projections layers share, and the value of ``Style.projections`` for it.

He and Garner's ``none`` (E and F for every layer, the same for all its heads) is what the Linformer paper calls
headwise sharing; its key-value sharing is ``kv`` (E = F), its layerwise sharing ``layer`` (one E for all layers, keys
and values). With ``per_head``, which that paper begins with, every head has projections of its own."""


def convert(
    model: LimbeckForSequenceClassification,
    attention: Sequence[str],
    *,
    share: str = "none",
    positions: int | None = None,
    tokens: int | None = None,
    seed: int = 0,
) -> LimbeckForSequenceClassification:
    """Build a model with other attention cores, one per layer, and the same weights otherwise.

    Args:
        model: The model to convert; it is not changed.
        attention: Name and size of each layer's core.
        share: Which length projections layers share, a key of :data:`SHARES`.
        positions: Number of positions, at least the present one. New positions repeat the old ones from the first on
            (Longformer, Beltagy et al., 2020, arXiv:2004.05150), as do rows of length projections. None adds none.
        tokens: Length of a text, in tokens, for which new length projections are :func:`averages`; None samples them
            ~ N(0, 1), as He and Garner do (arXiv:2410.06846).
        seed: Seed of sampled projections.

    Raises:
        InputError: ``positions`` is smaller than the present number.
    """
    before: Shape = model.shape
    layers = tuple(replace(layer, attention=kind) for layer, kind in zip(before.layers, attention, strict=True))
    shape = Shape(before.hidden, before.head_dim, layers)
    config = copy.deepcopy(model.config)
    config.projections = SHARES[share]
    config.max_positions = positions or config.max_positions
    if config.max_positions < model.config.max_positions:
        raise InputError(f"positions: the model has {model.config.max_positions} already, got {positions}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        converted = type(model)(write_shape(config, shape))
    converted.encoder.shape = shape
    old = model.state_dict()
    special = skipped_positions(config.position_offset)
    with torch.no_grad():
        for name, parameter in converted.state_dict().items():
            weight = old.get(name)
            if name.endswith("lengths"):
                if weight is not None and fits(weight, parameter):
                    parameter.copy_(repeated(weight, parameter.shape[-2], 0, dim=-2))
            elif name == "encoder.embeddings.position.weight":
                parameter.copy_(repeated(old[name], len(parameter), special))
            else:
                parameter.copy_(old[name])
        if tokens:
            for name in new_projections(converted, model):
                parameter = converted.get_parameter(name)
                parameter.copy_(averages(parameter.shape[-2], parameter.shape[-1], tokens))
    converted.fresh_head = model.fresh_head
    converted.to(model.device)  # type: ignore[arg-type]  # transformers mistypes it
    converted.train(model.training)
    return converted


def new_projections(
    converted: LimbeckForSequenceClassification, model: LimbeckForSequenceClassification
) -> frozenset[str]:
    """Return the names of the length projections that a converted model does not have from the original."""
    old = model.state_dict()
    new = {name: weight for name, weight in converted.named_parameters() if name.endswith("lengths")}
    return frozenset(name for name, weight in new.items() if name not in old or not fits(old[name], weight))


def averages(rows: int, size: int, tokens: int) -> Tensor:
    """Build length projections that average neighbors: [rows, size].

    A text of ``tokens`` tokens is divided into ``size`` segments, a column for each. With more columns than tokens,
    every token has several; if all have equally many, the result is softmax attention itself. Longer texts start again
    at the first column; columns that a shorter text does not reach are zero.

    Args:
        rows: Number of positions.
        size: Number of projected positions.
        tokens: Length of the text, in tokens.

    >>> averages(6, 2, 4)[:, 0].tolist()  # to be divided by sqrt(4): the mean of the first two tokens
    [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    """
    position, column = torch.arange(rows)[:, None] % tokens, torch.arange(size)
    belongs = position * size // tokens == column if size < tokens else position == column * tokens // size
    weights: Tensor = belongs * tokens**0.5 / max(1.0, tokens / size)
    return weights


def fits(weight: Tensor, parameter: Tensor) -> bool:
    """Tell whether two projections have the same size, apart from the number of positions."""
    return weight.shape[:-2] == parameter.shape[:-2] and weight.shape[-1] == parameter.shape[-1]


def repeated(table: Tensor, rows: int, special: int, dim: int = 0) -> Tensor:
    """Extend a table by repeating its rows.

    Args:
        table: The table.
        rows: Number of rows of the result.
        special: Number of leading rows that are not repeated.
        dim: Axis of the rows.

    >>> repeated(torch.tensor([[9], [1], [2]]), 6, 1).flatten().tolist()
    [9, 1, 2, 1, 2, 1]
    """
    count = table.shape[dim]
    index = torch.arange(rows, device=table.device)
    index = torch.where(index < count, index, special + (index - count) % (count - special))
    return table.index_select(dim, index)
