"""How much every head, neuron and layer matters: criteria that read a model and labeled batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from limbeck.model.layers import Gates
from limbeck.model.output_losses import IGNORE
from limbeck.model.pruning.slicing import Scores

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification

Batches = Iterable[dict[str, Tensor]]


def open_gates(model: LimbeckForSequenceClassification) -> Gates:
    """Build gates of ones that record gradients."""
    layers = model.shape.layers
    widest = (max((layer.heads for layer in layers), default=0), max((layer.ffn for layer in layers), default=0))
    heads, ffn = (
        torch.ones(len(layers), width, device=model.device, dtype=model.dtype, requires_grad=True) for width in widest
    )
    ones = torch.ones(len(layers), device=model.device, dtype=model.dtype, requires_grad=True)
    return Gates(heads, ffn, layers=ones)


def answered(model: LimbeckForSequenceClassification, batch: Mapping[str, Tensor]) -> Tensor:
    """Return which tokens the answers of a batch come from [batch, seq], bool.

    Where every word has an answer, these are the tokens with a label, whatever it is: the first one of each word. A
    batch that labels no token does not tell, so all of its tokens count, as they do for answers of whole texts.

    Args:
        model: The model, for its kind of task.
        batch: ``attention_mask`` [batch, seq], and perhaps ``labels``.
    """
    real, labels = batch["attention_mask"].bool(), batch.get("labels")
    if not model.per_token or labels is None or labels.shape != real.shape:
        return real
    labeled = labels != IGNORE
    return labeled if bool(labeled.any()) else real


def sample_labels(
    model: LimbeckForSequenceClassification, logits: Tensor, batch: Mapping[str, Tensor], rng: torch.Generator
) -> Tensor:
    """Sample labels from the model's predictions.

    Args:
        model: The model, for its kind of task.
        logits: Its logits [batch, classes] or [batch, seq, classes].
        batch: The batch that it answered.
        rng: Generator on the CPU.

    Returns:
        Labels as the model's loss takes them; tokens that are not :func:`answered` have -100.
    """
    losses = model.output_losses(logits.shape[-1])
    labels = losses.sampled(logits.float().cpu(), rng).to(logits.device)
    mask = answered(model, batch)
    return labels.masked_fill(~mask, IGNORE) if labels.shape == mask.shape and labels.dtype == torch.long else labels


def _gate_gradients(model: LimbeckForSequenceClassification, batches: Batches) -> Iterable[tuple[Tensor, ...]]:
    """Yield the gradient of the task's loss with respect to all gates, batch by batch; weight gradients stay set.

    Labels that say nothing, as those of texts whose vectors are not kept, are sampled from the model's predictions.
    """
    model.eval()
    rng = torch.Generator().manual_seed(0)
    for batch in batches:
        model.zero_grad(set_to_none=True)
        gates = open_gates(model)
        batch = {name: value.to(model.device) for name, value in batch.items()}
        logits, labels = model.run(batch, gates=gates)[0], batch["labels"]
        if not labels.numel():
            labels = sample_labels(model, logits.detach(), batch, rng)
        loss = model.loss(logits, labels)
        loss.backward()
        gradients = tuple(gate.grad for gate in gates if gate is not None)
        yield tuple(g if g is not None else torch.zeros(0) for g in gradients)
    model.zero_grad(set_to_none=True)


def _rows(model: LimbeckForSequenceClassification, heads: Tensor, ffn: Tensor, layers: Tensor) -> Scores:
    shapes = model.shape.layers
    # a model without any heads, any neurons or any of both has no gates to take gradients of
    heads, ffn = (rows if rows.numel() else rows.new_zeros(len(shapes), 0) for rows in (heads, ffn))
    layers = layers if layers.numel() else layers.new_zeros(len(shapes))
    return Scores(
        tuple(row[: s.heads].cpu().double().numpy() for row, s in zip(heads, shapes, strict=True)),
        tuple(row[: s.ffn].cpu().double().numpy() for row, s in zip(ffn, shapes, strict=True)),
        layers.cpu().double().numpy(),
    )


def fisher(model: LimbeckForSequenceClassification, batches: Batches) -> Scores:
    """Sum the squared gate gradient over batches: the diagonal of the Fisher information.

    Reference: Kwon et al., 2022, arXiv:2204.09656. Heads and neurons share one scale, so they can be weighed against
    each other in one budget. Units: squared loss.
    """
    totals: list[Tensor] = []
    for gradients in _gate_gradients(model, batches):
        squares = [g.square() for g in gradients]
        totals = squares if not totals else [a + b for a, b in zip(totals, squares, strict=True)]
    return _rows(model, *totals)


def taylor(model: LimbeckForSequenceClassification, batches: Batches) -> Scores:
    """Sum the first-order change of the loss on removal of a part over batches, as FastFormers does.

    Heads: ``|dL/dgate|`` (Michel et al., 2019, arXiv:1905.10650). Neurons: ``|sum w dL/dw + b dL/db|`` over the
    incoming weights (FastFormers, 2020, arXiv:2010.13382). Units: loss. Differs: Michel et al. divide the scores of a
    layer by their L2 norm, which changes no order within the layer and would make heads and neurons incomparable.
    """
    heads, layers, neurons = None, None, [torch.zeros(layer.ffn) for layer in model.shape.layers]
    for head, _, layer_gate in _gate_gradients(model, batches):
        heads = head.abs() if heads is None else heads + head.abs()
        layers = layer_gate.abs() if layers is None else layers + layer_gate.abs()
        for index, layer in enumerate(model.encoder.layers):
            weight, bias = layer.up.weight, layer.up.bias  # of a gated neuron too: its output is linear in the gate
            if weight.grad is None:
                continue
            change = (weight * weight.grad).sum(1)
            if bias is not None and bias.grad is not None:
                change = change + bias * bias.grad
            neurons[index] = neurons[index] + change.detach().abs().cpu()
    assert heads is not None, "no batches"
    assert layers is not None
    scores = _rows(model, heads, torch.zeros(len(neurons), 0), layers)
    return Scores(scores.heads, tuple(row.double().numpy() for row in neurons), scores.layers)


def magnitude(model: LimbeckForSequenceClassification, batches: Batches) -> Scores:
    """Score by the norm of output weights (of neurons: times those of their input weights); needs no data."""
    with torch.no_grad():
        dim = model.shape.head_dim
        heads = [layer.attention_out.weight.unflatten(1, (-1, dim)).norm(dim=(0, 2)) for layer in model.encoder.layers]
        neurons = [layer.up.weight.norm(dim=1) * layer.down.weight.norm(dim=0) for layer in model.encoder.layers]
        gates = [1.0 if layer.gate is None else layer.gate.weight.norm(dim=1) for layer in model.encoder.layers]
        neurons = [neuron * gate for neuron, gate in zip(neurons, gates, strict=True)]
    arrays = [[row.cpu().double().numpy() for row in rows] for rows in (heads, neurons)]
    return Scores(tuple(arrays[0]), tuple(arrays[1]), np.array([row.sum() for row in arrays[1]]))


Criterion = Callable[["LimbeckForSequenceClassification", Batches], Scores]
CRITERIA: dict[str, Criterion] = {"fisher": fisher, "taylor": taylor, "magnitude": magnitude}
