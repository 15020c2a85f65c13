"""Hugging Face architectures and ours: the same weights under other names.

The table of families is in ``family_table.py``. ``read_shape`` and ``read_style`` need only the configuration, so they
also serve checks that run before torch is imported.
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
from limbeck.model.family_table import FAMILIES
from limbeck.model.layer_types import attention_cores, rotary_thetas
from limbeck.model.style import Style

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
ACTIVATIONS = frozenset({"gelu", "gelu_new", "relu", "silu", "tanh"})
"""Usual activations: models that name them are checked without importing transformers and torch."""
LEARNED_ACTIVATIONS = ("prelu", "xielu")
"""Activations with weights of their own, which the encoder has no place for."""
ONE_DROPOUT = ("mpnet", "roformer", "megatron-bert")
"""Families whose heads have the dropout of hidden states; they read no other."""
TOKENS_LIKE_STATES = ("distilbert", "deberta-v2")
"""Families of which this holds for token classification."""
SHAPE = ("hidden_size", "head_dim", "layer_heads", "layer_ffn", "layer_attention", "layer_tokens")
STYLE = tuple(field.name for field in dataclasses.fields(Style))
OURS = frozenset((
    *SHAPE, *STYLE, "space", "early_exits", "cascade", "limbeck_runtime", "limbeck_onnx_file",
    "limbeck_untrained_head",
))  # fmt: skip
"""Keys of a config.json that only limbeck writes."""
PASSING = frozenset((
    "_name_or_path", "architectures", "auto_map", "dtype", "id2label", "label2id", "limbeck", "model_type",
    "num_labels", "problem_type", "torch_dtype", "transformers_version", "use_cache", "gradient_checkpointing",
    "attn_implementation", "_attn_implementation", "experts_implementation", "custom_pipelines",
))  # fmt: skip
"""Keys that each writer of a config.json sets anew."""

_RELATIVES = {
    "bert": (
        "big_bird", "bert-generation", "bros", "canine", "convbert", "dpr", "esm", "esmc", "fnet", "funnel", "layoutlm",
        "layoutlmv2", "lxmert", "mobilebert", "mra", "nezha", "nystromformer", "perceiver", "qdqbert", "reformer",
        "roc_bert", "splinter", "squeezebert",
        "tapas", "visual_bert", "yoso",
    ),
    "camembert": ("flaubert",),
    "deberta-v2": ("deberta",),
    "modernbert": ("eurobert", "gte", "modernbert-decoder", "modernvbert", "neobert", "neomme", "new", "nomic_bert"),
    "roberta": (
        "bart", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mvp", "ultrabert", "ultravbert",
        "xlnet",
    ),
    "xlm-roberta": ("ernie_m", "jina_embeddings_v3", "mbart", "mluke", "xlm", "xmod"),
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
        remote = config.get("auto_map") and not _is_known(str(model_type))
        code = " and needs code from its author, which limbeck does not run" if remote else ""
        raise UnsupportedModel(
            f"{source}: model_type '{model_type}' is not supported{code}; supported families: {supported}; {advice}"
        )
    required = {key: (None, value) for key, value in FAMILIES[str(model_type)].required.items()}
    unread = () if FAMILIES[str(model_type)].style.get("absolute_positions", True) else ("position_embedding_type",)
    for key, allowed in (FEATURES | required).items():
        if key not in unread and config.get(key) not in allowed:  # mmBERT, a ModernBERT, has 'sans_pos'
            raise UnsupportedModel(
                f"{source}: config.json has {key} = {shown(config[key])}; the {model_type} family is supported with "
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
    if values["classifier_dropout"] is None or name in ONE_DROPOUT or (per_token and name in TOKENS_LIKE_STATES):
        values["classifier_dropout"] = values["dropout"]
    if values["pad_token_id"] is None:
        values["pad_token_id"] = family.keys["pad_token_id"][1]
    if "token_type" not in family.embeddings:
        values["token_types"] = 0
    if values.get("embedding_size") == family.value(config, "hidden"):
        values["embedding_size"] = None  # stands for the encoder's width
    offset = values["pad_token_id"] if family.positions_from_padding else None
    if "position_bias" in family.modules:
        values["relative_heads"] = family.value(config, "heads")
    if family.local:
        values["rotary_theta"] = tuple(rotary_thetas(config, family.value(config, "depth"), source))
    if family.dialect is not None:
        values |= family.dialect.read(config, source)
    style = Style(**{"family": name, "position_offset": offset, "pooler": family.activation, **values, **family.style})
    check_style(style, source)
    return style


def _is_known(model_type: str) -> bool:
    """Return whether transformers has the code of an architecture."""
    from transformers import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


def check_style(style: Style, source: object) -> None:
    """Refuse a style that names an activation or a pooling that does not exist, or an activation with weights.

    Args:
        style: The style.
        source: The model's name, for the message.

    Raises:
        UnsupportedModel: Names the nearest one.
    """
    for word, value in (("activation", style.activation), ("activation of the head", style.pooler)):
        if value not in ACTIVATIONS:
            from transformers.activations import ACT2FN

            if value not in ACT2FN:
                raise UnsupportedModel(f"{source}: {word} {shown(value)}; {nearest(value, ACT2FN)}")
            if value in LEARNED_ACTIVATIONS:
                raise UnsupportedModel(f"{source}: {word} {shown(value)} has weights of its own, which cannot be read")
    if style.pooling not in POOLINGS:
        raise UnsupportedModel(
            f"{source}: classifier_pooling {shown(style.pooling)}; {nearest(style.pooling, POOLINGS)}"
        )


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
    read = FAMILIES[family].config_keys | FAMILIES["bert"].config_keys
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
        if layer.tokens < 1:
            reasons.append(f"layer {index} passes on {layer.tokens:g} of the tokens")
    if style.embedding_norm != FAMILIES[style.family].style.get("embedding_norm", True):
        reasons.append("the norm of the embeddings is part of their table")
    if FAMILIES[style.family].local:
        reasons += layer_types.obstacles(shape, style.rotary_theta, style.unnormed_layers)
    biases = [bias_columns(shape, style, index) for index in range(shape.depth)]
    others = [index for index, columns in enumerate(biases) if columns != biases[0]]
    return reasons + [
        f"layer {index} has the position biases of heads {biases[index]}, layer 0 those of {biases[0]}"
        for index in others
    ]


def bias_columns(shape: Shape, style: Style, index: int) -> list[int]:
    """Return the columns of the table of position biases that a layer takes, in their order; empty without a table.

    Args:
        shape: Shape of the encoder.
        style: How it computes.
        index: Number of the layer.
    """
    if not style.relative_buckets:
        return []
    given = style.position_heads[index] if index < len(style.position_heads) else ()
    columns = list(given) or list(range(style.relative_heads))
    return sorted(columns[head % len(columns)] for head in range(shape.layers[index].heads))
