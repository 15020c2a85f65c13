"""Slices of a model as models of their own, and orders of its parts in which slices keep what matters.

A slice takes the leading layers, the leading channels of the hidden states, of every layer the leading heads and
neurons, and of every head the leading channels: what ``Encoder.forward`` computes when it is given a smaller shape.
With ``resplit`` narrower heads are the leading channels of all heads together, split anew into as many heads.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.shape import Shape, check_head_widths
from limbeck.errors import InputError
from limbeck.model.pruning.slicing import Scores, columns, take_heads, write_layer_style, write_shape

if TYPE_CHECKING:
    from limbeck.model.configuration import LimbeckConfig
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.layers import Layer

M = TypeVar("M", bound="LimbeckForSequenceClassification")
IN, OUT = ("query", "key", "value", "position_key", "position_query"), "attention_out"


def extract(model: M, shape: Shape, resplit: bool | None = None) -> M:
    """Build a model of the leading slices of the weights, equivalent to ``model.run(..., shape=shape)``.

    The hidden width is sliced through LayerNorm, which then takes mean and variance of fewer channels: exact with
    regard to the sliced model, but not to a model in which the other channels are masked.

    Args:
        model: The model to slice; it is not changed.
        shape: The shape of the slice.
        resplit: How narrower heads are sliced, here and in slices of the result; None keeps the model's way.

    Raises:
        InputError: The shape is no slice of the model's.
    """
    before: Shape = model.shape
    check_slice(shape, before, model.config.embedding_size, rotary=bool(model.config.rotary_theta))
    config = copy.deepcopy(model.config)
    forget_slices(config)
    if resplit is not None:
        config.resplit = resplit
    with torch.random.fork_rng(devices=[]):  # initial weights are replaced; leave the global generator unchanged
        small = type(model)(write_shape(config, shape))
    small.encoder.shape = shape
    source = model.state_dict()
    narrower = shape.head_dim != before.head_dim and not config.resplit
    dims = (before.head_dim, shape.head_dim) if narrower else None
    with torch.no_grad():
        for name, parameter in small.state_dict().items():
            parameter.copy_(_sliced(name, source[name], parameter.shape, dims))
    small.fresh_head, small.untrained, small.order_assumed = model.fresh_head, model.untrained, model.order_assumed
    small.to(model.device)  # type: ignore[arg-type]  # transformers mistypes it
    small.train(model.training)
    return small


def forget_slices(config: LimbeckConfig) -> None:
    """Remove a super-network's keys from a configuration: the trained slices, and the order of its parts."""
    for name in ("space", "general_space", "order"):
        vars(config).pop(name, None)


def check_slice(shape: Shape, before: Shape, embedding_size: int | None = None, *, rotary: bool = False) -> None:
    """Refuse a shape that is no leading slice of another.

    Args:
        shape: The slice.
        before: The whole.
        embedding_size: Width of the embeddings, where they have a projection.
        rotary: Whether positions are rotary.

    Raises:
        InputError: The shape is no slice, needs the projection left out, or has heads of odd width.
    """
    leading = Shape(before.hidden, before.head_dim, tuple(before.layers[: shape.depth]))
    if not shape <= leading:
        raise InputError(f"{shape} is no slice of {before}")
    if before.hidden != shape.hidden == embedding_size:
        raise InputError(
            f"a model as wide as its embeddings ({shape.hidden}) has no projection of them, but the slice of {before} "
            "has; choose another width"
        )
    check_head_widths([shape.head_dim], rotary=rotary)


def _sliced(name: str, weight: Tensor, size: torch.Size, dims: tuple[int, int] | None) -> Tensor:
    """Return the leading part of a parameter; with ``dims`` (width of a head: before, after) that of every head."""
    part = name.split(".")[-2] if "." in name else ""
    if dims is not None and part in (*IN, OUT):
        before, after = dims
        if part in IN:
            weight = weight.unflatten(0, (-1, before))[: size[0] // after, :after].flatten(0, 1)
        elif weight.dim() == 2:
            weight = weight.unflatten(1, (-1, before))[:, : size[1] // after, :after].flatten(1, 2)
    return weight[tuple(slice(length) for length in size)]


def readers(layer: Layer) -> tuple[nn.Linear, ...]:
    """Return the linear maps of a layer that read the hidden states, or embeddings of positions with their channels."""
    gates = () if layer.gate is None else (layer.gate,)
    return *(getattr(layer, name) for name in layer.head_inputs), layer.up, *gates


def writers(layer: Layer) -> tuple[nn.Linear, ...]:
    """Return the linear maps of a layer that write to the hidden states."""
    return layer.attention_out, layer.down


def sort_parts(model: LimbeckForSequenceClassification, scores: Scores) -> tuple[tuple[int, ...], ...]:
    """Sort heads and neurons of every layer by importance, descending; the outputs do not change.

    Returns where each head was, by layer. Reference: DynaBERT (Hou et al., 2020, arXiv:2004.04037), network rewiring.
    """
    dim, order_of_heads = model.shape.head_dim, tuple(tuple(_descending(heads)) for heads in scores.heads)
    with torch.no_grad():
        for layer, heads, neurons in zip(model.encoder.layers, order_of_heads, scores.ffn, strict=True):
            channels = columns(heads, dim)
            for name in layer.head_inputs:
                _reorder(getattr(layer, name), 0, channels)
            _reorder(layer.attention_out, 1, channels)
            take_heads(layer, heads)
            order = torch.tensor(_descending(neurons), dtype=torch.long)
            _reorder(layer.up, 0, order)
            if layer.gate is not None:
                _reorder(layer.gate, 0, order)
            _reorder(layer.down, 1, order)
    write_layer_style(model)
    return order_of_heads


def channel_scores(model: LimbeckForSequenceClassification) -> np.ndarray:
    """Score every channel of the hidden states [hidden] by the squared weights that write to it and read from it."""
    with torch.no_grad():
        total = torch.zeros(model.shape.hidden)
        for layer in model.encoder.layers:
            for part in readers(layer):
                total += part.weight.float().cpu().square().sum(0)
            for part in writers(layer):
                total += part.weight.float().cpu().square().sum(1)
    scores: np.ndarray = total.double().numpy()
    return scores


def sort_channels(model: LimbeckForSequenceClassification, scores: np.ndarray) -> Tensor:
    """Sort the channels of the hidden states by importance, descending; the outputs do not change.

    Returns the order [hidden]: where each channel was, for what else reads hidden states.
    """
    order = torch.tensor(_descending(scores), dtype=torch.long)
    encoder, embeddings = model.encoder, model.encoder.embeddings
    tables = [] if encoder.relative is None else [encoder.relative.table]
    with torch.no_grad():
        if embeddings.project is not None:
            _reorder(embeddings.project, 0, order)
        else:
            given = (embeddings.word, embeddings.position, embeddings.token_type)
            tables += [table for table in given if table is not None]
        for table in tables:
            table.weight.copy_(table.weight[:, order])
        if embeddings.project is None or encoder.style.project_before_norm:
            _reorder_norm(embeddings.norm, order)
        if encoder.relative is not None:
            _reorder_norm(encoder.relative.norm, order)
        for layer in encoder.layers:
            for part in readers(layer):
                _reorder(part, 1, order)
            for part in writers(layer):
                _reorder(part, 0, order)
            _reorder_norm(layer.attention_norm, order)
            _reorder_norm(layer.ffn_norm, order)
        _reorder_norm(model.encoder.norm, order)
        if model.pooler is not None:
            _reorder(model.pooler, 1, order)
            _reorder(model.pooler, 0, order)  # slices take its leading outputs
            _reorder_norm(model.pooler_norm, order)
        first = _reads_hidden(model)
        assert first.in_features == model.shape.hidden
        _reorder(first, 1, order)
    return order


def sort_features(model: LimbeckForSequenceClassification, scores: np.ndarray) -> None:
    """Sort the outputs of the dense layer before the output layer by importance, descending; the outputs do not change.

    Args:
        model: The model, changed in place; one without such a layer stays as it is.
        scores: A score for each output [hidden].
    """
    if model.pooler is None:
        return
    order = torch.tensor(_descending(scores), dtype=torch.long)
    with torch.no_grad():
        _reorder(model.pooler, 0, order)
        _reorder_norm(model.pooler_norm, order)
        _reorder(model.classifier, 1, order)


def _reads_hidden(model: LimbeckForSequenceClassification) -> nn.Linear:
    """Return the layer of the head that reads the hidden states; ``keep_width`` gives one to a model of vectors."""
    from limbeck.model.sentence_encoder import LimbeckForSentenceEmbedding

    if not isinstance(model, LimbeckForSentenceEmbedding):
        return model.classifier
    first = model.dense[0]
    assert isinstance(first, nn.Linear)
    return first


def _descending(scores: np.ndarray) -> list[int]:
    return [int(index) for index in np.argsort(-np.asarray(scores), kind="stable")]


def _reorder(layer: nn.Linear, dim: int, order: Tensor) -> None:
    order = order.to(layer.weight.device)
    layer.weight.copy_(layer.weight.index_select(dim, order))
    if dim == 0 and layer.bias is not None:
        layer.bias.copy_(layer.bias[order])


def _reorder_norm(norm: nn.LayerNorm | None, order: Tensor) -> None:
    if norm is not None:
        for parameter in norm.parameters():
            parameter.copy_(parameter[order.to(parameter.device)])


def fresh_student(model: M, shape: Shape, seed: int) -> M:
    """Build a model of another shape with the labels of a model, and its embeddings where they fit.

    Args:
        model: The model; it is not changed.
        shape: Shape of the new model.
        seed: Decides the weights, which are drawn as BERT's are: normal, 0.02.
    """
    config = copy.deepcopy(model.config)
    forget_slices(config)
    cores = [layer.core[0] for layer in model.shape.layers]
    if thetas := model.config.rotary_theta:  # those of the model's first layer of the same kind
        first = dict(reversed(list(zip(cores, thetas, strict=False))))
        config.rotary_theta = [first.get(layer.core[0], thetas[0]) for layer in shape.layers]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = type(model)(write_shape(config, shape))
    student.encoder.shape = shape
    tables = student.encoder.embeddings.state_dict()
    for name, old in model.encoder.embeddings.state_dict().items():
        if name in tables and tables[name].shape == old.shape:
            tables[name].copy_(old)
    student.fresh_head = True
    student.train(False)
    return student
