"""Optimal brain surgeon for heads and neurons: which go first, with all that stay corrected after each.

References: Hassibi and Stork, 1992; ZipLM (Kurtic et al., 2023, arXiv:2302.04089), which removes one structure after
another from the output projections of attention (a head's columns) and of the feed-forward part (a neuron's column).
Differs: for ZipLM what is lost is the error of a layer's output, over that output, alike in every layer
(:func:`layer_wise`); here an error counts as much as the model's answers depend on it, by the Kronecker factors of the
curvature that LLM Surgeon has (van der Ouderaa et al., 2023, arXiv:2312.17244). No label is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.model.pruning.reconstruction import Grams, ridge
from limbeck.model.pruning.slicing import RemovalOrder, RemovalOrders

Batches = Iterable[dict[str, Tensor]]


def second_order(model: Any, batches: Batches, grams: Grams, seed: int = 0) -> RemovalOrders:
    """Order of removal of heads and neurons in every layer, and what is lost by then.

    Units: nats that the model's answers differ by, to second order, summed over the calibration texts; one scale for
    all layers, heads and neurons.
    """
    return _orders(model, grams, *sensitivities(model, batches, seed))


def layer_wise(model: Any, grams: Grams) -> RemovalOrders:
    """As ZipLM has it: what is lost is the root of a layer's squared error over that of its bias alone, from 0 to 1.

    Differs: the paper then searches for a coefficient of each layer (SPDY) by trying pruned models; here all are 1.
    """
    alike = [torch.eye(model.shape.hidden, dtype=torch.float64, device=model.device)] * model.shape.depth
    found = _orders(model, grams, alike, alike)
    return RemovalOrders(tuple(map(_relative, found.heads)), tuple(map(_relative, found.ffn)))


def _relative(order: RemovalOrder) -> RemovalOrder:
    return RemovalOrder(order.parts, np.sqrt(order.lost / max(order.lost[-1], 1e-300)))


def _orders(model: Any, grams: Grams, attended: list[Tensor], fed: list[Tensor]) -> RemovalOrders:
    layers, dim = model.encoder.layers, model.shape.head_dim
    heads = zip((layer.attention_out for layer in layers), grams.context, attended, strict=True)
    neurons = zip((layer.down for layer in layers), grams.neurons, fed, strict=True)
    return RemovalOrders(
        tuple(removal(linear, gram, slopes, dim) for linear, gram, slopes in heads),
        tuple(removal(linear, gram, slopes, 1) for linear, gram, slopes in neurons),
    )


def sensitivities(model: Any, batches: Batches, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Mean over tokens of ``g g^T`` in every layer, g the gradient at the output of attention and feed-forward part.

    The loss is that of answers drawn from the model's own distribution, so this is a factor of its Fisher information:
    half of ``e^T (g g^T) e`` is what an error e in the output does to the answers, in nats. Shapes: [hidden, hidden].
    """
    model.eval()
    taps, tokens = ("attention_output", "ffn_output"), 0
    totals: list[Tensor] = []
    rng = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for batch in batches:
            placed = {name: value.to(model.device) for name, value in batch.items()}
            logits, found = model.run(placed, taps=taps)
            mask = placed["attention_mask"].bool()
            outputs = [output for name in taps for output in found[name]]
            labels = drawn(model, logits.detach(), mask, rng)
            loss = model.loss(logits, labels) * (labels != -100).sum()  # the sum, not the mean
            slopes = torch.autograd.grad(loss, outputs, allow_unused=True, materialize_grads=True)
            squares = [slope[mask].T.double() @ slope[mask].double() for slope in slopes]
            totals = [a + b for a, b in zip(totals, squares, strict=True)] if totals else squares
            tokens += int(mask.sum())
    means = [total / max(tokens, 1) for total in totals]
    return means[: model.shape.depth], means[model.shape.depth :]


def drawn(model: Any, logits: Tensor, mask: Tensor, rng: torch.Generator) -> Tensor:
    """Labels drawn from what the model answers; padding has none (-100)."""
    problem = model.config.problem_type or ("regression" if logits.shape[-1] == 1 else None)
    answers = logits.float().cpu()
    if problem == "regression":
        labels = answers.squeeze(-1) + torch.randn(answers.shape[:-1], generator=rng)
    elif problem == "multi_label_classification":
        labels = torch.bernoulli(answers.sigmoid(), generator=rng)
    else:
        flat = torch.multinomial(answers.softmax(-1).flatten(0, -2), 1, generator=rng)
        labels = flat.view(answers.shape[:-1])
    labels = labels.to(logits.device)
    return labels.masked_fill(~mask, -100) if labels.shape == mask.shape and labels.dtype == torch.long else labels


@torch.no_grad()
def removal(linear: Any, gram: Tensor, sensitivity: Tensor, width: int) -> RemovalOrder:
    """Remove groups of ``width`` inputs of a linear layer one by one, the least harmful first, correcting the rest.

    With the Gram matrix H of the inputs and a column of ones (the bias, which always stays), and S the sensitivity of
    the output, group g costs::

        tr(S W_g ((H^-1)_gg)^-1 W_g^T) / 2

    and when it goes, W falls by ``W_g ((H^-1)_gg)^-1 (H^-1)_g`` and H^-1 by ``(H^-1)_g^T ((H^-1)_gg)^-1 (H^-1)_g``.
    What these corrections add up to are the weights of ``reconstruct.solve``, so only order and costs are kept.

    Shapes: linear.weight [out, in]; gram [in + 1, in + 1]; sensitivity [out, out].
    """
    values, vectors = torch.linalg.eigh(sensitivity.double())
    root = (values.clamp_min(0) / 2).sqrt()[:, None] * vectors.T
    weight = root @ torch.cat([linear.weight, linear.bias[:, None]], 1).double()
    inverse = torch.linalg.inv(gram + ridge(gram).diag())
    steps = single(weight, inverse) if width == 1 else grouped(weight, inverse, width)
    gone, worth = zip(*steps, strict=True) if linear.in_features else ((), ())
    return RemovalOrder(tuple(gone), np.concatenate([[0.0], np.cumsum(np.maximum(worth, 0.0))]))


def grouped(weight: Tensor, inverse: Tensor, width: int) -> Iterator[tuple[int, float]]:
    """Each group as it goes, and its cost; both matrices are used up. The last column, the bias, belongs to none."""
    inputs = weight.shape[1] - 1
    left = list(range(inputs // width))
    while left:
        places = [slice(group * width, (group + 1) * width) for group in left]
        blocks = torch.stack([inverse[place, place] for place in places])
        parts = torch.stack([weight[:, place].T for place in places])  # [group, width, out]
        costs = (parts * torch.linalg.solve(blocks, parts)).sum((1, 2))
        best = int(costs.argmin())
        rows = inverse[places[best]].clone()
        scaled = torch.linalg.solve(rows[:, places[best]], rows)
        weight -= weight[:, places[best]] @ scaled
        inverse -= rows.T @ scaled
        yield left.pop(best), float(costs[best])


def single(weight: Tensor, inverse: Tensor, block: int = 64) -> Iterator[tuple[int, float]]:
    """As :func:`grouped` with a width of 1, several times as fast.

    Corrections are gathered and made a block at a time; meanwhile what a step must know, a row of H^-1, a column of W,
    and the costs, is kept up to date by itself. What is gone is then left out of the matrices.
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
