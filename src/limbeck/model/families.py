"""Hugging Face architectures and ours: the same weights under other names.

A family is one row of :data:`FAMILIES`: where its modules lie, which keys of its configuration say what, and the
activation of its head. ``read_shape`` and ``read_style`` need the configuration alone, so they also serve the checks
that must answer before torch is imported.

To add a family whose layers are like BERT's (post-norm, absolute positions), add a row; the parity test runs over all
rows. ModernBERT asks for more, and each piece has its place: rotary positions and pre-norm are two new fields of
``encoder.Style`` (the embeddings then have no position table; ``Layer.forward`` normalises before instead of after);
local attention is a core ``window`` in ``attention.CORES``, named per layer by ``LayerShape.attention``; the gated
feed-forward part is an ``up`` of twice the width whose halves are multiplied, with ``LayerShape.ffn`` still counting
neurons so that cutting one takes a row of each half; its linear layers have no bias; its head normalises after the
dense layer. Only then a row here.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.outputs import is_token_classifier
from limbeck.core.shape import LayerShape, Shape
from limbeck.errors import InputError, UnsupportedModel, nearest
from limbeck.model._transformers import explained, quiet
from limbeck.model.classification_head import build, check_finite, head_parts, set_labels

if TYPE_CHECKING:
    from torch import Tensor

    from limbeck.data.task import Kind
    from limbeck.model.encoder import LimbeckForSequenceClassification, Style

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
    two dense layers of the head for whole texts; ``activation`` lies between them.
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

    def value(self, config: Mapping[str, Any], field: str) -> Any:
        """What a configuration says about one of our fields; older spellings of a key count too."""
        key, default = self.keys[field]
        common = _BERT_KEYS[field][0] if field in _BERT_KEYS else key
        return config.get(key, config.get(common, default))


FAMILIES: dict[str, Family] = {
    "bert": Family("bert", pooler="bert.pooler.dense"),
    "roberta": Family(
        "roberta", "classifier.dense", "classifier.out_proj", keys=_ROBERTA_KEYS, positions_from_padding=True
    ),
    "xlm-roberta": Family(
        "roberta", "classifier.dense", "classifier.out_proj", keys=_XLM_KEYS, positions_from_padding=True
    ),
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
}
"""The supported architectures by their ``model_type``."""

FEATURES: Mapping[str, tuple[Any, Any]] = {
    "position_embedding_type": (None, "absolute"),
    "is_decoder": (None, False),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "pruned_heads": (None, {}),
    "quantization_config": (None, {}),
}
"""Keys of a configuration that ask for more than an encoder, and the values that do not."""

SHAPE = ("hidden_size", "head_dim", "layer_heads", "layer_ffn", "layer_attention")
STYLE = (
    "family", "vocab_size", "embedding_size", "max_positions", "token_types", "position_offset", "pad_token_id",
    "activation", "layer_norm_eps", "dropout", "attention_dropout", "classifier_dropout", "pooler", "resplit",
    "projections",
)  # fmt: skip
"""Fields of ``encoder.Style``, which cannot be imported without torch; a test compares them."""
OURS = frozenset((*SHAPE, *STYLE, "space", "limbeck_runtime", "limbeck_onnx_file", "limbeck_untrained_head"))
"""Keys of a config.json that only limbeck writes."""
PASSING = frozenset((
    "_name_or_path", "architectures", "auto_map", "dtype", "id2label", "label2id", "limbeck", "model_type",
    "num_labels", "problem_type", "torch_dtype", "transformers_version", "use_cache", "gradient_checkpointing",
))  # fmt: skip
"""Keys that each writer of a config.json sets anew."""

_RELATIVES = {
    "albert": "bert",
    "camembert": "roberta",
    "convbert": "bert",
    "deberta": "bert",
    "deberta-v2": "roberta",
    "ernie": "bert",
    "mobilebert": "bert",
    "modernbert": "roberta",
    "mpnet": "roberta",
    "nomic_bert": "bert",
    "roberta-prelayernorm": "roberta",
    "xlm": "xlm-roberta",
    "xlm-roberta-xl": "xlm-roberta",
}
"""For known architectures without support, the family a user may turn to."""


def read_family(config: Mapping[str, Any], source: object) -> str:
    """The family of a Hugging Face configuration; UnsupportedModel when there is none, or a feature is beyond it."""
    model_type = config.get("model_type")
    supported = ", ".join(FAMILIES)
    if model_type not in FAMILIES:
        relative = _RELATIVES.get(str(model_type))
        advice = f"the closest is '{relative}'" if relative else nearest(model_type, FAMILIES)
        raise UnsupportedModel(
            f"{source}: model_type '{model_type}' is not supported; supported families: {supported}; {advice}"
        )
    for key, allowed in FEATURES.items():
        if config.get(key) not in allowed:
            raise UnsupportedModel(
                f"{source}: config.json has {key} = {config[key]!r}; the {model_type} family is supported with "
                f"{allowed[1]!r} only (supported families: {supported})"
            )
    return str(model_type)


def read_shape(config: Mapping[str, Any], source: object = "model") -> Shape:
    """Shape of a Hugging Face configuration (the content of config.json).

    >>> str(read_shape({"model_type": "bert", "hidden_size": 256, "num_attention_heads": 4}))
    '12x256 heads 4 of 64 ffn 3072'
    """
    family = FAMILIES[read_family(config, source)]
    depth, hidden, heads, ffn = (family.value(config, field) for field in ("depth", "hidden", "heads", "ffn"))
    if not heads or hidden % heads:
        raise InputError(f"{source}: hidden size {hidden} is not a multiple of {heads} attention heads")
    return Shape.uniform(depth, hidden, heads, ffn)


def read_style(config: Mapping[str, Any], *, per_token: bool = False, source: object = "model") -> Style:
    """Style of a Hugging Face configuration."""
    from transformers.activations import ACT2FN

    from limbeck.model.encoder import Style

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
    return Style(family=name, position_offset=offset, pooler=family.activation, **values)


def module_names(name: str, depth: int, *, per_token: bool) -> dict[str, str]:
    """Our module paths and the family's, for every module with weights.

    >>> module_names("distilbert", 1, per_token=True)["encoder.layers.0.query"]
    'distilbert.transformer.layer.0.attention.q_lin'
    """
    family = FAMILIES[name]
    names = {f"encoder.embeddings.{ours}": f"{family.prefix}.{theirs}" for ours, theirs in family.embeddings.items()}
    for index in range(depth):
        for ours, theirs in family.layer.items():
            names[f"encoder.layers.{index}.{ours}"] = f"{family.prefix}.{family.layers}.{index}.{theirs}"
    if per_token:
        return names | {"classifier": "classifier"}
    return names | {"pooler": family.pooler, "classifier": family.output}


def load_pretrained(
    name_or_path: str | Path,
    *,
    task_kind: Kind | None = None,
    label_names: Sequence[str] | None = None,
    seed: int = 0,
) -> LimbeckForSequenceClassification:
    """Open a Hugging Face checkpoint of a supported family, a folder or a name on the hub, as our model.

    Without ``task_kind`` the checkpoint's own head decides. Parts of a head that are missing, or were trained for other
    labels, are drawn anew from ``seed`` (normal, 0.02), and ``model.fresh_head`` is then True.
    """
    import transformers

    arguments = {"local_files_only": True} if Path(name_or_path).is_dir() else {}
    with quiet(), explained(name_or_path):
        config = transformers.AutoConfig.from_pretrained(name_or_path, **arguments)
    shape = read_shape(config.to_dict(), name_or_path)
    per_token = task_kind == "tokens" if task_kind else is_token_classifier(config.to_dict())
    style = read_style(config.to_dict(), per_token=per_token, source=name_or_path)
    auto = "AutoModelForTokenClassification" if per_token else "AutoModelForSequenceClassification"
    with quiet(), explained(name_or_path):
        theirs, report = getattr(transformers, auto).from_pretrained(
            name_or_path,
            use_safetensors=True,
            dtype="float32",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **arguments,
        )
    _check_sizes(report["mismatched_keys"], name_or_path)
    names = module_names(style.family, shape.depth, per_token=per_token)
    weights = theirs.state_dict()
    for absent in report["missing_keys"]:
        if not (getattr(config, "sinusoidal_pos_embds", False) and "position_embeddings" in absent):
            weights.pop(absent, None)
    check_finite(weights, name_or_path)
    raw, _ = transformers.PretrainedConfig.get_config_dict(name_or_path, **arguments)
    settings = unknown_keys(raw, style.family) | _settings(config, shape, style)
    model = build(settings, _translated(weights, names), per_token=per_token, shape=shape, source=name_or_path)
    head = {path: names[path] for path in head_parts(per_token=per_token)}
    set_labels(model, label_names, task_kind, seed=seed, names=head)
    return model.eval()


def head_tensors(name: str, *, per_token: bool) -> tuple[str, ...]:
    """What a family calls the tensors of its head.

    >>> head_tensors("distilbert", per_token=True)
    ('classifier.weight', 'classifier.bias')
    """
    names = module_names(name, 0, per_token=per_token)
    return tuple(f"{names[path]}.{part}" for path in head_parts(per_token=per_token) for part in ("weight", "bias"))


def _settings(config: Any, shape: Shape, style: Style) -> dict[str, Any]:
    """Keyword arguments of LimbeckConfig for a transformers configuration."""
    labels = {int(index): str(name) for index, name in config.id2label.items()}
    kept = {
        name: getattr(config, name)
        for name in ("bos_token_id", "eos_token_id")
        if isinstance(getattr(config, name, None), int)
    }
    return {
        "hidden_size": shape.hidden,
        "head_dim": shape.head_dim,
        "layer_heads": [layer.heads for layer in shape.layers],
        "layer_ffn": [layer.ffn for layer in shape.layers],
        "id2label": labels,
        "label2id": {name: index for index, name in labels.items()},
        "problem_type": config.problem_type,
        **kept,
        **dataclasses.asdict(style),
    }


def unknown_keys(config: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Keys of a config.json that other tools put there, and that a model must carry along.

    >>> unknown_keys({"model_type": "bert", "hidden_size": 8, "sentence_transformers": {"version": "5"}}, "bert")
    {'sentence_transformers': {'version': '5'}}
    """
    read = {key for row in (FAMILIES[family], FAMILIES["bert"]) for key, _ in row.keys.values()}
    return {key: value for key, value in config.items() if key not in read | OURS | PASSING | FEATURES.keys()}


def _translated(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights under our names; a module that the family may leave out (ELECTRA's projection) is left out."""
    pairs = ((f"{ours}.{part}", f"{theirs}.{part}") for ours, theirs in names.items() for part in ("weight", "bias"))
    return {ours: weights[theirs] for ours, theirs in pairs if theirs in weights}


def _check_sizes(mismatched: Iterable[Any], source: object) -> None:
    """Every weight must have the size that config.json implies; the first that has not is named."""
    for key, found, expected in sorted(mismatched, key=str):
        labels = f"; config.json names {expected[0]} labels" if len(found) and "classifier" in key else ""
        raise InputError(
            f"{source}: '{key}' has shape {list(found)} in the checkpoint but {list(expected)} by config.json{labels}"
        )


def to_transformers(model: LimbeckForSequenceClassification) -> Any:
    """The plain transformers model of the family, with the same logits.

    InputError when its configuration cannot say the shape; the message names the layers that differ.
    """
    import transformers

    shape, style, per_token = model.shape, model.encoder.style, model.per_token
    if not isinstance(shape, Shape):
        shape = Shape(shape.hidden, shape.head_dim, tuple(LayerShape(*layer) for layer in shape.layers))
    family = FAMILIES.get(style.family)
    if family is None:
        raise UnsupportedModel(f"family '{style.family}' is unknown to transformers; {nearest(style.family, FAMILIES)}")
    if reasons := ragged_layers(shape):
        raise InputError(
            f"shape {shape} cannot be a plain {style.family} checkpoint: {'; '.join(reasons)}; "
            "save_model keeps any shape, as a folder that transformers opens too"
        )
    names = module_names(style.family, shape.depth, per_token=per_token)
    weights = model.state_dict()
    if strange := sorted({name.rpartition(".")[0] for name in weights} - set(names)):
        raise InputError(f"a plain {style.family} checkpoint has no place for {', '.join(strange)}")
    config = transformers.AutoConfig.for_model(style.family, **_plain_settings(model, shape, family))
    auto = (
        transformers.AutoModelForTokenClassification if per_token else transformers.AutoModelForSequenceClassification
    )
    with quiet():
        theirs = auto.from_config(config)
    moved = {}
    for name, weight in weights.items():
        path, _, part = name.rpartition(".")
        moved[f"{names[path]}.{part}"] = weight
    theirs.load_state_dict(moved)
    return theirs.eval()


def _plain_settings(model: LimbeckForSequenceClassification, shape: Shape, family: Family) -> dict[str, Any]:
    """Keyword arguments of the family's own configuration class."""
    style = dataclasses.asdict(model.encoder.style)
    values = style | {
        "hidden": shape.hidden,
        "depth": shape.depth,
        "heads": shape.hidden // shape.head_dim,
        "ffn": shape.layers[0].ffn if shape.layers else 4 * shape.hidden,
        "embedding_size": style["embedding_size"] or shape.hidden,
    }
    config: Any = model.config
    settings = {key: values[field] for field, (key, _) in family.keys.items()}
    settings |= {"id2label": dict(config.id2label), "label2id": dict(config.label2id)}
    settings |= unknown_keys(config.to_dict(), model.encoder.style.family)
    return settings | {"problem_type": config.problem_type}


def ragged_layers(shape: Shape) -> list[str]:
    """Why a configuration with one width for all layers cannot say this shape; empty when it can.

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
