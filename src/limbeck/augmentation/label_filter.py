"""A second opinion on labels: what a teacher says of rows whose labels were only assumed, and what follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from limbeck.data.batching import encode, predict
from limbeck.data.metrics import IGNORED, Kind

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.data.task import Split, Task


def probabilities(kind: Kind, logits: Any) -> Any:
    """Softmax over the labels (classification, tokens) or a sigmoid for each (multilabel); same shape as logits."""
    values = np.asarray(logits, dtype=np.float64)
    if kind == "multilabel":
        return 0.5 * (1 + np.tanh(values / 2))
    shares = np.exp(values - values.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def opinion(kind: Kind, logits: Any, label: Any, confidence: float, aligned: Sequence[int] = ()) -> tuple[Any, Any]:
    """What a model says of one row, and the label after the model objected where it is confident enough.

    An objection is a prediction other than the label, with a probability of at least ``confidence``; of several
    labels, or of the labels of words, each is judged by itself. Numbers have no confidence and are never objected to.

    Shapes: logits [labels] (tokens: [seq, labels]). ``aligned`` has, for each of the ``seq`` positions, a label where
    a word begins and IGNORED elsewhere; words that were cut off keep their labels.

    >>> opinion("classification", [0.0, 3.0], 0, 0.9), opinion("classification", [0.0, 1.0], 0, 0.9)
    ((1, 1), (1, 0))
    """
    if kind == "regression":
        return float(np.asarray(logits).reshape(-1)[0]), label
    label_probabilities = probabilities(kind, logits)
    if kind == "multilabel":
        said = tuple(int(rng > 0.5) for rng in label_probabilities)
        sure = [max(rng, 1 - rng) >= confidence for rng in label_probabilities]
        return said, tuple(new if ok else old for new, old, ok in zip(said, label, sure, strict=True))
    if kind == "classification":
        best = int(label_probabilities.argmax())
        return best, best if label_probabilities[best] >= confidence else label
    starts = [place for place, mark in enumerate(aligned) if mark != IGNORED]
    told = [int(label_probabilities[place].argmax()) for place in starts]
    sure = [bool(label_probabilities[place].max() >= confidence) for place in starts]
    rest = tuple(label[len(starts) :])
    changed = tuple(new if ok else old for new, old, ok in zip(told, label, sure, strict=False))
    return (*told, *rest), changed + rest


@dataclass
class LabelFilter:
    """Lets a teacher read rows, and decides with what label a row stays, or that it goes.

    ``labels``: the row's own, or the teacher's answer. ``guard``: what happens where the teacher objects to the row's
    own label with at least ``confidence``: nothing, it is dropped, or it gets the teacher's label.
    """

    open_teacher: Callable[[], Candidate]
    labels: Literal["preserve", "teacher"] = "preserve"
    guard: Literal["off", "drop", "relabel"] = "drop"
    confidence: float = 0.9
    batch_size: int = 64
    counts: Counter[str] = field(default_factory=Counter)

    @cached_property
    def teacher(self) -> Candidate:
        """Opened when the first row is read."""
        import torch

        teacher = self.open_teacher()
        if torch.cuda.is_available() and hasattr(teacher.model, "to"):
            teacher.model.to("cuda")
        return teacher

    def opinions(self, task: Task, rows: Split) -> list[tuple[Any, Any]]:
        """For each row what the teacher says, and the label after its objections."""
        if not len(rows):
            return []
        encoded = encode(replace(task, splits={"train": rows}), "train", self.teacher.tokenizer)
        logits = predict(self.teacher.model, encoded, self.batch_size)
        aligned = encoded.labels if task.kind == "tokens" else [()] * len(rows)
        return [
            opinion(task.kind, values, label, self.confidence, marks)
            for values, label, marks in zip(logits, rows.labels, aligned, strict=True)
        ]

    def settle(self, own: Any, said: Sequence[Any]) -> Any:
        """The label that a row keeps or gets, given an opinion (from JSON or not); None if the row goes."""
        told, guarded = (tuple(label) if isinstance(label, list) else label for label in said)
        flipped = guarded != own
        self.counts["flipped"] += flipped
        if flipped and self.guard == "drop":
            self.counts["dropped"] += 1
            return None
        if self.labels == "teacher":
            return told
        if flipped and self.guard == "relabel":
            self.counts["relabelled"] += 1
            return guarded
        return own
