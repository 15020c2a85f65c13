"""Optimal brain surgeon for heads and neurons: the order of removal, correcting the remaining weights after each.

References: Hassibi and Stork, 1992; ZipLM (Kurtic et al., 2023, arXiv:2302.04089), which removes one structure after
another from the output projections of attention (a head's columns) and of the feed-forward part (a neuron's column).
Differs: ZipLM's loss is the relative error of a layer's output, the same in every layer (:func:`layer_wise`); here an
error is weighted by the effect on the model's predictions, with the Kronecker factors of the curvature as in LLM
Surgeon (van der Ouderaa et al., 2023, arXiv:2312.17244). No label is read: of words, labels only mark the tokens that
answers come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.model.output_losses import IGNORE
from limbeck.model.pruning.importance import sample_labels
from limbeck.model.pruning.reconstruction import Grams, affine, ridge
from limbeck.model.pruning.slicing import RemovalOrder, RemovalOrders

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification

Batches = Iterable[dict[str, Tensor]]


def second_order(
    model: LimbeckForSequenceClassification, batches: Batches, grams: Grams, seed: int = 0
) -> RemovalOrders:
    """Compute the order of removal of heads and neurons in every layer, and the loss after each removal.

    Args:
        model: The model; it is not changed.
        batches: Calibration batches, whose labels are not read, but mark the tokens that words are answered by.
        grams: Gram matrices of the same batches.
        seed: Seed of the labels sampled from the model's predictions.

    Returns:
        Orders whose losses are nats that the predictions differ by, to second order, summed over the calibration
        texts: one scale for all layers, heads and neurons.
    """
    return _orders(model, grams, *sensitivities(model, batches, seed))


def layer_wise(model: LimbeckForSequenceClassification, grams: Grams) -> RemovalOrders:
    """Compute ZipLM's losses: the root of a layer's squared error over that of its bias alone, from 0 to 1.

    Differs: the paper then searches for a coefficient of each layer (SPDY) by trying pruned models; here all are 1.
    """
    identity = [torch.eye(model.shape.hidden, dtype=torch.float64, device=model.device)] * model.shape.depth
    orders = _orders(model, grams, identity, identity)
    return RemovalOrders(tuple(map(_relative, orders.heads)), tuple(map(_relative, orders.ffn)))


def _relative(order: RemovalOrder) -> RemovalOrder:
    return RemovalOrder(order.parts, np.sqrt(order.lost / max(order.lost[-1], 1e-300)))


def _orders(
    model: LimbeckForSequenceClassification, grams: Grams, of_attention: list[Tensor], of_ffn: list[Tensor]
) -> RemovalOrders:
    layers, dim = model.encoder.layers, model.shape.head_dim
    heads = zip((layer.attention_out for layer in layers), grams.context, of_attention, strict=True)
    neurons = zip((layer.down for layer in layers), grams.neurons, of_ffn, strict=True)
    return RemovalOrders(
        tuple(removal(linear, gram, sensitivity, dim) for linear, gram, sensitivity in heads),
        tuple(removal(linear, gram, sensitivity, 1) for linear, gram, sensitivity in neurons),
    )


def sensitivities(
    model: LimbeckForSequenceClassification, batches: Batches, seed: int = 0
) -> tuple[list[Tensor], list[Tensor]]:
    """Average ``g g^T`` over tokens in every layer, g the gradient at the output of attention and feed-forward part.

    The loss is that of labels sampled from the model's own predictions, so this is a factor of its Fisher information:
    an error e in the output changes the predictions by half of ``e^T (g g^T) e`` nats.

    Args:
        model: The model; it is not changed.
        batches: As for :func:`second_order`.
        seed: Seed of the sampled labels.

    Returns:
        Matrices [hidden, hidden] by layer, for attention and for the feed-forward part.
    """
    parts = ("attention_output", "ffn_output")
    totals: list[Tensor] = []
    tokens = [0] * len(parts) * model.shape.depth  # a layer may read fewer than the one before
    for _, activations, gradients in sampled_gradients(
        model, batches, (*parts, "mask"), lambda taps: [output for name in parts for output in taps[name]], seed
    ):
        masks = activations["mask"] * len(parts)
        rows = [g[mask].double() for g, mask in zip(gradients, masks, strict=True)]
        squares = [row.T @ row for row in rows]
        totals = [a + b for a, b in zip(totals, squares, strict=True)] if totals else squares
        tokens = [count + len(row) for count, row in zip(tokens, rows, strict=True)]
    means = [total / max(count, 1) for total, count in zip(totals, tokens, strict=True)]
    return means[: model.shape.depth], means[model.shape.depth :]


def sampled_gradients(
    model: LimbeckForSequenceClassification,
    batches: Batches,
    taps: Sequence[str],
    chosen: Callable[[dict[str, list[Tensor]]], Sequence[Tensor]],
    seed: int = 0,
) -> Iterator[tuple[dict[str, Tensor], dict[str, list[Tensor]], tuple[Tensor, ...]]]:
    """Yield for every batch the gradients of the loss of labels sampled from the model's own predictions.

    Args:
        model: The model; it is not changed.
        batches: As for :func:`second_order`.
        taps: Names of the activations to return.
        chosen: Takes the activations, and returns those to take the gradient of.
        seed: Seed of the sampled labels.

    Yields:
        The batch on the model's device, its activations, and the gradients of the chosen ones; 0 where none flows.
    """
    model.eval()
    rng = torch.Generator().manual_seed(seed)
    for batch in batches:
        batch = {name: value.to(model.device) for name, value in batch.items()}
        with torch.enable_grad():
            logits, activations = model.run(batch, taps=taps)
            labels = sample_labels(model, logits.detach(), batch, rng)
            loss = model.loss(logits, labels) * (labels != IGNORE).sum()  # the sum, not the mean
            outputs = chosen(activations)
            gradients = torch.autograd.grad(loss, outputs, allow_unused=True, materialize_grads=True)
        yield batch, {name: [each.detach() for each in states] for name, states in activations.items()}, gradients


@torch.no_grad()
def removal(linear: nn.Linear, gram: Tensor, sensitivity: Tensor, width: int) -> RemovalOrder:
    """Remove groups of ``width`` inputs of a linear layer one by one, the least harmful first, correcting the rest.

    With the Gram matrix H of the inputs and a column of ones (the bias, which always stays), and S the sensitivity of
    the output, group g costs::

        tr(S W_g ((H^-1)_gg)^-1 W_g^T) / 2

    and when it goes, W falls by ``W_g ((H^-1)_gg)^-1 (H^-1)_g`` and H^-1 by ``(H^-1)_g^T ((H^-1)_gg)^-1 (H^-1)_g``.
    All corrections together give the weights of ``reconstruction.solve``, so only order and costs are returned.

    Args:
        linear: The layer, with weights [out, in].
        gram: Gram matrix of its inputs [in + 1, in + 1].
        sensitivity: Sensitivity of its output [out, out].
        width: Inputs per group.
    """
    values, vectors = torch.linalg.eigh(sensitivity.double())
    root = (values.clamp_min(0) / 2).sqrt()[:, None] * vectors.T
    weight, gram = affine(linear.weight, linear.bias, gram)
    weight = root @ weight
    inverse = torch.linalg.inv(gram + ridge(gram).diag())
    steps = single(weight, inverse) if width == 1 else grouped(weight, inverse, width)
    removed, costs = zip(*steps, strict=True) if linear.in_features else ((), ())
    return RemovalOrder(tuple(removed), np.concatenate([[0.0], np.cumsum(np.maximum(costs, 0.0))]))


def grouped(weight: Tensor, inverse: Tensor, width: int) -> Iterator[tuple[int, float]]:
    """Remove groups of inputs one by one, and yield the group and its cost each time.

    Args:
        weight: Weights [out, in + 1], the bias last, which is never removed; overwritten.
        inverse: Inverse of the Gram matrix [in + 1, in + 1]; overwritten.
        width: Inputs per group.
    """
    inputs = weight.shape[1] - 1
    left = list(range(inputs // width))
    while left:
        spans = [slice(group * width, (group + 1) * width) for group in left]
        blocks = torch.stack([inverse[span, span] for span in spans])
        parts = torch.stack([weight[:, span].T for span in spans])  # [group, width, out]
        costs = (parts * torch.linalg.solve(blocks, parts)).sum((1, 2))
        best = int(costs.argmin())
        rows = inverse[spans[best]].clone()
        scaled = torch.linalg.solve(rows[:, spans[best]], rows)
        weight -= weight[:, spans[best]] @ scaled
        inverse -= rows.T @ scaled
        yield left.pop(best), float(costs[best])


def single(weight: Tensor, inverse: Tensor, block: int = 64) -> Iterator[tuple[int, float]]:
    """Do the same as :func:`grouped` with a width of 1, several times as fast.

    Corrections are collected and applied a block at a time; within a block only what a step reads, a row of H^-1, a
    column of W and the costs, is updated. Removed inputs are then dropped from the matrices.

    Args:
        weight: Weights [out, in + 1], the bias last.
        inverse: Inverse of the Gram matrix [in + 1, in + 1].
        block: Number of removals between updates of the matrices.
    """
    alive = torch.arange(weight.shape[1] - 1)
    while len(alive):
        norms, diagonal = weight.square().sum(0), inverse.diagonal().clone()
        norms[-1] = torch.inf  # the bias stays
        count = min(block, len(alive))
        rows, scaled = inverse.new_empty(count, len(inverse)), inverse.new_empty(count, len(inverse))
        columns, taken = weight.new_empty(len(weight), count), []
        for step in range(count):
            best = int((norms / diagonal.clamp_min(1e-300)).argmin())
            row = inverse[best] - scaled[:step, best] @ rows[:step]
            column = weight[:, best] - columns[:, :step] @ scaled[:step, best]
            products = column @ weight - (column @ columns[:, :step]) @ scaled[:step]
            size = column.square().sum()
            yield int(alive[best]), float(size / row[best])
            rows[step], scaled[step], columns[:, step] = row, row / row[best], column
            norms += scaled[step] * (scaled[step] * size - 2 * products)
            diagonal -= row * scaled[step]
            norms[best], diagonal[best] = torch.inf, 1.0
            taken.append(best)
        stay = torch.ones(len(inverse), dtype=torch.bool)
        stay[taken] = False
        weight, inverse = weight - columns @ scaled, inverse - rows.T @ scaled
        weight, inverse, alive = weight[:, stay], inverse[stay][:, stay], alive[stay[:-1]]
