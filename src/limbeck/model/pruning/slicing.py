"""What to keep of every layer, and the surgery that keeps just that: exact for heads, neurons and layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.shape import Shape
from limbeck.model.layout import shape_config

if TYPE_CHECKING:
    from limbeck.model.configuration import LimbeckConfig
    from limbeck.model.encoder import Encoder, LimbeckForSequenceClassification
    from limbeck.model.layers import Layer


@dataclass(frozen=True)
class Scores:
    """Importance of every head and neuron (one array a layer) and of every layer; more is more important.

    Heads and neurons share a unit where a criterion says so; only then can one budget weigh them.
    """

    heads: tuple[np.ndarray, ...]
    ffn: tuple[np.ndarray, ...]
    layers: np.ndarray

    @property
    def orders(self) -> RemovalOrders:
        """The least important goes first, and what is lost adds up."""
        return RemovalOrders(tuple(map(RemovalOrder.of, self.heads)), tuple(map(RemovalOrder.of, self.ffn)))


@dataclass(frozen=True)
class RemovalOrder:
    """Heads or neurons of a layer in the order in which they go, and what is lost when so many have gone.

    ``lost`` begins with 0 for none, so it is one longer than ``parts``.

    >>> order = RemovalOrder.of(np.array([3.0, 1.0, 2.0]))
    >>> order.parts, order.remaining(2), order.loss(1)
    ((1, 2, 0), (0, 2), 3.0)
    """

    parts: tuple[int, ...]
    lost: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray) -> RemovalOrder:
        """Order parts by additive scores; of equal ones the first stays longest."""
        order = np.argsort(-scores, kind="stable")[::-1]
        return cls(tuple(int(i) for i in order), np.concatenate([[0.0], np.cumsum(scores[order])]))

    def remaining(self, count: int) -> tuple[int, ...]:
        """Return the indices of the ``count`` parts that stay longest, ascending."""
        return tuple(sorted(self.parts[len(self.parts) - count :]))

    def loss(self, count: int) -> float:
        """Return what is lost when ``count`` parts stay."""
        return float(self.lost[len(self.parts) - count])


@dataclass(frozen=True)
class RemovalOrders:
    """The order of heads and that of neurons in every layer; where losses share a unit, one budget can weigh them."""

    heads: tuple[RemovalOrder, ...]
    ffn: tuple[RemovalOrder, ...]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return everything as arrays of numbers, by name."""
        arrays = {}
        for name, orders in (("heads", self.heads), ("ffn", self.ffn)):
            for index, order in enumerate(orders):
                arrays[f"{name}-{index}-parts"] = np.array(order.parts, dtype=np.int64)
                arrays[f"{name}-{index}-lost"] = order.lost
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> RemovalOrders:
        """Invert :meth:`to_arrays`."""

        def order(name: str, index: int) -> RemovalOrder:
            parts, lost = (arrays[f"{name}-{index}-{what}"] for what in ("parts", "lost"))
            return RemovalOrder(tuple(parts.tolist()), np.array(lost))

        depth = len(arrays) // 4
        return cls(*(tuple(order(name, index) for index in range(depth)) for name in ("heads", "ffn")))


@dataclass(frozen=True)
class Cut:
    """Indices kept: of layers, and of heads and neurons of each kept layer, ascending.

    Two layers of four heads and six neurons; the second keeps half of each:

    >>> cut = Cut(layers=(0, 1), heads=((0, 1, 2, 3), (1, 2)), ffn=((0, 1, 2, 3, 4, 5), (0, 2, 5)))
    >>> str(cut.shape(Shape.uniform(layers=2, hidden=8, heads=4, ffn=6)))
    '2x8 heads 4,2 of 2 ffn 6,3'
    """

    layers: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    ffn: tuple[tuple[int, ...], ...]

    @classmethod
    def everything(cls, shape: Shape) -> Cut:
        """Return the cut that keeps all."""
        return cls(
            tuple(range(shape.depth)),
            tuple(tuple(range(layer.heads)) for layer in shape.layers),
            tuple(tuple(range(layer.ffn)) for layer in shape.layers),
        )

    @classmethod
    def whole_layers(cls, shape: Shape, layers: Sequence[int]) -> Cut:
        """Return the cut that keeps these layers as they are."""
        full = cls.everything(shape)
        return cls(tuple(layers), tuple(full.heads[i] for i in layers), tuple(full.ffn[i] for i in layers))

    @classmethod
    def best(cls, orders: RemovalOrders, shape: Shape) -> Cut:
        """Keep the last to go of every layer, as many heads and neurons as ``shape`` (of the same depth) has."""
        return cls(
            tuple(range(shape.depth)),
            tuple(order.remaining(layer.heads) for order, layer in zip(orders.heads, shape.layers, strict=True)),
            tuple(order.remaining(layer.ffn) for order, layer in zip(orders.ffn, shape.layers, strict=True)),
        )

    def shape(self, before: Shape) -> Shape:
        """Return the shape after this cut."""
        rows = zip(self.layers, self.heads, self.ffn, strict=True)
        layers = (replace(before.layers[i], heads=len(heads), ffn=len(ffn)) for i, heads, ffn in rows)
        return Shape(before.hidden, before.head_dim, tuple(layers))


def columns(heads: Sequence[int], head_dim: int) -> Tensor:
    """Return the channels of the given heads."""
    return torch.tensor([h * head_dim + c for h in heads for c in range(head_dim)], dtype=torch.long)


def _take(layer: nn.Linear, dim: int, index: Tensor) -> nn.Linear:
    taken = nn.Linear(1, 1, bias=layer.bias is not None)
    taken.weight = nn.Parameter(layer.weight.detach().index_select(dim, index).clone())
    if layer.bias is not None:
        bias = layer.bias.detach()
        taken.bias = nn.Parameter((bias.index_select(0, index) if dim == 0 else bias).clone())
    taken.out_features, taken.in_features = taken.weight.shape
    return taken


def take_heads(layer: Layer, heads: Sequence[int]) -> None:
    """Keep what a layer has for each head besides its channels, for these heads in this order.

    These are length projections, where every head has its own, and the columns of the table of position biases.
    """

    def taken(lengths: nn.Parameter | None) -> nn.Parameter | None:
        if lengths is None or lengths.dim() != 3:
            return lengths
        index = torch.tensor(heads, dtype=torch.long, device=lengths.device)
        return nn.Parameter(lengths.detach().index_select(0, index).clone())

    layer.key_lengths, layer.value_lengths = taken(layer.key_lengths), taken(layer.value_lengths)
    if layer.position_heads:
        layer.position_heads = tuple(layer.position_heads[head] for head in heads)


def slice_to(model: LimbeckForSequenceClassification, cut: Cut) -> LimbeckForSequenceClassification:
    """Cut the model in place; its outputs equal those of the model whose other heads and neurons are masked."""
    encoder = model.encoder
    before: Shape = model.shape
    layers = []
    for index, heads, ffn in zip(cut.layers, cut.heads, cut.ffn, strict=True):
        layer = encoder.layers[index]
        channels = columns(heads, before.head_dim).to(layer.down.weight.device)
        neurons = torch.tensor(ffn, dtype=torch.long, device=channels.device)
        for part in layer.head_inputs:
            setattr(layer, part, _take(getattr(layer, part), 0, channels))
        layer.attention_out = _take(layer.attention_out, 1, channels)
        take_heads(layer, heads)
        layer.up, layer.down = _take(layer.up, 0, neurons), _take(layer.down, 1, neurons)
        layer.gate = None if layer.gate is None else _take(layer.gate, 0, neurons)
        layers.append(layer)
    encoder.layers = nn.ModuleList(layers)  # type: ignore[assignment]
    set_shape(model, cut.shape(before))
    _take_shared_lengths(encoder, model.shape)
    return model


def _take_shared_lengths(encoder: Encoder, shape: Shape) -> None:
    """Cut the length projection that layers share to the largest size that a remaining layer uses."""
    if encoder.lengths is not None:
        cores = [row.core for row in shape.layers]
        most = max((size for name, size in cores if name == "linformer"), default=0)
        encoder.lengths = nn.Parameter(encoder.lengths.detach()[:, :most].clone()) if most else None


def set_shape(model: LimbeckForSequenceClassification, shape: Shape) -> None:
    """Set the shape of encoder and configuration."""
    model.encoder.shape = shape
    write_shape(model.config, shape)
    write_layer_style(model)


def write_layer_style(model: LimbeckForSequenceClassification) -> None:
    """Write into the configuration what of its style differs by layer, and so changes when layers or heads move.

    Position biases by head are left out while every layer takes them in order.
    """
    layers = model.encoder.layers
    rows = [list(layer.position_heads) for layer in layers]
    in_order = list(range(model.config.relative_heads))
    model.config.position_heads = [] if all(row == in_order for row in rows) else rows
    model.config.rotary_theta = [layer.rotary_theta for layer in layers if layer.rotary_theta is not None]
    model.config.unnormed_layers = [index for index, layer in enumerate(layers) if layer.attention_norm is None]


def write_shape(config: LimbeckConfig, shape: Shape) -> LimbeckConfig:
    """Write a shape into a configuration, and return the configuration."""
    vars(config).pop("layer_tokens", None)
    for key, value in shape_config(shape).items():
        setattr(config, key, value)
    if config.embedding_size == shape.hidden:
        config.embedding_size = None
    config.position_heads = [
        list(row[: layer.heads]) for row, layer in zip(config.position_heads, shape.layers, strict=False)
    ]
    return config
