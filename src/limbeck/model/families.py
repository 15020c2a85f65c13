"""Hugging Face architectures and ours: the same weights under other names.

A family is one row of :data:`FAMILIES`: the paths of its modules, the keys of its configuration, and the activation of
its head. ``read_shape`` and ``read_style`` need only the configuration, so they also serve checks that run before
torch is imported.

To add a family whose layers are like BERT's (post-norm, absolute positions), add a row; the parity test runs over all
rows. ModernBERT needs more: rotary positions and pre-norm as two new fields of :class:`~limbeck.model.style.Style`
(the embeddings then have no position table; ``Layer.forward`` normalises before instead of after); local attention as
a core ``window`` in ``attention.CORES``, named per layer by ``LayerShape.attention``; the gated feed-forward part as an
``up`` of twice the width whose halves are multiplied, with ``LayerShape.ffn`` still counting neurons, so that removing
one takes a row of each half; linear layers without bias; a head that normalises after the dense layer. Then a row here.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from limbeck.core.shape import Shape
from limbeck.errors import InputError, UnsupportedModel, nearest
from limbeck.model import deberta
from limbeck.model.classification_head import head_parts
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
    encoder has besides embeddings and layers. ``required``: keys with one supported value. ``dialect``: keys of the
    configuration that do not hold one field each, if there are some.
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
    required: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dialect: Dialect | None = None

    def value(self, config: Mapping[str, Any], field: str) -> Any:
        """Return a configuration's value of one of our fields, of whatever JSON type; BERT's spelling counts too."""
        key, default = self.keys[field]
        common = _BERT_KEYS[field][0] if field in _BERT_KEYS else key
        return config.get(key, config.get(common, default))

    def standard_keys(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the family's keys of config.json for values of our fields, of those that are there."""
        keys = {key: values[field] for field, (key, _) in self.keys.items() if field in values}
        return keys if self.dialect is None else keys | self.dialect.write(values)

    @property
    def config_keys(self) -> frozenset[str]:
        """The keys of config.json that this family reads."""
        return frozenset(key for key, _ in self.keys.values()) | (self.dialect.keys if self.dialect else frozenset())


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
        modules={"relative_positions": "encoder.rel_embeddings", "relative_norm": "encoder.LayerNorm"},
        required={"conv_kernel_size": 0},
        dialect=Dialect(deberta.KEYS, deberta.read, deberta.write),
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
    "albert": "bert",
    "convbert": "bert",
    "deberta": "deberta-v2",
    "mobilebert": "bert",
    "modernbert": "roberta",
    "nomic_bert": "bert",
    "roberta-prelayernorm": "roberta",
    "xlm": "xlm-roberta",
    "xlm-roberta-xl": "xlm-roberta",
}
"""The closest supported family of well-known architectures that are not supported."""


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
        relative = _RELATIVES.get(str(model_type))
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
    return Shape.uniform(depth, hidden, heads, ffn)


def read_style(config: Mapping[str, Any], *, per_token: bool = False, source: object = "model") -> Style:
    """Read the style from a Hugging Face configuration.

    Args:
        config: The content of config.json.
        per_token: Whether the head is for token classification.
        source: The model's name, for messages.

    Raises:
        UnsupportedModel: The architecture, one of its features or its activation is not supported.
    """
    from transformers.activations import ACT2FN

    name = read_family(config, source)
    family = FAMILIES[name]
    fields = {field.name for field in dataclasses.fields(Style)} & set(family.keys)
    values = {field: family.value(config, field) for field in fields}
    if values["activation"] not in ACT2FN:
        raise UnsupportedModel(
            f"{source}: activation {values['activation']!r}; {nearest(values['activation'], ACT2FN)}"
        )
    if values["classifier_dropout"] is None or (per_token and name == "distilbert"):
        values["classifier_dropout"] = values["dropout"]
    if values["pad_token_id"] is None:
        values["pad_token_id"] = family.keys["pad_token_id"][1]
    if "token_type" not in family.embeddings:
        values["token_types"] = 0
    offset = values["pad_token_id"] if family.positions_from_padding else None
    if "position_bias" in family.modules:
        values["relative_heads"] = family.value(config, "heads")
    if family.dialect is not None:
        values |= family.dialect.read(config, source)
    values = {"pooler": family.activation} | values
    return Style(family=name, position_offset=offset, **values)


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
    names |= {f"encoder.{ours}": f"{family.prefix}.{path}" for ours, path in family.modules.items()}
    for index in range(depth):
        for ours, path in family.layer.items():
            names[f"encoder.layers.{index}.{ours}"] = f"{family.prefix}.{family.layers}.{index}.{path}"
    if per_token:
        return names | {"classifier": "classifier"}
    return names | {"pooler": family.pooler, "classifier": family.output}


def head_tensors(name: str, *, per_token: bool) -> tuple[str, ...]:
    """Return a family's names of the tensors of its head.

    >>> head_tensors("distilbert", per_token=True)
    ('classifier.weight', 'classifier.bias')
    """
    names = module_names(name, 0, per_token=per_token)
    return tuple(f"{names[path]}.{part}" for path in head_parts(per_token=per_token) for part in ("weight", "bias"))


def unknown_keys(config: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Return the keys of a config.json that other tools wrote, which a model must keep.

    >>> unknown_keys({"model_type": "bert", "hidden_size": 8, "sentence_transformers": {"version": "5"}}, "bert")
    {'sentence_transformers': {'version': '5'}}
    """
    read = FAMILIES[family].config_keys | FAMILIES["bert"].config_keys
    return {key: value for key, value in config.items() if key not in read | OURS | PASSING | FEATURES.keys()}


def ragged_layers(shape: Shape) -> list[str]:
    """Return the reasons why a configuration with one width for all layers cannot express a shape, if any.

    >>> ragged_layers(Shape.uniform(layers=3, hidden=32, heads=4, ffn=64).with_layer(2, heads=1))
    ['layer 2 has 1 heads of 8, not 32 channels']
    """
    usual = Counter(layer.ffn for layer in shape.layers).most_common(1)[0][0] if shape.layers else 0
    reasons = []
    for index, layer in enumerate(shape.layers):
        if layer.heads * shape.head_dim != shape.hidden:
            reasons.append(f"layer {index} has {layer.heads} heads of {shape.head_dim}, not {shape.hidden} channels")
        if not layer.ffn or layer.ffn != usual:
            reasons.append(f"layer {index} has {layer.ffn} neurons" + (f", others {usual}" if usual else ""))
        if layer.attention != "softmax":
            reasons.append(f"layer {index} has {layer.attention} attention")
    return reasons
