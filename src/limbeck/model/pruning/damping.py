"""How strongly least-squares repairs are damped: as generalized cross-validation says, from sums over rows alone.

A ridge holds weights near the present ones. Where rows are few beside the unknowns, as at a head that reads one vector
for a text, a small ridge fits the calibration texts, and other texts less well.

Reference: Golub, Heath and Wahba, 1979, Technometrics 21(2): of several ridges the one with the least
``RSS / (rows - trace of the hat matrix)^2``, which is, up to a factor, an estimate of the squared error on other rows.
Differs: the ridge pulls towards the present weights and not towards 0, so the regression is one of what these leave;
all outputs of a map share a ridge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from limbeck.model.pruning.reconstruction import DAMPING

DAMPINGS = tuple(DAMPING * 10 ** (step / 2) for step in range(9))
"""What is tried, as shares of the Gram matrix's mean diagonal: from that of the other repairs up to 1."""
ROUNDING = 1e-6
"""Share of the outputs' squares below which a residual cannot be told from the rounding of products in float32."""


@dataclass(frozen=True)
class Regression:
    """Sums over rows x [inputs], which linear maps read, and y [width], which they are to read instead.

    All maps that read there share the eigenvectors.

    Attributes:
        own: Sum of ``y^T y`` [width, width].
        cross: Sum of ``x^T y`` [inputs, width].
        whole: Sum of ``x^T x`` [inputs, inputs].
        rows: Degrees of freedom: rows, less one where the sums are about the means.
    """

    own: Tensor
    cross: Tensor
    whole: Tensor
    rows: float

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues [width] and eigenvectors [width, width] of ``own``."""
        values, vectors = torch.linalg.eigh(self.own)
        return values.clamp_min(0.0), vectors

    def damping(self, weight: Tensor, present: Tensor, diagonal: float) -> float:
        """Return the damping of a map that is to give of y what it gave of x.

        Args:
            weight: Weights that read x [out, inputs].
            present: Weights for y that the ridge pulls towards [out, width].
            diagonal: What dampings are shares of.
        """
        values, vectors = self.spectrum
        outputs = ((weight @ self.whole) * weight).sum()
        error = outputs - ((2 * weight @ self.cross - present @ self.own) * present).sum()
        gradients = ((weight @ self.cross - present @ self.own) @ vectors).square().sum(0)
        ridges = values.new_tensor(DAMPINGS)[:, None] * diagonal
        damped = values + ridges  # [damping, width]
        residuals = error - (gradients * (damped + ridges) / damped.square()).sum(1)
        free = (self.rows - (values / damped).sum(1)).clamp_min(1e-6)
        scores = residuals.clamp_min(ROUNDING * float(outputs)) / free.square()
        return DAMPINGS[int(scores.argmin())]
