"""What training minimizes: an objective yields the losses of a batch, most often a weighted sum of terms.

The terms share one forward pass of the student, so another term costs only its own arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from limbeck.train.config import TrainingConfig

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification

Batch = dict[str, Tensor]
"""``input_ids``, ``attention_mask`` and perhaps ``token_type_ids`` [batch, seq]; ``labels``; ``index`` [batch]."""
Taps = Mapping[str, tuple[int, ...]]
"""Names of activations, each with the teacher layers that a term reads."""


class Outputs(NamedTuple):
    """Logits and tapped activations by layer of one forward pass (see ``Encoder.forward``)."""

    logits: Tensor
    taps: Mapping[str, Sequence[Tensor] | Mapping[int, Tensor]]


class Loss(NamedTuple):
    """A loss to back-propagate, and its parts for the log."""

    total: Tensor
    terms: Mapping[str, Tensor]


class Progress(NamedTuple):
    """How far training is, in optimizer steps."""

    step: int
    total: int


class CoTrainedModule(NamedTuple):
    """A module that an objective trains beside the model, with an optimizer, a schedule and clipping of its own.

    It takes a step after every ``every`` steps of the model.
    """

    module: nn.Module
    config: TrainingConfig
    every: int = 1


class StepTaken(NamedTuple):
    """An optimizer step of the model that was just taken; its clipped gradients and learning rate are still set.

    ``clipping`` is the factor that the gradients were multiplied by, 1 if they were not clipped.
    """

    optimizer: torch.optim.Optimizer
    clipping: float
    progress: Progress


Objective = Callable[["LimbeckForSequenceClassification", Batch, Progress], Iterable[Loss]]
"""Yields the losses of a batch. Objectives may also be ``HasModules`` or ``CoTraining``."""
TeacherCall = Callable[[Batch, Sequence[str]], Outputs]
"""Returns the teacher's logits on a batch and the activations of the given names."""


@runtime_checkable
class HasModules(Protocol):
    """An objective with parameters of its own, which are trained with the model."""

    @property
    def modules(self) -> nn.ModuleDict:
        """Modules by name."""
        ...


@runtime_checkable
class CoTraining(Protocol):
    """An objective that trains other modules beside the model; they are saved and resumed with the rest."""

    @property
    def co_trained(self) -> Sequence[CoTrainedModule]:
        """The modules, in the order of their losses."""
        ...

    def auxiliary_losses(self, model: LimbeckForSequenceClassification, taken: StepTaken) -> Iterable[Loss]:
        """Yield a loss for each co-trained module that takes a step now, after a step of the model."""
        ...


class Term(Protocol):
    """One part of a loss; ``taps`` names the activations that it needs from student and teacher."""

    @property
    def taps(self) -> Taps:
        """Names of the activations, each with the teacher layers that the term reads."""
        ...

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Compute the loss of a batch, a scalar.

        Args:
            student: Outputs of the student.
            teacher: Outputs of the teacher; the student's where no term needs a teacher.
            batch: The inputs and labels.
        """
        ...


WeightedTerms = Mapping[str, tuple[float, Term]]
"""Terms of a loss by name, each with its weight."""


def extra_modules(objective: Objective) -> nn.ModuleDict:
    """Return the modules that an objective trains with the model; empty for most."""
    return objective.modules if isinstance(objective, HasModules) else nn.ModuleDict()


def modules_of(terms: WeightedTerms) -> nn.ModuleDict:
    """Return the terms that have parameters of their own."""
    return nn.ModuleDict({name: term for name, (_, term) in terms.items() if isinstance(term, nn.Module)})


def tap_names(terms: WeightedTerms) -> list[str]:
    """Return the sorted names of all activations that the terms need."""
    return sorted({tap for _, term in terms.values() for tap in term.taps})


def weighted_sum(
    terms: WeightedTerms, student: Outputs, teacher: Outputs, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """Evaluate terms on the same outputs.

    Args:
        terms: The terms and their weights.
        student: Outputs of the student.
        teacher: Outputs of the teacher.
        batch: The inputs and labels.

    Returns:
        The weighted sum, and the detached terms by name.
    """
    values = {name: term(student, teacher, batch) for name, (_, term) in terms.items()}
    total = torch.stack([weight * values[name] for name, (weight, _) in terms.items()]).sum()
    return total, {name: value.detach() for name, value in values.items()}


@dataclass(frozen=True)
class LiveTeacher:
    """Teacher outputs from a forward pass for every batch.

    Attributes:
        model: The teacher.
        logits: Known logits of rows of the training split; the pass is skipped where nothing else is needed.
            ``train/teacher_cache.py`` has a teacher that needs no pass at all.
    """

    model: LimbeckForSequenceClassification
    logits: Callable[[Tensor], Tensor] | None = None

    def __call__(self, batch: Batch, taps: Sequence[str]) -> Outputs:
        """Return the logits and the activations of these names."""
        logits = None if self.logits is None else self.logits(batch["index"])
        if logits is not None and not taps:
            return Outputs(logits, {})
        module: nn.Module = self.model
        module.to(batch["input_ids"].device)  # it was opened on the CPU, wherever the student trains
        with torch.no_grad():
            own, tapped = self.model.run(batch, taps=taps)
        return Outputs(own if logits is None else logits, tapped)


@dataclass(frozen=True)
class Weighted:
    """Weighted sum of terms over one student pass, and one teacher pass if there is a teacher.

    ``options`` are passed to ``model.run``.
    """

    terms: WeightedTerms
    teacher: TeacherCall | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def modules(self) -> nn.ModuleDict:
        """Terms with parameters of their own, which are trained with the student."""
        return modules_of(self.terms)

    def __call__(self, model: LimbeckForSequenceClassification, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """Yield one loss: the weighted sum of the terms.

        Args:
            model: The student.
            batch: The inputs and labels.
            progress: Ignored.
        """
        taps = tap_names(self.terms)
        student = Outputs(*model.run(batch, taps=taps, **self.options))
        teacher = self.teacher(batch, taps) if self.teacher is not None else student
        yield Loss(*weighted_sum(self.terms, student, teacher, batch))
