"""Hugging Face architectures and ours: the same weights under other names.

A family is one row of :data:`FAMILIES`: the paths of its modules, the keys of its configuration, and the activation of
its head. ``read_shape`` and ``read_style`` need only the configuration, so they also serve checks that run before
torch is imported.

To add a family, add a row; the family laws run over all rows. What a family does that no other does becomes a field of
:class:`~limbeck.model.style.Style`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from limbeck.core.shape import Shape
from limbeck.errors import InputError, UnsupportedModel, nearest, shown
from limbeck.model import layer_types
from limbeck.model.classification_head import our_head_tensors
from limbeck.model.layer_types import attention_cores, rotary_thetas
from limbeck.model.style import Style

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
class Family:
    """How one architecture names its modules and its configuration.

    ``keys`` maps our field to (the key in config.json, the architecture's default). ``pooler`` and ``output`` are the
    two dense layers of the sequence classification head, with ``activation`` between them. ``position_bias``: the table
    of biases by the distance of two tokens, for families that have one. ``norm``: the norm after the layers;
    ``pooler_norm``: that between the dense layers of the head. Modules of ours with one path are parts of one matrix
    there, in their order; but with ``shared_layers`` all layers are one module, at ``layers``, and opened, each layer
    has a copy. ``local``: config.json says which layers are local (see ``layer_types.py``). ``style``: what is the same
    for the whole family. ``required``: keys with one supported value.
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
    position_bias: str = ""
    shared_layers: bool = False
    norm: str = ""
    pooler_norm: str = ""
    local: bool = False
    style: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    required: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def layer_path(self, index: int) -> str:
        """Return the path of a layer in the encoder."""
        return self.layers if self.shared_layers else f"{self.layers}.{index}"

    def value(self, config: Mapping[str, Any], field: str) -> Any:
        """Return a configuration's value of one of our fields, of whatever JSON type; BERT's spelling counts too."""
        key, default = self.keys[field]
        common = _BERT_KEYS[field][0] if field in _BERT_KEYS else key
        return config.get(key, config.get(common, default))


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
        position_bias="encoder.relative_attention_bias",
        required={"relative_attention_num_buckets": 32, "pad_token_id": 1},
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

FEATURES: dict[str, tuple[Any, Any]] = {
    "position_embedding_type": (None, "absolute"),
    "is_decoder": (None, False),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "pruned_heads": (None, {}),
    "quantization_config": (None, {}),
}
"""Keys of a configuration that require more than an encoder, and the values that do not."""

POOLINGS = ("cls", "mean")
SHAPE = ("hidden_size", "head_dim", "layer_heads", "layer_ffn", "layer_attention")
STYLE = tuple(field.name for field in dataclasses.fields(Style))
OURS = frozenset((*SHAPE, *STYLE, "space", "limbeck_runtime", "limbeck_onnx_file", "limbeck_untrained_head"))
"""Keys of a config.json that only limbeck writes."""
PASSING = frozenset((
    "_name_or_path", "architectures", "auto_map", "dtype", "id2label", "label2id", "limbeck", "model_type",
    "num_labels", "problem_type", "torch_dtype", "transformers_version", "use_cache", "gradient_checkpointing",
    "attn_implementation", "_attn_implementation", "experts_implementation", "custom_pipelines",
))  # fmt: skip
"""Keys that each writer of a config.json sets anew."""

_RELATIVES = {
    "bert": (
        "big_bird", "bert-generation", "bros", "canine", "convbert", "deberta", "deberta-v2", "dpr", "esm", "esmc",
        "fnet", "funnel", "layoutlm", "layoutlmv2", "lxmert", "megatron-bert", "mobilebert", "mra", "nezha",
        "nystromformer", "perceiver", "qdqbert", "reformer", "roc_bert", "roformer", "splinter", "squeezebert",
        "tapas", "visual_bert", "yoso",
    ),
    "camembert": ("flaubert",),
    "modernbert": ("eurobert", "gte", "modernbert-decoder", "modernvbert", "neomme", "nomic_bert"),
    "roberta": (
        "bart", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mvp", "roberta-prelayernorm",
        "ultrabert", "ultravbert", "xlnet",
    ),
    "xlm-roberta": ("ernie_m", "jina_embeddings_v3", "mbart", "mluke", "xlm", "xlm-roberta-xl", "xmod"),
}  # fmt: skip
"""Well-known architectures that are not supported, by the closest family that is."""


def read_family(config: Mapping[str, Any], source: object) -> str:
    """Return the family of a Hugging Face configuration.

    Args:
        config: Content of config.json.
        source: What to call the model in errors.

    Raises:
        UnsupportedModel: The architecture, or one of its features, is not supported.
    """
    model_type = config.get("model_type")
    supported = ", ".join(FAMILIES)
    if model_type not in FAMILIES:
        relative = next((family for family, others in _RELATIVES.items() if model_type in others), None)
        advice = f"the closest is '{relative}'" if relative else nearest(model_type, FAMILIES)
        raise UnsupportedModel(
            f"{source}: model_type '{model_type}' is not supported; supported families: {supported}; {advice}"
        )
    required = {key: (None, value) for key, value in FAMILIES[str(model_type)].required.items()}
    for key, allowed in (FEATURES | required).items():
        if config.get(key) not in allowed:
            raise UnsupportedModel(
                f"{source}: config.json has {key} = {config[key]!r}; the {model_type} family is supported with "
                f"{allowed[1]!r} only (supported families: {supported})"
            )
    return str(model_type)


def read_shape(config: Mapping[str, Any], source: object = "model") -> Shape:
    """Read the shape from a Hugging Face configuration (the content of config.json).

    >>> str(read_shape({"model_type": "bert", "hidden_size": 256, "num_attention_heads": 4}))
    '12x256 heads 4 of 64 ffn 3072'
    """
    family = FAMILIES[read_family(config, source)]
    depth, hidden, heads, ffn = (family.value(config, field) for field in ("depth", "hidden", "heads", "ffn"))
    if not heads or hidden % heads:
        raise InputError(f"{source}: hidden size {hidden} is not a multiple of {heads} attention heads")
    shape = Shape.uniform(depth, hidden, heads, ffn)
    return shape.with_attention(*attention_cores(config, depth, source)) if family.local else shape


def read_style(config: Mapping[str, Any], *, per_token: bool = False, source: object = "model") -> Style:
    """Read the style from a Hugging Face configuration.

    Args:
        config: The content of config.json.
        per_token: Whether the head is for token classification.
        source: The model's name, for messages.

    Raises:
        UnsupportedModel: The architecture, one of its features or its activation is not supported.
    """
    name = read_family(config, source)
    family = FAMILIES[name]
    fields = {field.name for field in dataclasses.fields(Style)} & set(family.keys)
    values = {field: family.value(config, field) for field in fields}
    if values["classifier_dropout"] is None or (per_token and name == "distilbert"):
        values["classifier_dropout"] = values["dropout"]
    if values["pad_token_id"] is None:
        values["pad_token_id"] = family.keys["pad_token_id"][1]
    if "token_type" not in family.embeddings:
        values["token_types"] = 0
    offset = values["pad_token_id"] if family.positions_from_padding else None
    if family.position_bias:
        values["relative_heads"] = family.value(config, "heads")
    if family.local:
        values["rotary_theta"] = tuple(rotary_thetas(config, family.value(config, "depth"), source))
    style = Style(**{"family": name, "position_offset": offset, "pooler": family.activation, **values, **family.style})
    check_style(style, source)
    return style


def check_style(style: Style, source: object) -> None:
    """Refuse a style that names an activation or a pooling that does not exist.

    Args:
        style: The style.
        source: The model's name, for the message.

    Raises:
        UnsupportedModel: Names the nearest one.
    """
    from transformers.activations import ACT2FN

    for word, value, choices in (
        ("activation", style.activation, ACT2FN),
        ("activation of the head", style.pooler, ACT2FN),
        ("classifier_pooling", style.pooling, POOLINGS),
    ):
        if value not in choices:
            raise UnsupportedModel(f"{source}: {word} {shown(value)}; {nearest(value, choices)}")


def module_names(name: str, depth: int, *, per_token: bool) -> dict[str, str]:
    """Map our path of every module with weights to the family's.

    Args:
        name: The family.
        depth: Number of layers.
        per_token: Whether the head is for token classification.

    >>> module_names("distilbert", 1, per_token=True)["encoder.layers.0.query"]
    'distilbert.transformer.layer.0.attention.q_lin'
    """
    family = FAMILIES[name]
    names = {f"encoder.embeddings.{ours}": f"{family.prefix}.{path}" for ours, path in family.embeddings.items()}
    if family.position_bias:
        names["encoder.position_bias"] = f"{family.prefix}.{family.position_bias}"
    for index in range(depth):
        for ours, path in family.layer.items():
            names[f"encoder.layers.{index}.{ours}"] = f"{family.prefix}.{family.layer_path(index)}.{path}"
    if family.norm:
        names["encoder.norm"] = f"{family.prefix}.{family.norm}"
    if per_token and not family.style.get("pooler_per_token"):
        return names | {"classifier": "classifier"}
    norm = {"pooler_norm": family.pooler_norm} if family.pooler_norm else {}
    return names | {"pooler": family.pooler} | norm | {"classifier": family.output}


def joined(names: Mapping[str, str]) -> dict[str, list[str]]:
    """Return our modules by the family's: several where the family has one matrix for them, in the order of its rows.

    >>> joined(module_names("modernbert", 1, per_token=True))["model.layers.0.mlp.Wi"]
    ['encoder.layers.0.up', 'encoder.layers.0.gate']
    """
    groups: dict[str, list[str]] = {}
    for ours, path in names.items():
        groups.setdefault(path, []).append(ours)
    return groups


def head_tensors(style: Style, *, per_token: bool) -> tuple[str, ...]:
    """Return the family's names of the tensors of its head.

    >>> head_tensors(Style("distilbert"), per_token=True)
    ('classifier.weight', 'classifier.bias')
    """
    names = module_names(style.family, 0, per_token=per_token)
    pairs = (tensor.rsplit(".", 1) for tensor in our_head_tensors(style, per_token=per_token))
    return tuple(f"{names[path]}.{part}" for path, part in pairs)


def unknown_keys(config: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Return the keys of a config.json that other tools wrote, which a model must keep.

    >>> unknown_keys({"model_type": "bert", "hidden_size": 8, "sentence_transformers": {"version": "5"}}, "bert")
    {'sentence_transformers': {'version': '5'}}
    """
    read = {key for row in (FAMILIES[family], FAMILIES["bert"]) for key, _ in row.keys.values()}
    read |= layer_types.KEYS if FAMILIES[family].local else frozenset()
    return {key: value for key, value in config.items() if key not in read | OURS | PASSING | FEATURES.keys()}


def ragged_layers(shape: Shape, style: Style | None = None) -> list[str]:
    """Return the reasons why a configuration with one width for all layers cannot express a shape, if any.

    Args:
        shape: Shape of the encoder.
        style: How it computes; None for BERT's.

    >>> ragged_layers(Shape.uniform(layers=3, hidden=32, heads=4, ffn=64).with_layer(2, heads=1))
    ['layer 2 has 1 heads of 8, not 32 channels']
    """
    style = style or Style()
    usual = Counter(layer.ffn for layer in shape.layers).most_common(1)[0][0] if shape.layers else 0
    reasons = []
    for index, layer in enumerate(shape.layers):
        if layer.heads * shape.head_dim != shape.hidden:
            reasons.append(f"layer {index} has {layer.heads} heads of {shape.head_dim}, not {shape.hidden} channels")
        if not layer.ffn or layer.ffn != usual:
            reasons.append(f"layer {index} has {layer.ffn} neurons" + (f", others {usual}" if usual else ""))
        if layer.core[0] not in (("softmax", "local") if FAMILIES[style.family].local else ("softmax",)):
            reasons.append(f"layer {index} has {layer.attention} attention")
    if FAMILIES[style.family].local:
        reasons += layer_types.obstacles(shape, style.rotary_theta, style.unnormed_layers)
    return reasons
