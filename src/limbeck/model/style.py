"""What distinguishes the families of encoders, apart from the shape.

A saved model folder carries this file beside ``encoder.py``; it imports the standard library alone, so that a
configuration can be read without torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Style:
    """How an encoder of a family computes, apart from its shape.

    ``position_offset``: None counts positions from 0; a number p counts the tokens that are not padding from p + 1
    and gives padding the position p (RoBERTa). ``pooler``: activation of the dense layer before the output layer.
    ``resplit``: a slice with narrower heads takes the leading channels of all heads together and splits them into its
    own heads; otherwise every head keeps its own leading channels. ``projections``: which learned projections of the
    sequence length linformer layers have: two per layer ('none' shared), one per layer for keys and values ('kv'), one
    for all layers ('layer'), or two for every head ('per_head'). ``relative_buckets``: rows of the table of biases that
    are added to attention scores by the distance of two tokens, 0 for no such table (T5's buckets, as in MPNet);
    ``relative_heads``: columns of that table; ``relative_distance``: from which distance on all tokens are alike;
    ``position_heads``: which column each head of each layer takes, empty while no head was removed or moved.
    ``pos_att_type``: terms of disentangled attention, of 'c2p' and 'p2c', besides that of the contents;
    ``share_att_key``: relative embeddings are projected by the matrices of queries and keys, and have none of their
    own; ``position_buckets``: buckets of distances in each direction, 0 for one a distance; ``max_relative_positions``:
    distances beyond it share the last bucket; ``relative_norm``: relative embeddings are normalized;
    ``project_before_norm``: embeddings are projected to the encoder's width before they are normalized, without bias;
    ``masks_queries``: padding has embeddings of zero and attends to all tokens alike, padding included, which shows
    where the first token is padding.

    ``dropout`` acts on embeddings and on the output of attention, unless these have a probability of their own, and
    (``ffn_dropout``) on the 'output' of the feed-forward part, on its 'neurons' or on 'none' of it; ``pooler_dropout``
    on what the dense layer before the output layer reads. None of the latter means ``classifier_dropout``, or 0 in
    families where that layer belongs to the encoder.

    ``norm_first``: each part of a layer normalizes what it reads, and a last norm follows the layers (pre-norm);
    otherwise the sum after each part is normalized. ``absolute_positions``: a table of positions is added to the word
    embeddings. ``embedding_norm``: the embeddings are normalized. ``norm_bias``, ``attention_bias``, ``ffn_bias``:
    whether norms, the four projections of attention, and the linear maps of the feed-forward part have biases.
    ``gated``: a neuron is an activation times a second linear map. ``rotary_theta``: base of the rotary positions of
    each layer, empty without them. ``unnormed_layers``: pre-norm layers whose attention has no norm. ``pooling``: a
    text is classified by its first token ('cls') or by the mean of its tokens ('mean'). ``pooler_bias``,
    ``pooler_norm``: whether the dense layer before the output layer has a bias, and a norm after it;
    ``pooler_per_token``: whether it is part of token classification too.
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
    embedding_dropout: float | None = None
    attention_output_dropout: float | None = None
    ffn_dropout: str = "output"
    pooler_dropout: float | None = None
    pooler: str = "tanh"
    resplit: bool = False
    projections: str = "none"
    relative_buckets: int = 0
    relative_heads: int = 0
    relative_distance: int = 128
    position_heads: Sequence[Sequence[int]] = ()
    norm_first: bool = False
    absolute_positions: bool = True
    embedding_norm: bool = True
    norm_bias: bool = True
    attention_bias: bool = True
    ffn_bias: bool = True
    pos_att_type: Sequence[str] = ()
    share_att_key: bool = False
    position_buckets: int = 0
    max_relative_positions: int = 0
    relative_norm: bool = False
    project_before_norm: bool = False
    masks_queries: bool = False
    gated: bool = False
    rotary_theta: Sequence[float] = ()
    unnormed_layers: Sequence[int] = ()
    pooling: str = "cls"
    pooler_bias: bool = True
    pooler_norm: bool = False
    pooler_per_token: bool = False
