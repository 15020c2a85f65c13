"""The calling convention of transformers' encoders: options that are refused, and the names of outputs.

A saved model folder carries this file beside ``encoder.py``; it may import torch and the files beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .attention import core
from .layers import LayerWidths

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


def check_attentions(layers: Sequence[LayerWidths]) -> None:
    """Refuse attention weights of layers that have none, or that read other tokens than the ones before.

    Args:
        layers: Shapes of the layers.

    Raises:
        ValueError: Says which layer, or why.
    """
    if any(layer.tokens < 1 for layer in layers):
        raise ValueError(
            "layers pass on fewer tokens than they read, so attention weights are of other tokens in each "
            "layer: call without output_attentions"
        )
    for index, layer in enumerate(layers):
        if layer.heads and core(layer.attention)[0] not in ("softmax", "local"):
            raise ValueError(
                f"layer {index} has {layer.attention} attention, which has no weight for each pair of tokens: "
                "call without output_attentions"
            )


def per_layer(tapped: Mapping[str, list[Tensor]]) -> dict[str, tuple[Tensor, ...]]:
    """Return tapped activations under transformers' names; attention as weights that sum to 1."""
    outputs = {"hidden_states": tuple(tapped["hidden"])} if "hidden" in tapped else {}
    if "attention" in tapped:
        outputs["attentions"] = tuple(scores.softmax(-1) for scores in tapped["attention"])
    return outputs
