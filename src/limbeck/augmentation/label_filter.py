"""Check assumed labels with a teacher: compare its predictions, and keep, change or drop the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from limbeck.core.task_kind import Label
from limbeck.data.answers import answers

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.task import Split, Task


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
        from limbeck.model.placement import on_accelerator

        teacher = self.open_teacher()
        on_accelerator(teacher.model)
        return teacher

    def review(self, task: Task, rows: Split) -> list[tuple[Label, Label]]:
        """Return, for each row, the teacher's prediction and the label after it was overruled or not."""
        if not len(rows):
            return []
        new, teacher = replace(task, splits={"train": rows}), self.teacher
        logits = answers(teacher.model, teacher.tokenizer, new, "train", self.batch_size)
        return [
            task.task_kind.review(values, label, self.confidence)
            for values, label in zip(logits, rows.labels, strict=True)
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
