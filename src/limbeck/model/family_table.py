"""The supported architectures as a table: where the tensors of each lie, and what its configuration calls our fields.

A family is one row of :data:`FAMILIES`. To add one, add a row; the family laws run over all of them. What a family does
that no other does becomes a field of :class:`~limbeck.model.style.Style`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from limbeck.model import deberta, layer_types

_BERT_EMBEDDINGS = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "token_type": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}
_BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
_BERT_KEYS: dict[str, tuple[str, Any]] = {
    "hidden": ("hidden_size", 768),
    "heads": ("num_attention_heads", 12),
    "depth": ("num_hidden_layers", 12),
    "ffn": ("intermediate_size", 3072),
    "vocab_size": ("vocab_size", 30522),
    "max_positions": ("max_position_embeddings", 512),
    "token_types": ("type_vocab_size", 2),
    "pad_token_id": ("pad_token_id", 0),
    "activation": ("hidden_act", "gelu"),
    "layer_norm_eps": ("layer_norm_eps", 1e-12),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "classifier_dropout": ("classifier_dropout", None),
}
_XLM_KEYS = _BERT_KEYS | {"pad_token_id": ("pad_token_id", 1)}
_ROBERTA_KEYS = _XLM_KEYS | {"vocab_size": ("vocab_size", 50265)}


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How one architecture writes what others have no words for.

    ``keys``: keys of config.json; ``read`` takes config.json and the model's name, and returns fields of the style;
    ``write`` takes our fields and returns the keys.
    """

    keys: frozenset[str]
    read: Callable[[Mapping[str, Any], object], dict[str, Any]]
    write: Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Family:
    """How one architecture names its modules and its configuration.

    ``keys`` maps our field to (the key in config.json, the architecture's default). ``pooler`` and ``output`` are the
    two dense layers of the sequence classification head, with ``activation`` between them. ``modules``: what the
    encoder has besides embeddings, layers and ``norm``, the norm after the layers; ``pooler_norm``: that between the
    dense layers of the head. Modules of ours with one path are parts of one matrix there, in their order; but with
    ``shared_layers`` all layers are one module, at ``layers``, and opened, each layer has a copy. ``interleaved``:
    rotary positions turn neighboring channels of a head, not its halves as ours. ``computed``: parameters that are not
    learned, which ours lacks. ``local``: the configuration says which layers are local (see ``layer_types.py``).
    ``style``: what is the same for the family. ``required``: keys with one supported value. ``dialect``: keys of the
    configuration that do not hold one field each.
    """

    prefix: str
    pooler: str
    output: str = "classifier"
    activation: str = "tanh"
    keys: Mapping[str, tuple[str, Any]] = dataclasses.field(default_factory=lambda: _BERT_KEYS)
    embeddings: Mapping[str, str] = dataclasses.field(default_factory=lambda: _BERT_EMBEDDINGS)
    layers: str = "encoder.layer"
    layer: Mapping[str, str] = dataclasses.field(default_factory=lambda: _BERT_LAYER)
    positions_from_padding: bool = False
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    shared_layers: bool = False
    norm: str = ""
    pooler_norm: str = ""
    interleaved: bool = False
    computed: tuple[str, ...] = ()
    local: bool = False
    style: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    required: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dialect: Dialect | None = None

    @property
    def rearranged(self) -> bool:
        """Whether checkpoints differ from ours by more than names and joined rows."""
        return self.shared_layers or self.interleaved

    def layer_path(self, index: int) -> str:
        """Return the path of a layer in the encoder."""
        return self.layers if self.shared_layers else f"{self.layers}.{index}"

    def value(self, config: Mapping[str, Any], field: str) -> Any:
        """Return a configuration's value of one of our fields, of whatever JSON type; BERT's spelling counts too."""
        key, default = self.keys[field]
        common = _BERT_KEYS[field][0] if field in _BERT_KEYS else key
        return config.get(key, config.get(common, default))

    def standard_keys(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the family's keys of config.json for values of our fields, of those that are there.

        Dropout that a style leaves open is written as what it means: that of the embeddings as the general one, that
        before the pooler as none.
        """
        usual = {"embedding_dropout": values.get("dropout"), "pooler_dropout": 0.0}
        values = {**values, **{field: usual[field] for field in usual if field in values and values[field] is None}}
        keys = {key: values[field] for field, (key, _) in self.keys.items() if field in values}
        return keys if self.dialect is None else keys | self.dialect.write(values)

    @property
    def config_keys(self) -> frozenset[str]:
        """The keys of config.json that this family reads."""
        keys = frozenset(key for key, _ in self.keys.values()) | (layer_types.KEYS if self.local else frozenset())
        return keys | (self.dialect.keys if self.dialect else frozenset())


def _roberta(prefix: str, keys: Mapping[str, tuple[str, Any]]) -> Family:
    """Return the row of a family that is RoBERTa under another name."""
    return Family(prefix, "classifier.dense", "classifier.out_proj", keys=keys, positions_from_padding=True)


FAMILIES: dict[str, Family] = {
    "bert": Family("bert", pooler="bert.pooler.dense"),
    "ernie": Family("ernie", pooler="ernie.pooler.dense", required={"use_task_id": False}),
    "roberta": _roberta("roberta", _ROBERTA_KEYS),
    "xlm-roberta": _roberta("roberta", _XLM_KEYS),
    "camembert": _roberta("roberta", _XLM_KEYS),
    "data2vec-text": _roberta("data2vec_text", _XLM_KEYS),
    "electra": Family(
        "electra",
        "classifier.dense",
        "classifier.out_proj",
        activation="gelu",
        keys=_BERT_KEYS
        | {
            "hidden": ("hidden_size", 256),
            "heads": ("num_attention_heads", 4),
            "ffn": ("intermediate_size", 1024),
        }
        | {"embedding_size": ("embedding_size", 128)},
        embeddings=_BERT_EMBEDDINGS | {"project": "embeddings_project"},
    ),
    "albert": Family(
        "albert",
        "albert.pooler",
        keys=_BERT_KEYS
        | {
            "hidden": ("hidden_size", 4096),
            "heads": ("num_attention_heads", 64),
            "ffn": ("intermediate_size", 16384),
            "vocab_size": ("vocab_size", 30000),
            "activation": ("hidden_act", "gelu_new"),
            "dropout": ("hidden_dropout_prob", 0.0),
            "attention_dropout": ("attention_probs_dropout_prob", 0.0),
            "classifier_dropout": ("classifier_dropout_prob", 0.1),
            "embedding_size": ("embedding_size", 128),
        },
        embeddings=_BERT_EMBEDDINGS | {"project": "encoder.embedding_hidden_mapping_in"},
        layers="encoder.albert_layer_groups.0.albert_layers.0",
        layer={
            "query": "attention.query",
            "key": "attention.key",
            "value": "attention.value",
            "attention_out": "attention.dense",
            "attention_norm": "attention.LayerNorm",
            "up": "ffn",
            "down": "ffn_output",
            "ffn_norm": "full_layer_layer_norm",
        },
        shared_layers=True,
        style={"ffn_dropout": "none"},
        required={"num_hidden_groups": 1, "inner_group_num": 1},
    ),
    "rembert": Family(
        "rembert",
        "rembert.pooler.dense",
        keys=_BERT_KEYS
        | {
            "hidden": ("hidden_size", 1152),
            "heads": ("num_attention_heads", 18),
            "depth": ("num_hidden_layers", 32),
            "ffn": ("intermediate_size", 4608),
            "vocab_size": ("vocab_size", 250300),
            "dropout": ("hidden_dropout_prob", 0.0),
            "attention_dropout": ("attention_probs_dropout_prob", 0.0),
            "classifier_dropout": ("classifier_dropout_prob", 0.1),
            "embedding_size": ("input_embedding_size", 256),
        },
        embeddings=_BERT_EMBEDDINGS | {"project": "encoder.embedding_hidden_mapping_in"},
    ),
    "megatron-bert": Family(
        "bert",
        "bert.pooler.dense",
        keys=_BERT_KEYS
        | {
            "hidden": ("hidden_size", 1024),
            "heads": ("num_attention_heads", 16),
            "depth": ("num_hidden_layers", 24),
            "ffn": ("intermediate_size", 4096),
            "vocab_size": ("vocab_size", 29056),
        },
        embeddings={name: path for name, path in _BERT_EMBEDDINGS.items() if name != "norm"},
        layer=_BERT_LAYER | {"attention_norm": "attention.ln", "ffn_norm": "ln"},
        norm="encoder.ln",
        style={"norm_first": True, "embedding_norm": False},
    ),
    "roberta-prelayernorm": dataclasses.replace(
        _roberta("roberta_prelayernorm", _ROBERTA_KEYS),
        layer=_BERT_LAYER | {"attention_norm": "attention.LayerNorm", "ffn_norm": "intermediate.LayerNorm"},
        norm="LayerNorm",
        style={"norm_first": True},
    ),
    "xlm-roberta-xl": dataclasses.replace(
        _roberta(
            "roberta",
            _XLM_KEYS
            | {
                "hidden": ("hidden_size", 2560),
                "heads": ("num_attention_heads", 32),
                "depth": ("num_hidden_layers", 36),
                "ffn": ("intermediate_size", 10240),
                "vocab_size": ("vocab_size", 250880),
                "max_positions": ("max_position_embeddings", 514),
                "token_types": ("type_vocab_size", 1),
                "layer_norm_eps": ("layer_norm_eps", 1e-5),
            },
        ),
        embeddings={name: path for name, path in _BERT_EMBEDDINGS.items() if name != "norm"},
        layer=_BERT_LAYER | {"attention_norm": "attention.self_attn_layer_norm", "ffn_norm": "LayerNorm"},
        norm="encoder.LayerNorm",
        style={"ffn_dropout": "none", "norm_first": True, "embedding_norm": False},
    ),
    "roformer": Family(
        "roformer",
        "classifier.dense",
        "classifier.out_proj",
        keys=_BERT_KEYS
        | {
            "vocab_size": ("vocab_size", 50000),
            "max_positions": ("max_position_embeddings", 1536),
            "embedding_size": ("embedding_size", None),
            "pooler": ("hidden_act", "gelu"),
        },
        embeddings={name: path for name, path in _BERT_EMBEDDINGS.items() if name != "position"}
        | {"project": "embeddings_project"},
        interleaved=True,
        computed=("encoder.embed_positions.weight",),
        style={"absolute_positions": False, "rotary_theta": (10_000.0,)},
        required={"rotary_value": False},
    ),
    "distilbert": Family(
        "distilbert",
        "pre_classifier",
        activation="relu",
        keys={
            "hidden": ("dim", 768),
            "heads": ("n_heads", 12),
            "depth": ("n_layers", 6),
            "ffn": ("hidden_dim", 3072),
            "vocab_size": ("vocab_size", 30522),
            "max_positions": ("max_position_embeddings", 512),
            "pad_token_id": ("pad_token_id", 0),
            "activation": ("activation", "gelu"),
            "dropout": ("dropout", 0.1),
            "attention_dropout": ("attention_dropout", 0.1),
            "classifier_dropout": ("seq_classif_dropout", 0.2),
        },
        embeddings={name: path for name, path in _BERT_EMBEDDINGS.items() if name != "token_type"},
        layers="transformer.layer",
        layer={
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "attention_out": "attention.out_lin",
            "attention_norm": "sa_layer_norm",
            "up": "ffn.lin1",
            "down": "ffn.lin2",
            "ffn_norm": "output_layer_norm",
        },
        style={"attention_output_dropout": 0.0},
    ),
    "mpnet": Family(
        "mpnet",
        "classifier.dense",
        "classifier.out_proj",
        keys=_XLM_KEYS
        | {"vocab_size": ("vocab_size", 30527), "relative_buckets": ("relative_attention_num_buckets", 32)},
        embeddings={name: path for name, path in _BERT_EMBEDDINGS.items() if name != "token_type"},
        layer=_BERT_LAYER
        | {
            "query": "attention.attn.q",
            "key": "attention.attn.k",
            "value": "attention.attn.v",
            "attention_out": "attention.attn.o",
            "attention_norm": "attention.LayerNorm",
        },
        positions_from_padding=True,
        modules={"position_bias": "encoder.relative_attention_bias"},
        required={"relative_attention_num_buckets": 32, "pad_token_id": 1},
    ),
    "deberta-v2": Family(
        "deberta",
        "pooler.dense",
        keys=_BERT_KEYS
        | {
            "hidden": ("hidden_size", 1536),
            "heads": ("num_attention_heads", 24),
            "depth": ("num_hidden_layers", 24),
            "ffn": ("intermediate_size", 6144),
            "vocab_size": ("vocab_size", 128100),
            "token_types": ("type_vocab_size", 0),
            "layer_norm_eps": ("layer_norm_eps", 1e-7),
            "embedding_size": ("embedding_size", None),
            "classifier_dropout": ("cls_dropout", None),
            "pooler_dropout": ("pooler_dropout", 0.0),
            "pooler": ("pooler_hidden_act", "gelu"),
        },
        embeddings=_BERT_EMBEDDINGS | {"project": "embeddings.embed_proj"},
        layer=_BERT_LAYER
        | {
            "query": "attention.self.query_proj",
            "key": "attention.self.key_proj",
            "value": "attention.self.value_proj",
            "position_key": "attention.self.pos_key_proj",
            "position_query": "attention.self.pos_query_proj",
        },
        modules={"relative.table": "encoder.rel_embeddings", "relative.norm": "encoder.LayerNorm"},
        required={"conv_kernel_size": 0},
        dialect=Dialect(deberta.KEYS, deberta.read, deberta.write),
    ),
    "modernbert": Family(
        "model",
        "head.dense",
        keys={
            "hidden": ("hidden_size", 768),
            "heads": ("num_attention_heads", 12),
            "depth": ("num_hidden_layers", 22),
            "ffn": ("intermediate_size", 1152),
            "vocab_size": ("vocab_size", 50368),
            "max_positions": ("max_position_embeddings", 8192),
            "pad_token_id": ("pad_token_id", 50283),
            "activation": ("hidden_activation", "gelu"),
            "layer_norm_eps": ("norm_eps", 1e-5),
            "dropout": ("mlp_dropout", 0.0),
            "embedding_dropout": ("embedding_dropout", 0.0),
            "attention_output_dropout": ("attention_dropout", 0.0),
            "attention_dropout": ("attention_dropout", 0.0),
            "classifier_dropout": ("classifier_dropout", 0.0),
            "norm_bias": ("norm_bias", False),
            "attention_bias": ("attention_bias", False),
            "ffn_bias": ("mlp_bias", False),
            "pooler": ("classifier_activation", "gelu"),
            "pooler_bias": ("classifier_bias", False),
            "pooling": ("classifier_pooling", "cls"),
        },
        embeddings={"word": "embeddings.tok_embeddings", "norm": "embeddings.norm"},
        layers="layers",
        layer={
            "query": "attn.Wqkv",
            "key": "attn.Wqkv",
            "value": "attn.Wqkv",
            "attention_out": "attn.Wo",
            "attention_norm": "attn_norm",
            "up": "mlp.Wi",
            "gate": "mlp.Wi",
            "down": "mlp.Wo",
            "ffn_norm": "mlp_norm",
        },
        norm="final_norm",
        pooler_norm="head.norm",
        local=True,
        style={
            "ffn_dropout": "neurons",
            "norm_first": True,
            "absolute_positions": False,
            "gated": True,
            "unnormed_layers": (0,),
            "pooler_norm": True,
            "pooler_per_token": True,
        },
    ),
}
"""The supported architectures by their ``model_type``."""
