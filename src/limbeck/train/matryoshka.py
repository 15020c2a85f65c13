"""Vectors whose leading components are vectors of their own (Kusupati et al., 2022, arXiv:2205.13147).

Differs: the leading components of a student are compared with those of its teacher, each scaled to length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.core.logits import separate_texts
from limbeck.errors import InputError
from limbeck.train.objectives import Batch, Outputs, Taps, Term


def check_sizes(sizes: Sequence[int], width: int) -> None:
    """Refuse numbers of leading components that vectors do not have, or that are all of them.

    Args:
        sizes: Numbers of leading components.
        width: Components of a vector.

    Raises:
        InputError: One is too large.
    """
    if any(size >= width for size in sizes):
        raise InputError(f"matryoshka: vectors have {width} components, give fewer, got {max(sizes)}")


@dataclass(frozen=True)
class LeadingComponents:
    """A distance from a teacher's vectors, averaged over whole vectors and leading components.

    Attributes:
        distance: Compares the vectors of student and teacher.
        sizes: Numbers of leading components.
    """

    distance: Term
    sizes: tuple[int, ...]

    @property
    def taps(self) -> Taps:
        """Those of the distance."""
        return self.distance.taps

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Compute the mean distance, a scalar.

        Args:
            student: Vectors of the student; rows of pairs hold two.
            teacher: Vectors of the teacher.
            batch: The inputs.
        """
        vectors = [separate_texts(side.logits, batch) for side in (student, teacher)]
        distances = [self.distance(student, teacher, batch)]
        for size in self.sizes:
            ours, wanted = (Outputs(F.normalize(side[:, :size], dim=-1), {}) for side in vectors)
            distances.append(self.distance(ours, wanted, batch))
        return torch.stack(distances).mean()
