"""Train one model so that its slices are good models too: which slices a step trains, and what they imitate.

References: single-path one-shot search (Guo et al., 2020, arXiv:1904.00420): one slice a step; the sandwich rule and
in-place distillation (Yu and Huang, 2019, arXiv:1903.05134): the largest, the smallest and some between, which learn
from the largest; the knowledge distillation variant of AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686): last hidden
states and last attention of a frozen teacher. Differs: attention is compared as relations (Wang et al., 2021,
arXiv:2012.15828), because slices may have other numbers of heads than the teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.core.search_space import Listed, Space
from limbeck.core.shape import Shape
from limbeck.train.objectives import Batch, Loss, Outputs, Progress, Taps, TeacherCall, masked_mean

Rule = Literal["sandwich", "single"]


class LastHidden(nn.Module):
    """Squared distance of the last hidden states; slices share the leading columns of one projection.

    Shapes: states [batch, seq, hidden]; the projection turns the width of the slice into the teacher's. It begins as
    what is right for a copy of the teacher whose channels were put in ``order`` [all channels], if they were.
    """

    def __init__(self, width: int, teacher_width: int, teacher_depth: int, order: Tensor | None = None) -> None:
        super().__init__()
        self.project = nn.Linear(width, teacher_width, bias=False)
        self.teacher_depth = teacher_depth
        order = torch.arange(width) if order is None else order
        channels = max(teacher_width, int(order.max()) + 1)
        with torch.no_grad():  # the whole model is often such a copy
            self.project.weight.copy_(torch.eye(teacher_width, channels)[:, order[:width]])

    @property
    def taps(self) -> Taps:
        """The teacher's last layer."""
        return {"hidden": (self.teacher_depth,)}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Mean over tokens and channels."""
        states = student.taps["hidden"][-1]
        projected = F.linear(states, self.project.weight[:, : states.shape[-1]])
        goal = teacher.taps["hidden"][self.teacher_depth]
        return masked_mean((projected - goal).square(), batch["attention_mask"][..., None])


@dataclass(frozen=True)
class SandwichLoss:
    """The losses of one step, one a slice; which slices depends on ``seed`` and the step alone.

    ``sandwich``: largest, smallest, and ``samples`` drawn between; ``single``: ``samples`` drawn, nothing else.
    ``teacher``: None where no term asks for one.
    ``in_place``: after the largest slice, the others learn its answers instead of the teacher's.
    """

    terms: Mapping[str, tuple[float, Any]]
    teacher: TeacherCall | None
    space: Space | Listed
    rule: Rule = "sandwich"
    samples: int = 2
    in_place: bool = False
    seed: int = 0
    modules: nn.ModuleDict = field(init=False)

    def __post_init__(self) -> None:
        inside = {name: term for name, (_, term) in self.terms.items() if isinstance(term, nn.Module)}
        object.__setattr__(self, "modules", nn.ModuleDict(inside))

    def shapes(self, step: int) -> list[Shape]:
        """The slices of a step; the largest comes first."""
        rng = Random(f"{self.seed}/{step}")
        drawn = [self.space.sample(rng) for _ in range(self.samples)]
        return [self.space.largest, *drawn, self.space.smallest] if self.rule == "sandwich" else drawn

    def __call__(self, model: Any, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """One loss for each slice: they are propagated back one after another, so memory stays that of one."""
        taps = sorted({tap for _, term in self.terms.values() for tap in term.taps})
        guide = None if self.teacher is None else self.teacher(batch, taps)
        shapes = self.shapes(progress.step)
        for place, shape in enumerate(shapes):
            student = Outputs(*model.run(batch, taps=taps, shape=shape))
            parts = {name: term(student, guide or student, batch) for name, (_, term) in self.terms.items()}
            total = torch.stack([weight * parts[name] for name, (weight, _) in self.terms.items()]).sum()
            named = "largest" if shape == self.space.largest else "slice"
            yield Loss(total / len(shapes), {f"{named}_{name}": part.detach() for name, part in parts.items()})
            if place == 0 and self.in_place and self.rule == "sandwich":
                guide = (guide or student)._replace(logits=student.logits.detach())
