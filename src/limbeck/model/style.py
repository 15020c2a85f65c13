"""What distinguishes the families of encoders, apart from the shape.

A saved model folder carries this file beside ``encoder.py``; it imports the standard library alone, so that a
configuration can be read without torch.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Style:
    """How an encoder of a family computes, apart from its shape.

    ``position_offset``: None counts positions from 0; a number p counts the tokens that are not padding from p + 1
    and gives padding the position p (RoBERTa). ``pooler``: activation of the dense layer before the output layer.
    ``resplit``: a slice with narrower heads takes the leading channels of all heads together and splits them into its
    own heads; otherwise every head keeps its own leading channels. ``projections``: which learned projections of the
    sequence length linformer layers have: two per layer ('none' shared), one per layer for keys and values ('kv'), one
    for all layers ('layer'), or two for every head ('per_head').
    """

    family: str = "bert"
    vocab_size: int = 30522
    embedding_size: int | None = None
    max_positions: int = 512
    token_types: int = 2
    position_offset: int | None = None
    pad_token_id: int = 0
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    classifier_dropout: float = 0.1
    pooler: str = "tanh"
    resplit: bool = False
    projections: str = "none"
