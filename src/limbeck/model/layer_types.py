"""Which layers of a family with local attention are local, and the bases of their rotary positions, in config.json.

transformers 5 writes ``layer_types`` and ``rope_parameters``; older configurations of ModernBERT have
``global_attn_every_n_layers``, ``global_rope_theta`` and ``local_rope_theta``. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.core.shape import Shape
from limbeck.errors import InputError, UnsupportedModel, nearest, shown

TYPES = {"full_attention": ("global_rope_theta", 160_000.0), "sliding_attention": ("local_rope_theta", 10_000.0)}
"""Kinds of layers, with the older key of their base and ModernBERT's default."""
KEYS = frozenset(("layer_types", "local_attention", "rope_parameters", "rope_scaling", "global_attn_every_n_layers"))
KEYS |= {key for key, _ in TYPES.values()}
"""Keys of config.json that this file reads and writes."""


def layer_types(config: Mapping[str, Any], depth: int, source: object) -> list[str]:
    """Return the kind of every layer, a key of :data:`TYPES`.

    Args:
        config: Content of config.json.
        depth: Number of layers.
        source: Name of the model in errors.

    Raises:
        InputError: There is not one known kind per layer.
    """
    kinds = config.get("layer_types")
    if kinds is None:
        every = config.get("global_attn_every_n_layers", 3)
        if type(every) is not int or every < 1:
            raise InputError(
                f"{source}: config.json has global_attn_every_n_layers = {shown(every)}; expected 1 or more"
            )
        return ["sliding_attention" if index % every else "full_attention" for index in range(depth)]
    if not isinstance(kinds, list) or len(kinds) != depth:
        raise InputError(
            f"{source}: config.json has layer_types = {shown(kinds)}; expected one for each of {depth} layers"
        )
    for kind in kinds:
        if kind not in TYPES:
            raise UnsupportedModel(f"{source}: config.json has the layer type {shown(kind)}; {nearest(kind, TYPES)}")
    return kinds


def attention_cores(config: Mapping[str, Any], depth: int, source: object) -> list[str]:
    """Return the attention core of every layer.

    Args:
        config: Content of config.json.
        depth: Number of layers.
        source: Name of the model in errors.

    >>> attention_cores({"local_attention": 128}, 4, "model")
    ['softmax', 'local:64', 'local:64', 'softmax']
    """
    window = config.get("local_attention", 128)
    if type(window) is not int or window < 1:
        raise InputError(f"{source}: config.json has local_attention = {shown(window)}; expected 1 or more")
    cores = {"full_attention": "softmax", "sliding_attention": f"local:{window // 2}"}
    return [cores[kind] for kind in layer_types(config, depth, source)]


def rotary_thetas(config: Mapping[str, Any], depth: int, source: object) -> list[float]:
    """Return the base of the rotary positions of every layer.

    Args:
        config: Content of config.json.
        depth: Number of layers.
        source: Name of the model in errors.

    Raises:
        UnsupportedModel: Positions are scaled, or a base is no number above 0.
    """
    thetas, parameters = {}, config.get("rope_parameters") or {}
    if config.get("rope_scaling"):
        raise UnsupportedModel(f"{source}: config.json has rope_scaling; rotary positions are supported unscaled only")
    for kind, (older, usual) in TYPES.items():
        entry = (parameters.get(kind) if isinstance(parameters, Mapping) else None) or {}
        name = entry.get("rope_type", "default")
        theta = entry.get("rope_theta", config.get(older, usual))
        if name != "default" or type(theta) not in (int, float) or not theta > 0:
            raise UnsupportedModel(
                f"{source}: config.json has rotary positions of type {shown(name)} with base {shown(theta)} for "
                f"{kind}; supported is type 'default' with a base above 0"
            )
        thetas[kind] = float(theta)
    return [thetas[kind] for kind in layer_types(config, depth, source)]


def obstacles(shape: Shape, thetas: Sequence[float], unnormed: Sequence[int]) -> list[str]:
    """Return why a configuration cannot describe which layers are local, and their positions; empty if it can.

    Args:
        shape: Shape of the encoder.
        thetas: Base of the rotary positions of each layer.
        unnormed: Layers whose attention has no norm; the first in the family.
    """
    reasons = []
    for kind in ("softmax", "local"):
        layers = [index for index, layer in enumerate(shape.layers) if layer.core[0] == kind]
        if len({(shape.layers[index].core[1], thetas[min(index, len(thetas) - 1)]) for index in layers}) > 1:
            reasons.append(f"layers with {kind} attention differ in window or rotary base")
    if list(unnormed) != [0]:
        reasons.append("the first layer alone must have no norm before its attention")
    return reasons


def keys_of(shape: Shape, thetas: Sequence[float]) -> dict[str, Any]:
    """Return the keys of config.json for a shape that has no :func:`obstacles`.

    Args:
        shape: Shape of the encoder.
        thetas: Base of the rotary positions of each layer.
    """
    names = {"softmax": "full_attention", "local": "sliding_attention"}
    kinds = [names[layer.core[0]] for layer in shape.layers]
    bases = {kind: usual for kind, (_, usual) in TYPES.items()} | dict(zip(kinds, thetas, strict=False))
    sizes = [layer.core[1] for layer in shape.layers if layer.core[0] == "local"]
    return {
        "layer_types": kinds,
        "local_attention": max(1, 2 * sizes[0]) if sizes else 128,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
    }
