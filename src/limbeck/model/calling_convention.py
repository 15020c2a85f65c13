"""The calling convention of transformers' encoders: options that are refused, and the names of outputs.

A saved model folder carries this file beside ``encoder.py``; it may import torch alone.
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
    """Refuse options that would change the output, and a call without token ids.

    Args:
        input_ids: Token ids [batch, seq].
        options: The further options of a call, by name; None stands for one that is not given.

    Raises:
        ValueError: An option is not supported, or there are no ``input_ids``.
    """
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
