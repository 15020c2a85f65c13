"""The values of a config.json, checked before anything is built from them: types, bounds, and names of code."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from limbeck.errors import InputError, UnsupportedModel, shown
from limbeck.model.family_table import FAMILIES
from limbeck.model.style import Style

MOST_LAYERS, WIDEST = 1000, 1 << 20
WHOLE: Mapping[str, tuple[int, int]] = {
    "hidden_size": (1, WIDEST), "dim": (1, WIDEST), "head_dim": (1, WIDEST),
    "num_hidden_layers": (1, MOST_LAYERS), "n_layers": (1, MOST_LAYERS),
    "num_attention_heads": (1, WIDEST), "n_heads": (1, WIDEST),
    "intermediate_size": (1, WIDEST), "hidden_dim": (1, WIDEST),
    "vocab_size": (1, 1 << 24), "max_position_embeddings": (1, 1 << 24), "max_positions": (1, 1 << 24),
    "type_vocab_size": (0, 1 << 16), "token_types": (0, 1 << 16), "num_labels": (0, 1 << 20),
    "pad_token_id": (0, 1 << 24), "position_offset": (0, 1 << 24), "embedding_size": (1, WIDEST),
    "local_attention": (1, 1 << 24), "global_attn_every_n_layers": (1, MOST_LAYERS),
}  # fmt: skip
"""Keys that hold whole numbers, of limbeck and of every family, with the least and the largest value."""
FRACTIONS = (
    "layer_norm_eps", "dropout", "attention_dropout", "classifier_dropout", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "seq_classif_dropout", "norm_eps", "mlp_dropout",
    "embedding_dropout", "attention_output_dropout", "pooler_dropout", "cls_dropout", "classifier_dropout_prob",
)  # fmt: skip
"""Keys that hold a number from 0, below 1."""
MAY_BE_NULL = frozenset(
    (
        "pad_token_id",
        "position_offset",
        "embedding_size",
        "classifier_dropout",
        "seq_classif_dropout",
        "num_labels",
        "embedding_dropout",
        "attention_output_dropout",
        "pooler_dropout",
        "cls_dropout",
        "classifier_dropout_prob",
    )
)
TEXTS = (
    "model_type", "hidden_act", "activation", "family", "pooler", "projections", "limbeck_runtime", "hidden_activation",
    "classifier_activation", "classifier_pooling", "pooling", "ffn_dropout",
)  # fmt: skip
SWITCHES = (
    "resplit", "is_decoder", "is_encoder_decoder", "add_cross_attention", "norm_first", "norm_bias", "attention_bias",
    "ffn_bias", "mlp_bias", "classifier_bias", "gated", "absolute_positions", "embedding_norm", "pooler_bias",
    "pooler_norm", "pooler_per_token",
)  # fmt: skip
LISTS = {
    "layer_heads": int, "layer_ffn": int, "layer_attention": str, "architectures": str, "layer_types": str,
    "unnormed_layers": int, "rotary_theta": float, "layer_tokens": float,
}  # fmt: skip
KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation")
"""Keys that can name code on the hub, as 'owner/name'."""
OF_ANY_MODEL = frozenset(("model_type", "architectures", "num_labels", *KERNELS))
"""Keys that mean the same in every architecture; transformers reads the others of those that limbeck does not open."""


def check_config(config: Mapping[str, Any], source: object) -> None:
    """Refuse values that no model has; keys that are not known here are left to their readers.

    Args:
        config: Content of a config.json.
        source: Name of the model in errors.

    Raises:
        InputError: Names the key, its value and what is expected.
        UnsupportedModel: The model needs code from the hub.
    """
    model_type = config.get("model_type")
    is_other = isinstance(model_type, str) and model_type != "limbeck" and model_type not in FAMILIES
    checked = OF_ANY_MODEL if is_other else {*WHOLE, *FRACTIONS, *TEXTS, *SWITCHES, *LISTS, *KERNELS}
    for key in sorted(config.keys() & checked):
        value = config[key]
        if key in KERNELS:
            _check_kernel(key, value, source)
        elif value is None and (key in MAY_BE_NULL or key in LISTS or key in KERNELS or key in SWITCHES):
            continue
        elif expected := _expected(key, value):
            raise InputError(f"{source}: config.json has {key} = {shown(value)}; expected {expected}")
    if is_other:
        return
    if model_type == "limbeck":
        _check_style(config, source)
    padding, rows = config.get("pad_token_id"), config.get("vocab_size")
    if padding is not None and rows is not None and padding >= rows:
        raise InputError(f"{source}: config.json has pad_token_id = {padding}, and vocab_size = {rows}")


def _check_style(config: Mapping[str, Any], source: object) -> None:
    """Check that all that a configuration of ours says of the style has the form that :class:`Style` declares."""
    declared = {field.name: config[field.name] for field in fields(Style) if field.name in config}
    try:
        TypeAdapter(Style).validate_json(json.dumps(declared), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        fault = f"config.json has {key} = {shown(config[key])}: {first['msg']}"
        raise InputError(f"{source}: {fault}") from error


def _expected(key: str, value: object) -> str:
    """Return what a key should hold, in words; empty if it holds that."""
    if key in WHOLE:
        low, high = WHOLE[key]
        fits = type(value) is int and low <= value <= high
        return "" if fits else f"a whole number from {low} to {high:,}"
    if key in FRACTIONS:
        fits = type(value) in (int, float) and math.isfinite(value) and 0 <= value < 1  # type: ignore[arg-type, operator]
        return "" if fits else "a number from 0, below 1"
    if key in TEXTS:
        return "" if isinstance(value, str) and len(value) <= 200 else "a name"
    if key in SWITCHES:
        return "" if isinstance(value, bool) else "true or false"
    return _expected_list(LISTS[key], value)


def _expected_list(kind: type, value: object) -> str:
    if kind is str:
        return "" if _all_of(value, str) else "a list of names"
    if kind is float:
        numbers = isinstance(value, list) and len(value) <= MOST_LAYERS and all(map(_is_base, value))
        return "" if numbers else f"a list of at most {MOST_LAYERS} numbers above 0, one per layer"
    fits = _all_of(value, int) and all(0 <= number <= WIDEST for number in value)  # type: ignore[attr-defined]
    return "" if fits else f"a list of at most {MOST_LAYERS} whole numbers, one per layer"


def _is_base(number: object) -> bool:
    return type(number) in (int, float) and 0 < number < math.inf  # type: ignore[operator]


def _all_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and len(value) <= MOST_LAYERS and all(type(item) is kind for item in value)


def _check_kernel(key: str, value: object, source: object) -> None:
    names: Iterable[object] = value.values() if isinstance(value, Mapping) else (value,)
    for name in names:
        if name is not None and not (isinstance(name, str) and name.replace("_", "").isalnum()):
            raise UnsupportedModel(
                f"{source}: config.json has {key} = {shown(value)}, code that would be fetched; limbeck runs "
                "no code but its own and that of transformers: remove the key"
            )
