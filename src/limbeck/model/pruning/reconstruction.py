"""Least-squares repair of the output projections after a cut."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from limbeck.model.pruning.slicing import Cut, columns

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification

DAMPING = 1e-4


@dataclass(frozen=True)
class Grams:
    """``X^T X`` of the inputs X (with a column of ones) of both output projections, a matrix a layer.

    Summed over batches in float64.
    """

    context: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]


def with_ones(rows: Tensor) -> Tensor:
    """Append a column of ones, for the bias."""
    return torch.cat([rows, rows.new_ones(len(rows), 1)], 1)


def _gram(x: Tensor, mask: Tensor) -> Tensor:
    rows = with_ones(x[mask])
    return (rows.T @ rows).double()


@torch.no_grad()
def collect(model: LimbeckForSequenceClassification, batches: Iterable[dict[str, Tensor]]) -> Grams:
    """Run the model on calibration texts (labels are not read); padding takes no part."""
    model.eval()
    totals: dict[str, list[Tensor]] = {}
    for batch in batches:
        batch = {name: value.to(model.device) for name, value in batch.items()}
        taps = model.run(batch, taps=("context", "neurons", "mask"))[1]
        masks = taps.pop("mask")
        for name, rows in taps.items():
            grams = [_gram(row, mask) for row, mask in zip(rows, masks, strict=True)]
            totals[name] = grams if name not in totals else [a + b for a, b in zip(totals[name], grams, strict=True)]
    return Grams(tuple(totals["context"]), tuple(totals["neurons"]))


def ridge(gram: Tensor, damping: float = DAMPING) -> Tensor:
    """Return the ridge of a Gram matrix's diagonal [in + 1]: ``damping`` times its mean, 0 for the bias."""
    added = torch.full_like(gram.diagonal(), float(damping * gram.diagonal().mean()))
    added[-1] = 0.0
    return added


def affine(weight: Tensor, bias: Tensor | None, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Append the bias to the weights as the last column; without a bias, a column of zeros that nothing can change.

    Args:
        weight: Weights [out, in].
        bias: Bias [out]; None if there is none.
        gram: Gram matrix of the inputs and a column of ones [in + 1, in + 1].

    Returns:
        The weights [out, in + 1], in float64, and the Gram matrix, in which the column of ones is independent of the
        inputs where there is no bias.
    """
    if bias is not None:
        return torch.cat([weight, bias[:, None]], 1).double(), gram
    alone = gram.clone()
    alone[-1, :-1] = alone[:-1, -1] = 0.0
    return torch.cat([weight, weight.new_zeros(len(weight), 1)], 1).double(), alone


def solve(
    weight: Tensor, bias: Tensor | None, gram: Tensor, retained: Tensor, damping: float = DAMPING
) -> tuple[Tensor, Tensor | None]:
    """Solve for the weights of the retained inputs that best reproduce the full output.

    Minimizes ``|| X W^T + b - X_r W'^T - b' ||^2`` over W' and b', damped towards the present weights (:func:`ridge`).
    With no input retained, b' is the mean output. A map without bias gets none.

    Args:
        weight: Weights [out, in].
        bias: Bias [out]; None if there is none.
        gram: Gram matrix of the inputs [in + 1, in + 1].
        retained: Indices of the retained inputs.
        damping: Ridge, as a share of the mean diagonal.

    Returns:
        New weights [out, retained] and bias [out], None as before.

    Reference: the layer-wise least squares of Kwon et al., 2022, arXiv:2204.09656; that paper rescales whole heads and
    neurons, this solves for every weight and the bias.
    """
    full, gram = affine(weight, bias, gram)
    index = torch.cat([retained, torch.tensor([weight.shape[1]], device=retained.device)])
    solution = damped_solution(
        full @ gram[:, index], gram[index][:, index], full[:, index], ridge(gram, damping)[index]
    )
    return solution[:, :-1].to(weight.dtype), None if bias is None else solution[:, -1].to(bias.dtype)


def damped_solution(products: Tensor, gram: Tensor, present: Tensor, added: Tensor) -> Tensor:
    """Solve a least-squares problem from its sums, damped towards present weights.

    Args:
        products: Sum of the wanted outputs times the inputs [out, in].
        gram: Gram matrix of the inputs [in, in].
        present: Present weights [out, in].
        added: Ridge by input [in].

    Returns:
        The weights [out, in].
    """
    weights: Tensor = torch.linalg.solve(gram + added.diag(), (products + present * added).T).T
    return weights


@torch.no_grad()
def repaired(
    model: LimbeckForSequenceClassification, cut: Cut, grams: Grams
) -> dict[int, dict[str, tuple[Tensor, Tensor | None]]]:
    """Compute new weights and biases of ``attention_out`` and ``down`` on the uncut model.

    Args:
        model: The model before the cut.
        cut: The cut to come.
        grams: Gram matrices of the calibration texts.

    Returns:
        By index of the layer after the cut: (weight, bias) by name of the projection.
    """
    repairs: dict[int, dict[str, tuple[Tensor, Tensor | None]]] = {}
    for position, (index, heads, ffn) in enumerate(zip(cut.layers, cut.heads, cut.ffn, strict=True)):
        layer = model.encoder.layers[index]
        channels = columns(heads, model.shape.head_dim)
        neurons = torch.tensor(ffn, dtype=torch.long)
        repairs[position] = {}
        if len(channels) < layer.attention_out.in_features:
            out = layer.attention_out
            repairs[position]["attention_out"] = solve(out.weight, out.bias, grams.context[index], channels)
        if len(neurons) < layer.down.in_features:
            repairs[position]["down"] = solve(layer.down.weight, layer.down.bias, grams.neurons[index], neurons)
    return repairs


@torch.no_grad()
def put(model: LimbeckForSequenceClassification, weights: dict[int, dict[str, tuple[Tensor, Tensor | None]]]) -> None:
    """Write the repaired weights into the cut model."""
    for index, parts in weights.items():
        layer = model.encoder.layers[index]
        for name, (weight, bias) in parts.items():
            layer.get_parameter(f"{name}.weight").copy_(weight)
            if bias is not None:
                layer.get_parameter(f"{name}.bias").copy_(bias)
