"""Check assumed labels with a teacher: compare its predictions, and keep, change or drop the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from limbeck.core.logits import activate
from limbeck.core.metrics import IGNORED, Kind
from limbeck.data.answers import answers
from limbeck.data.batching import encode

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.task import Split, Task

Label: TypeAlias = Any
"""A label as ``Split.labels`` has it: its form depends on the kind of task."""


def review_label(
    kind: Kind, logits: npt.ArrayLike, label: Label, confidence: float, aligned: Sequence[int] = ()
) -> tuple[Label, Label]:
    """Compare a model's prediction for one row with its label.

    The prediction overrules the label where it differs with a probability of at least ``confidence``; of several
    labels, or of the labels of words, each is compared by itself. Numbers have no confidence and are never overruled.

    Args:
        kind: Kind of task.
        logits: [labels], or [seq, labels] for tokens.
        label: The label of the row.
        confidence: Probability from which the model overrules the label.
        aligned: For tokens, a label at the first position of each word and IGNORED elsewhere [seq]; words that were cut
            off keep their labels.

    Returns:
        The prediction, and the label after it was overruled or not.

    >>> review_label("classification", [0.0, 3.0], 0, 0.9), review_label("classification", [0.0, 1.0], 0, 0.9)
    ((1, 1), (1, 0))
    """
    if kind == "regression":
        return float(np.asarray(logits).reshape(-1)[0]), label
    probabilities = activate(logits, "sigmoid" if kind == "multilabel" else "softmax")
    if kind == "multilabel":
        predicted = tuple(int(probability > 0.5) for probability in probabilities)
        confident = [max(probability, 1 - probability) >= confidence for probability in probabilities]
        return predicted, tuple(
            new if sure else old for new, old, sure in zip(predicted, label, confident, strict=True)
        )
    if kind == "classification":
        best = int(probabilities.argmax())
        return best, best if probabilities[best] >= confidence else label
    starts = [position for position, tag in enumerate(aligned) if tag != IGNORED]
    tags = [int(probabilities[position].argmax()) for position in starts]
    confident = [bool(probabilities[position].max() >= confidence) for position in starts]
    rest = tuple(label[len(starts) :])
    changed = tuple(new if sure else old for new, old, sure in zip(tags, label, confident, strict=False))
    return (*tags, *rest), changed + rest


@dataclass
class LabelFilter:
    """A teacher that reads rows and decides which label each keeps or gets, or that it is dropped.

    Attributes:
        open_teacher: Opens the teacher.
        labels: Whether rows keep their own labels or get the teacher's predictions.
        guard: What happens to a row whose label the teacher overrules: nothing, it is dropped, or it is relabelled.
        confidence: Probability from which the teacher overrules a label.
        batch_size: Rows per batch.
        counts: Rows ``flipped`` (overruled), ``dropped`` and ``relabelled`` so far.
    """

    open_teacher: Callable[[], Candidate]
    labels: Literal["preserve", "teacher"] = "preserve"
    guard: Literal["off", "drop", "relabel"] = "drop"
    confidence: float = 0.9
    batch_size: int = 64
    counts: Counter[str] = field(default_factory=Counter)

    @cached_property
    def teacher(self) -> Candidate:
        """The teacher, opened when the first row is read."""
        import torch

        teacher = self.open_teacher()
        if torch.cuda.is_available() and isinstance(teacher.model, torch.nn.Module):
            teacher.model.to("cuda")
        return teacher

    def review(self, task: Task, rows: Split) -> list[tuple[Label, Label]]:
        """Return, for each row, the teacher's prediction and the label after it was overruled or not."""
        if not len(rows):
            return []
        new, teacher = replace(task, splits={"train": rows}), self.teacher
        logits = answers(teacher.model, teacher.tokenizer, new, "train", self.batch_size)
        aligned: Sequence[Sequence[int]] = [()] * len(rows)
        if task.kind == "tokens":
            aligned = encode(new, "train", teacher.tokenizer).labels
        return [
            review_label(task.kind, values, label, self.confidence, tags)
            for values, label, tags in zip(logits, rows.labels, aligned, strict=True)
        ]

    def resolve(self, own: Label, review: Sequence[Label]) -> Label | None:
        """Return the label that a row keeps or gets, given its review (perhaps from JSON); None drops the row."""
        predicted, guarded = (tuple(label) if isinstance(label, list) else label for label in review)
        flipped = guarded != own
        self.counts["flipped"] += flipped
        if flipped and self.guard == "drop":
            self.counts["dropped"] += 1
            return None
        if self.labels == "teacher":
            return predicted
        if flipped and self.guard == "relabel":
            self.counts["relabelled"] += 1
            return guarded
        return own
