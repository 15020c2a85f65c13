"""Train one model so that its slices are good models too: which slices a step trains, and what they learn from.

References: single-path one-shot search (Guo et al., 2020, arXiv:1904.00420): one slice per step; the sandwich rule and
in-place distillation (Yu and Huang, 2019, arXiv:1903.05134): the largest, the smallest and some in between, which learn
from the largest; the knowledge distillation variant of AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686): last hidden
states and last attention of a frozen teacher. Differs: attention is compared as relations (Wang et al., 2021,
arXiv:2012.15828), because slices may differ from the teacher in their number of heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.core.search_space import Listed, Space
from limbeck.core.shape import Shape
from limbeck.train.distillation_losses import masked_mean
from limbeck.train.objectives import (
    Batch,
    Loss,
    Outputs,
    Progress,
    Taps,
    TeacherCall,
    WeightedTerms,
    modules_of,
    tap_names,
    weighted_sum,
)

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification

SamplingRule = Literal["sandwich", "single"]


class LastHidden(nn.Module):
    """Squared distance of the last hidden states; slices share the leading columns of one projection.

    The projection maps the hidden width of a slice to the teacher's. It is initialized to be exact for a copy of the
    teacher, which the whole model often is.

    Args:
        width: Hidden width of the whole model.
        teacher_width: Hidden width of the teacher.
        teacher_depth: Layers of the teacher.
        order: Channels of the teacher in the order in which the model has them [all channels], if they were sorted.
    """

    def __init__(self, width: int, teacher_width: int, teacher_depth: int, order: Tensor | None = None) -> None:
        super().__init__()
        self.project = nn.Linear(width, teacher_width, bias=False)
        self.teacher_depth = teacher_depth
        order = torch.arange(width) if order is None else order
        channels = max(teacher_width, int(order.max()) + 1)
        with torch.no_grad():
            self.project.weight.copy_(torch.eye(teacher_width, channels)[:, order[:width]])

    @property
    def taps(self) -> Taps:
        """The teacher's last layer."""
        return {"hidden": (self.teacher_depth,)}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Average the squared distance over tokens and channels.

        Args:
            student: Outputs of the slice.
            teacher: Outputs of the teacher.
            batch: The inputs and labels.
        """
        states = student.taps["hidden"][-1]
        projected = F.linear(states, self.project.weight[:, : states.shape[-1]])
        target = teacher.taps["hidden"][self.teacher_depth]
        return masked_mean((projected - target).square(), batch["attention_mask"][..., None])


@dataclass(frozen=True)
class SandwichLoss:
    """The losses of a step, one per slice; which slices depends only on ``seed`` and the step.

    Attributes:
        terms: Terms of the loss of a slice.
        teacher: The teacher; None if no term needs one.
        space: The shapes of the slices.
        rule: 'sandwich' trains the largest, the smallest and ``samples`` random slices; 'single' only the latter.
        samples: Number of random slices per step.
        in_place: The slices after the largest learn from its logits instead of the teacher's.
        seed: Determines the random slices.
        modules: Terms with parameters of their own.
    """

    terms: WeightedTerms
    teacher: TeacherCall | None
    space: Space | Listed
    rule: SamplingRule = "sandwich"
    samples: int = 2
    in_place: bool = False
    seed: int = 0
    modules: nn.ModuleDict = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "modules", modules_of(self.terms))

    def shapes(self, step: int) -> list[Shape]:
        """Return the slices of a step; the largest comes first."""
        rng = Random(f"{self.seed}/{step}")
        sampled = [self.space.sample(rng) for _ in range(self.samples)]
        return [self.space.largest, *sampled, self.space.smallest] if self.rule == "sandwich" else sampled

    def __call__(self, model: LimbeckForSequenceClassification, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """Yield one loss per slice; they are back-propagated one by one, so only one slice is in memory at a time.

        Args:
            model: The super-network.
            batch: The inputs and labels.
            progress: Determines, with the seed, the slices.
        """
        taps = tap_names(self.terms)
        guide = None if self.teacher is None else self.teacher(batch, taps)
        shapes = self.shapes(progress.step)
        for index, shape in enumerate(shapes):
            student = Outputs(*model.run(batch, taps=taps, shape=shape))
            total, parts = weighted_sum(self.terms, student, guide or student, batch)
            prefix = "largest" if shape == self.space.largest else "slice"
            yield Loss(total / len(shapes), {f"{prefix}_{name}": part for name, part in parts.items()})
            if index == 0 and self.in_place and self.rule == "sandwich":
                guide = (guide or student)._replace(logits=student.logits.detach())
