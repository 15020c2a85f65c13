"""Give layers of a model other attention cores, and a model more positions; all other weights stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from limbeck.core.shape import Shape, skipped_positions
from limbeck.errors import InputError
from limbeck.model.pruning.slicing import write_shape

SHARES = {"none": "none", "kv": "kv", "layer": "layer", "headwise": "none", "per_head": "per_head"}
"""Which projections of the length layers share, and what ``Style.projections`` calls it.

He and Garner's ``none`` (E and F for every layer, the same for all its heads) is what the Linformer paper calls
headwise sharing; its key-value sharing is ``kv`` (E = F), its layerwise sharing ``layer`` (one E for all layers, keys
and values). With ``per_head``, which that paper begins with, every head has projections of its own."""


def convert(
    model: Any,
    attention: Sequence[str],
    *,
    share: str = "none",
    positions: int | None = None,
    tokens: int | None = None,
    seed: int = 0,
) -> Any:
    """A new model with these attention cores, one a layer.

    ``tokens``: projections of the length that the model lacks become the :func:`averages` of a text of so many tokens;
    None draws them ~ N(0, 1), as He and Garner do (arXiv:2410.06846).
    ``positions``: how many there should be, at least as many as there are. New ones are the old ones again, from the
    first on (Longformer, Beltagy et al., 2020, arXiv:2004.05150); rows of the length's projections likewise.
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
        made = type(model)(write_shape(config, shape))
    made.encoder.shape = shape
    old = model.state_dict()
    special = skipped_positions(config.position_offset)
    with torch.no_grad():
        for name, parameter in made.state_dict().items():
            weight = old.get(name)
            if name.endswith("lengths"):
                if weight is not None and fits(weight, parameter):
                    parameter.copy_(repeated(weight, parameter.shape[-2], 0, dim=-2))
            elif name == "encoder.embeddings.position.weight":
                parameter.copy_(repeated(old[name], len(parameter), special))
            else:
                parameter.copy_(old[name])
        if tokens:
            for name in drawn(made, model):
                parameter = made.get_parameter(name)
                parameter.copy_(averages(parameter.shape[-2], parameter.shape[-1], tokens))
    made.fresh_head = getattr(model, "fresh_head", False)
    return made.to(model.device).train(model.training)


def drawn(made: Any, model: Any) -> frozenset[str]:
    """Names of the projections that a converted model does not have from the one that it was made of."""
    old = model.state_dict()
    new = {name: weight for name, weight in made.named_parameters() if name.endswith("lengths")}
    return frozenset(name for name, weight in new.items() if name not in old or not fits(old[name], weight))


def averages(rows: int, size: int, tokens: int) -> Tensor:
    """Projections of the length that average neighbours: [rows, size].

    A text of ``tokens`` tokens falls into ``size`` segments, a column for each. Where there are more columns than
    tokens, every token has several, and where they have equally many that is softmax attention itself. Longer texts
    begin again with the first column; columns that a shorter one does not reach are zero.

    >>> averages(6, 2, 4)[:, 0].tolist()  # to be divided by sqrt(4): the mean of the first two tokens
    [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    """
    place, column = torch.arange(rows)[:, None] % tokens, torch.arange(size)
    belongs = place * size // tokens == column if size < tokens else place == column * tokens // size
    return belongs * tokens**0.5 / max(1.0, tokens / size)


def fits(weight: Tensor, parameter: Tensor) -> bool:
    """Whether projections are those of another number of positions, and otherwise the same."""
    return weight.shape[:-2] == parameter.shape[:-2] and weight.shape[-1] == parameter.shape[-1]


def repeated(table: Tensor, rows: int, special: int, dim: int = 0) -> Tensor:
    """A table with that many rows: those after the ``special`` ones again and again.

    >>> repeated(torch.tensor([[9], [1], [2]]), 6, 1).flatten().tolist()
    [9, 1, 2, 1, 2, 1]
    """
    count = table.shape[dim]
    places = torch.arange(rows, device=table.device)
    places = torch.where(places < count, places, special + (places - count) % (count - special))
    return table.index_select(dim, places)
