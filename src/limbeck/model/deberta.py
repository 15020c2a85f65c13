"""DeBERTa-v2 and DeBERTa-v3: what their configuration says about positions, in the fields of a style and back.

A key that is absent means what it means to transformers' own class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.errors import InputError, UnsupportedModel, shown

TERMS = ("c2p", "p2c")
KEYS = frozenset((
    "relative_attention", "pos_att_type", "share_att_key", "position_buckets", "max_relative_positions", "norm_rel_ebd",
    "position_biased_input", "pooler_hidden_size", "attention_head_size",
))  # fmt: skip


def read(config: Mapping[str, Any], source: object = "model") -> dict[str, Any]:
    """Return the fields of a style that a config.json describes.

    >>> read({"relative_attention": True, "pos_att_type": "p2c|c2p", "position_buckets": 256})["pos_att_type"]
    ('c2p', 'p2c')

    Args:
        config: Content of config.json.
        source: What to call the model in errors.

    Raises:
        UnsupportedModel: The model needs an option that is not supported.
    """
    relative, terms = config.get("relative_attention", False), _terms(config.get("pos_att_type"), source)
    if bool(relative) != bool(terms):
        raise UnsupportedModel(
            f"{source}: config.json has relative_attention = {shown(relative)} and pos_att_type = "
            f"{shown(list(terms))}; supported is true with c2p, p2c or both, or false with neither"
        )
    hidden, heads = config.get("hidden_size", 1536), config.get("num_attention_heads", 24)
    for key, expected in (("attention_head_size", hidden // (heads or 1)), ("pooler_hidden_size", hidden)):
        if config.get(key) not in (None, expected):
            raise UnsupportedModel(
                f"{source}: config.json has {key} = {shown(config[key])}; supported is {expected} only"
            )
    size = config.get("embedding_size") or hidden
    fields = {
        "embedding_size": None if size == hidden else size,
        "project_before_norm": size != hidden,
        "masks_queries": True,
        "absolute_positions": bool(config.get("position_biased_input", True)),
    }
    if not terms:
        return fields
    largest = _number(config, "max_relative_positions", source)
    norm = str(config.get("norm_rel_ebd", "none")).lower().split("|")
    return fields | {
        "pos_att_type": terms,
        "share_att_key": bool(config.get("share_att_key", False)),
        "position_buckets": max(_number(config, "position_buckets", source), 0),
        "max_relative_positions": largest if largest >= 1 else config.get("max_position_embeddings", 512),
        "relative_norm": "layer_norm" in [part.strip() for part in norm],
    }


def write(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of config.json for values of our fields; a style and the width ``hidden``."""
    terms = list(values.get("pos_att_type", ()))
    return {
        "relative_attention": bool(terms),
        "pos_att_type": terms,
        "share_att_key": bool(values.get("share_att_key")),
        "position_buckets": values.get("position_buckets") or -1,
        "max_relative_positions": values.get("max_relative_positions") or -1,
        "norm_rel_ebd": "layer_norm" if values.get("relative_norm") else "none",
        "position_biased_input": values.get("absolute_positions", True),
        "pooler_hidden_size": values["hidden"],
    }


def _number(config: Mapping[str, Any], key: str, source: object) -> int:
    value = config.get(key, -1)
    if type(value) is not int or abs(value) > 1 << 24:
        raise InputError(f"{source}: config.json has {key} = {shown(value)}; expected a whole number, or -1 for none")
    return value


def _terms(value: object, source: object) -> tuple[str, ...]:
    """Return the terms of attention to positions in the order of :data:`TERMS`."""
    parts = (
        value.lower().split("|") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    )
    names = [str(part).strip() for part in parts if part is not None]
    if strange := [name for name in names if name not in TERMS]:
        raise UnsupportedModel(
            f"{source}: config.json has pos_att_type {shown(strange[0])}; supported are {', '.join(TERMS)}"
        )
    return tuple(term for term in TERMS if term in names)
