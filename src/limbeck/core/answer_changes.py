"""Compare the answers of two models to the same texts: flips, and drift of the score that decides.

A *flip* is an answer that differs from the reference's, right or wrong. *Drift* is how far the score of the reference's
answer has moved. Both are taken decision by decision: a decision is the answer to a text, or for labels of words to a
word. Two models of equal quality may disagree, and a small loss overall may be a large one on one class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from limbeck.core.measurement import Measurement
from limbeck.core.statistics import Interval, bootstrap, wilson
from limbeck.core.task_kind import Label, Logits, TaskKind

FLIPS, DRIFT = "flips", "drift"
"""Names of the facts."""

SHOWN = 20  #: texts that are listed because they changed most
EXCERPT = 200  #: characters of a listed text
NOISE = 1e-5  #: drift that another order of the same sums makes; such texts are not listed
GROUPS = 200  #: the most frequent answers that are counted one by one


class Answers(NamedTuple):
    """A model's logits on a split, the labels in the same form, as ``TaskKind.score`` takes them, and its tokens."""

    logits: Logits
    labels: Sequence[Label]
    lengths: np.ndarray


@dataclass(frozen=True, eq=False)
class Changes:
    """What differs between the answers of a reference and those of another model.

    Attributes:
        kind: Kind of the task.
        names: The label names.
        rows: The text of each decision [decisions].
        before: Answers of the reference, as ``TaskKind.decode`` gives them [decisions, ...].
        after: Answers of the other model.
        truth: The labels [decisions, ...].
        drift: Absolute change of the score that decides [decisions].
        left_out: Texts that the two tokenizers cut into different words, so that answers cannot be paired.
    """

    kind: TaskKind
    names: Sequence[str]
    rows: np.ndarray
    before: np.ndarray
    after: np.ndarray
    truth: np.ndarray
    drift: np.ndarray
    left_out: int = 0

    @property
    def changed(self) -> np.ndarray:
        """Whether the answer differs [decisions], bool; of numbers, which always differ a little, never."""
        equal = _equal(self.before, self.after)
        return np.zeros_like(equal) if self.kind.numeric else ~equal

    @property
    def lost(self) -> np.ndarray:
        """Whether the reference is right and the other model is not [decisions], bool."""
        return self.changed & _equal(self.before, self.truth)

    @property
    def won(self) -> np.ndarray:
        """Whether the other model is right and the reference is not [decisions], bool."""
        return self.changed & _equal(self.after, self.truth)

    def share(self) -> Interval:
        """Return the share of answers that differ, with a 95 % interval; words of one text are not independent."""
        changed, texts = self.changed, np.unique(self.rows)
        if len(texts) == len(changed) or not changed.any():
            return Interval(changed.mean(), *wilson(int(changed.sum()), len(texts))[1:])
        flips = np.bincount(self.rows, changed)[texts]
        words = np.bincount(self.rows)[texts]
        return bootstrap(lambda index: float(flips[index].sum() / words[index].sum()), len(texts))

    def by_answer(self) -> list[dict[str, Any]]:
        """Count flips by the reference's answer, in the order of the labels; rare answers together at the end."""
        answers, member, sizes = np.unique(self.before, axis=0, return_inverse=True, return_counts=True)
        member = member.reshape(-1)
        frequent = np.sort(np.argsort(-sizes, kind="stable")[:GROUPS])
        groups = [
            self._counts(self.kind.answer_name(answers[index], self.names), member == index) for index in frequent
        ]
        rest = ~np.isin(member, frequent)
        return groups + ([self._counts(f"{len(sizes) - GROUPS} other answers", rest)] if rest.any() else [])

    def by_length(self, lengths: npt.ArrayLike) -> list[dict[str, Any]]:
        """Count flips by third of the sorted lengths; texts of equal length stay together.

        Args:
            lengths: Tokens of each text [texts].
        """
        sizes = np.asarray(lengths)
        low, high = (int(edge) for edge in np.quantile(sizes, [1 / 3, 2 / 3], method="lower"))
        own = sizes[self.rows]
        groups = {
            f"up to {low} tokens": own <= low,
            f"{low + 1} to {high} tokens": (own > low) & (own <= high),
            f"over {high} tokens": own > high,
        }
        return [self._counts(name, mask) for name, mask in groups.items() if mask.any()]

    def _counts(self, group: str, mask: np.ndarray) -> dict[str, Any]:
        counts = {"n": mask, "changed": mask & self.changed, "lost": mask & self.lost, "won": mask & self.won}
        return {"group": group, **{name: int(values.sum()) for name, values in counts.items()}}

    def most_changed(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Return the texts whose deciding score moved most, each once, with both answers and the label.

        Args:
            texts: The texts.
        """
        listed: dict[int, dict[str, Any]] = {}
        for index in np.argsort(-self.drift, kind="stable"):
            row = int(self.rows[index])
            if len(listed) == SHOWN or self.drift[index] <= NOISE:
                break
            if row not in listed:
                answers = {"before": self.before, "after": self.after, "label": self.truth}
                named = {key: self.kind.answer_name(value[index], self.names) for key, value in answers.items()}
                listed[row] = {"row": row, "text": excerpt(texts[row]), **named, "drift": float(self.drift[index])}
        return list(listed.values())

    def facts(self, split: str, reference: str, lengths: npt.ArrayLike, texts: Sequence[str]) -> Iterator[Measurement]:
        """Yield the facts of the model that is compared: flips, unless its answers are numbers, and drift.

        Args:
            split: Name of the split.
            reference: Key of the reference.
            lengths: Tokens of each text [texts].
            texts: The texts.
        """
        if not (count := len(self.rows)):
            return
        shared: dict[str, Any] = {"reference": reference} | ({"left_out": self.left_out} if self.left_out else {})
        if not self.kind.numeric:
            detail = {"lost": int(self.lost.sum()), "won": int(self.won.sum())}
            groups = {"by_answer": self.by_answer(), "by_length": self.by_length(lengths)}
            yield Measurement.of(FLIPS, self.share(), n=count, split=split, detail={**shared, **detail, **groups})
        detail_of_drift = {
            "p95": float(np.quantile(self.drift, 0.95)),
            "largest": float(self.drift.max()),
            "most_changed": self.most_changed(texts),
        }
        mean = float(self.drift.mean())
        yield Measurement(DRIFT, mean, "1", n=count, split=split, detail={**shared, **detail_of_drift})


def compare(kind: TaskKind, names: Sequence[str], reference: Answers, other: Answers) -> Changes:
    """Compare two models on the same texts.

    Args:
        kind: Kind of the task.
        names: The label names.
        reference: Answers of the model that is compared with.
        other: Answers of the other model.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    left_out = 0
    for row, (logits, label, others, own) in enumerate(
        zip(reference.logits, reference.labels, other.logits, other.labels, strict=True)
    ):
        before, truth = kind.decisions([logits], [label])
        after, _ = kind.decisions([others], [own])
        if len(before) == len(after):
            parts.append((np.full(len(before), row), before, after, truth))
        else:
            left_out += 1
    if not parts:
        nothing = np.empty(0, dtype=np.int64)
        return Changes(kind, names, nothing, nothing, nothing, nothing, nothing, left_out)
    rows, before, after, truth = (np.concatenate(column) for column in zip(*parts, strict=True))
    drift = kind.drift(before, after, truth)
    answers = (kind.answers(logits, truth) for logits in (before, after))
    return Changes(kind, names, rows, next(answers), next(answers), truth, drift, left_out)


def excerpt(text: str) -> str:
    r"""Return the beginning of a text on one line.

    >>> excerpt("two\nlines")
    'two lines'
    """
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"


def _equal(first: np.ndarray, second: np.ndarray) -> npt.NDArray[np.bool_]:
    """Return whether answers are equal in everything [decisions]."""
    return np.asarray((first == second).reshape(len(first), -1).all(axis=1))
