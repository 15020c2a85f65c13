"""What callers of transformers' interface may ask of a model, and what they get by its names.

A saved model folder carries this file beside ``encoder.py``; it may import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

REFUSED = (
    "position_ids", "inputs_embeds", "head_mask", "encoder_hidden_states", "encoder_attention_mask", "past_key_values",
)  # fmt: skip
"""Options of transformers' own encoders that would change the output and that this encoder does not support."""


def check_options(input_ids: Tensor | None, options: Mapping[str, Any]) -> None:
    """Refuse a call without token ids, and options that would change the output."""
    for name in REFUSED:
        if options.get(name) is not None:
            raise ValueError(f"this model does not take {name}: give input_ids, from which it counts positions itself")
    if input_ids is None:
        raise ValueError("this model needs input_ids [batch, seq]")


def per_layer(tapped: Mapping[str, list[Tensor]]) -> dict[str, tuple[Tensor, ...]]:
    """Return tapped activations under transformers' names; attention as weights that sum to 1."""
    outputs = {"hidden_states": tuple(tapped["hidden"])} if "hidden" in tapped else {}
    if "attention" in tapped:
        outputs["attentions"] = tuple(scores.softmax(-1) for scores in tapped["attention"])
    return outputs
