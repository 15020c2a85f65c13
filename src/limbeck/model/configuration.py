"""The configuration of an encoder: its shape, one entry per layer, and its style.

A saved model folder carries this file beside ``encoder.py``; it may import transformers and the files beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import PretrainedConfig

from .layers import ConfigLayer, ConfigShape
from .style import Style

STANDARD_KEYS = frozenset((
    "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings", "type_vocab_size",
    "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "dim", "n_layers", "n_heads", "hidden_dim",
    "seq_classif_dropout", "relative_attention_num_buckets", "hidden_activation", "norm_eps", "mlp_dropout", "mlp_bias",
    "classifier_activation", "classifier_bias", "classifier_pooling", "layer_types", "local_attention",
    "rope_parameters", "rope_scaling", "global_attn_every_n_layers", "global_rope_theta", "local_rope_theta",
    "classifier_dropout_prob", "input_embedding_size", "cls_dropout", "norm_rel_ebd", "relative_attention",
    "position_biased_input", "pooler_hidden_size", "pooler_hidden_act", "attention_head_size",
    "embedding_dropout", "pooler_dropout",
))  # fmt: skip
"""Keys of the families' configurations; the entry ``limbeck`` says the same for each layer."""
PREFIXES = (
    "bert|roberta|electra|distilbert|mpnet|ernie|data2vec_text|albert|rembert|model|deberta"
    "|roberta_prelayernorm|roformer"
)
"""What the names of tensors begin with in the checkpoints of the families."""
GUARD = rf"^({PREFIXES})\.(embeddings\.(LayerNorm|norm)|encoder\.(LayerNorm|ln))\.weight$"
"""The tensor that is written empty, so that a family's own class refuses a shape it cannot hold."""


class LimbeckConfig(PretrainedConfig):
    """The shape, one entry per layer, and the style, as a Hugging Face configuration."""

    model_type = "limbeck"
    attribute_map = {"num_hidden_layers": "depth", "max_position_embeddings": "max_positions"}  # noqa: RUF012
    if TYPE_CHECKING:  # transformers would make fields of annotations
        embedding_size: int | None
        resplit: bool
        vocab_size: int
        space: dict[str, Any] | None
        general_space: dict[str, Any] | None
        order: dict[str, Any] | None
        layer_tokens: list[float] | None
        early_exits: dict[str, Any] | None
    else:  # what only a super-network has: the space of its slices, trained on a task or not, and its parts' order
        space = general_space = order = None
        layer_tokens = None  # shares of the tokens that go on, where not all do
        early_exits = None  # where heads stand after inner layers, and when they answer

    def __init__(
        self,
        hidden_size: int = 384,
        head_dim: int = 32,
        layer_heads: Sequence[int] = (),
        layer_ffn: Sequence[int] = (),
        layer_attention: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        self.hidden_size, self.head_dim = hidden_size, head_dim
        self.layer_heads, self.layer_ffn = list(layer_heads), list(layer_ffn)
        self.layer_attention = list(layer_attention) or ["softmax"] * len(self.layer_heads)
        for field in dataclasses.fields(Style):
            setattr(self, field.name, kwargs.pop(field.name, field.default))
        if self.embedding_size == hidden_size:
            self.embedding_size = None  # else slices with fewer channels would get a projection that this model lacks
        pad: int = self.pad_token_id  # type: ignore[has-type]
        super().__init__(**kwargs)
        self.pad_token_id = pad

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read config.json; where it has the keys of a family, take our keys from its entry ``limbeck``."""
        config, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        ours = config.pop("limbeck", None)
        if ours is not None:
            others = {key: value for key, value in config.items() if key not in STANDARD_KEYS}
            config = {**others, **ours, "model_type": cls.model_type}
        return config, rest

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layer_heads)

    @property
    def shape(self) -> ConfigShape:
        """Shape of the encoder."""
        tokens = self.layer_tokens or [1.0] * len(self.layer_heads)
        rows = zip(self.layer_heads, self.layer_ffn, self.layer_attention, tokens, strict=True)
        return ConfigShape(self.hidden_size, self.head_dim, tuple(ConfigLayer(*row) for row in rows))

    @property
    def style(self) -> Style:
        """Style of the encoder."""
        return Style(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Style)})
