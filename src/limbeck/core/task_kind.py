"""What a kind of task says about itself: how labels are read, what answers mean, how they are scored and shown.

Each kind is one file in ``core/kinds``. Nothing here needs torch: losses go by ``problem_type``
(``model/output_losses.py``), and heads by ``per_token`` and ``auto_class``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from limbeck.core.assessment import Assessment, UnseenWord
from limbeck.core.decision import Decision, DecisionGoal, Detection
from limbeck.core.logits import activate
from limbeck.core.metrics import METRICS
from limbeck.core.output_kind import Output
from limbeck.core.statistics import Interval

Label: TypeAlias = Any
"""A label as ``Split.labels`` has it: its form depends on the kind."""

Logits: TypeAlias = Sequence[np.ndarray] | np.ndarray
"""Logits of several texts: [rows, labels]; for labels of words, rows of [positions, labels]."""


PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
"""What transformers may find as ``problem_type`` in a configuration; models of other kinds have none there."""

CONSTANTS = 200  #: the most frequent labels tried as constant answers
OWN_LENGTH = 100_000  #: ``max_length`` of a task whose texts are as long as its model reads


class LabelForm(NamedTuple):
    """One of several forms that labels of a kind may have.

    Attributes:
        name: What such labels are, in words.
        metrics: Metrics that read them, the usual one first.
    """

    name: str
    metrics: tuple[str, ...]


class TaskKind(Output):
    """A kind of task. The defaults are those of labels that are one class, of a text or of a word.

    Attributes:
        problem_type: Name in transformers, which decides the loss.
        default_metric: The first of the kind's metrics.
        metrics: Names of metrics that fit although they do not name the kind, so that a new kind changes no other file.
        first_label: Name of the label that comes first if there is one of this name: metrics leave it out.
        single_class: Whether the label of a row is one class: splits keep the proportions of classes, and right answers
            are recorded row by row for paired tests.
        standardized: Whether labels are numbers with a unit, which training replaces by standard deviations from their
            mean.
        label_dtype: Type of the labels in a batch.
        label_noun: What a label is called, singular and plural; None where there are no labels to count.
        pipeline: The pipeline of transformers, by which the hub sorts models.
        usual_length: Tokens after which texts are cut, unless the task says so.
    """

    problem_type: ClassVar[str]
    default_metric: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ()
    first_label: ClassVar[str | None] = None
    single_class: ClassVar[bool] = False
    standardized: ClassVar[bool] = False
    label_dtype: ClassVar[Literal["int64", "float32"]] = "int64"
    label_noun: ClassVar[tuple[str, str] | None] = ("label", "labels")
    pipeline: ClassVar[str] = "text-classification"
    usual_length: ClassVar[int] = 128

    # ---- labels ----

    def parts(self, cell: Any, separator: str | None) -> Any:  # a cell of any type
        """Divide a cell of the label column into labels; a cell that is no list where it should be stays as it is.

        Args:
            cell: A cell that is not empty.
            separator: What stands between the labels of one text, where they are one string.
        """
        return [cell]

    def encode(self, indices: Sequence[int], width: int, words: int) -> Label:
        """Make the label of a row from label indices.

        Args:
            indices: Index of each label in the row's cell.
            width: Number of label names.
            words: Number of words of the text.

        Raises:
            InputError: There are too many or too few.
        """
        return indices[0]

    def renumber(self, label: Label, indices: Sequence[int], width: int) -> Label:
        """Change a label to another list of label names.

        Args:
            label: The label.
            indices: The new index of each old label.
            width: Number of new label names.
        """
        return indices[label] if label >= 0 else label

    def classes_in(self, label: Label) -> Iterable[int]:
        """Return the index of every label name that a row's label has, as often as it has it."""
        return (label,)

    def describe(self, label: Label, names: Sequence[str]) -> str:
        """Format a label by the names of the task."""
        return " ".join(names[index] for index in self.classes_in(label))

    def truth(self, labels: Sequence[Label] | np.ndarray) -> np.ndarray:
        """Return the labels of all rows as metrics take them, [rows] or [rows, labels]; of words one after another."""
        return np.asarray(labels, dtype=np.int64)

    def label_counts(self, labels: Sequence[Label]) -> Counter[int]:
        """Count how often each label index occurs."""
        return Counter(index for label in labels for index in self.classes_in(label))

    def form_of(self, labels: Sequence[Label]) -> LabelForm | None:
        """Return the form of labels; None where every metric of the kind reads them."""
        return None

    def usual_metric(self, names: Sequence[str]) -> str:
        """Return the metric of a task with these label names, unless the user names one."""
        if self.first_label is not None and names[0] != self.first_label:
            return "accuracy"  # there is nothing to leave out
        return self.default_metric

    def says_nothing(self, metric: str, labels: Sequence[Label]) -> str:
        """Return why a metric has the same value for every model on a split with these labels; '' if it has not."""
        return ""

    def fidelity_metric(self, names: Sequence[str]) -> str:
        """Return the usual metric where the labels are a model's own answers."""
        return "agreement"

    # ---- answers ----

    def answered_label(self, logits: npt.ArrayLike, label: Label) -> Label:
        """Return the label that a model's logits give in place of ``label``, with all that fidelity is measured by."""
        return self.review(logits, label, 1.0)[0]

    @abstractmethod
    def label_of(self, answer: Mapping[str, Any], names: Sequence[str]) -> Label:
        """Return the label that an answer gives, as :meth:`Output.answer` formats it.

        Args:
            answer: The answer to a text.
            names: The label names.
        """

    def decode(self, logits: npt.ArrayLike) -> np.ndarray:
        """Turn logits [..., labels] into predictions that metrics compare with labels."""
        return np.asarray(np.asarray(logits).argmax(axis=-1))

    def decisions(self, logits: Logits, labels: Sequence[Label] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Align the logits and labels of several rows, without positions that do not count.

        Args:
            logits: Logits in the order of the labels.
            labels: The rows' labels; of words one for every position, as ``data.batching.encode`` gives them.

        Returns:
            Logits [decisions, labels], and labels [decisions] or [decisions, labels].
        """
        return np.asarray(logits), self.truth(labels)

    def readings(self, metric: str, logits: npt.ArrayLike) -> np.ndarray:
        """Turn logits [rows, labels] into what a metric takes: predictions, or scores for a ranking metric.

        Args:
            metric: Name of the metric.
            logits: [rows, labels].
        """
        return activate(logits, self.activation) if METRICS[metric].reads_scores else self.decode(logits)

    def score(self, metric: str, names: Sequence[str], logits: Logits, labels: Sequence[Label] | np.ndarray) -> float:
        """Compute a metric of logits.

        Args:
            metric: Name of the metric.
            names: The label names.
            logits: Logits in the order of the labels.
            labels: The rows' labels; of words one for every position, where ``IGNORED`` ones do not count.
        """
        values, truth = self.decisions(logits, labels)
        return METRICS[metric](self.readings(metric, values), truth)

    def same_answers(self, first: Logits, second: Logits, labels: Sequence[npt.ArrayLike]) -> np.ndarray:
        """Return whether two models answer alike [rows].

        Args:
            first: Logits of one model.
            second: Logits of the other.
            labels: The rows' labels, which say which positions count.
        """
        equal = self.decode(np.stack(list(first))) == self.decode(np.stack(list(second)))
        return np.asarray(equal.reshape(len(equal), -1).all(axis=1))

    def answers(self, logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Turn logits into answers that can be compared one by one.

        Args:
            logits: Logits [decisions, labels].
            truth: The labels, whose form may say what an answer is.
        """
        return self.decode(logits)

    def drift(self, before: np.ndarray, after: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Return how far the score that decides has moved: of the answer before, its probability [decisions].

        Args:
            before: Logits of the reference [decisions, labels].
            after: Logits of another model.
            truth: The labels, whose form may say what an answer is.
        """
        answers = self.decode(before)[:, None]
        scores = (np.take_along_axis(activate(logits, self.activation), answers, axis=-1) for logits in (before, after))
        return np.asarray(np.abs(next(scores) - next(scores))[:, 0])

    def likeness(self, before: Logits, after: Logits, labels: Sequence[Label]) -> dict[str, Interval]:
        """Measure how far two models agree on all rows together, beyond flips and drift; by name of the fact.

        Args:
            before: Logits of the reference.
            after: Logits of another model.
            labels: The rows' labels.
        """
        return {}

    def answer_name(self, answer: Any, names: Sequence[str]) -> str:  # a row of what ``decode`` returns
        """Format one answer as :meth:`decode` gives it.

        Args:
            answer: The answer.
            names: The label names.
        """
        return names[int(answer)]

    # ---- decisions by thresholds (core/decision.py) ----

    def goal_problems(self, goal: DecisionGoal, names: Sequence[str]) -> dict[str, str]:
        """Return the fields of a goal that make no sense for a task with these labels, with the reason.

        Args:
            goal: What is to be fitted.
            names: The label names.
        """
        wanted = {field.name: getattr(goal, field.name) != field.default for field in fields(goal)}
        return {field: f"has no meaning for {self.name}; leave it out" for field, given in wanted.items() if given}

    def detections(
        self,
        logits: np.ndarray,
        labels: Sequence[Label] | np.ndarray,
        names: Sequence[str],
        goal: DecisionGoal,
        temperature: float,
    ) -> dict[str, Detection]:
        """Return every label that has a threshold as a question of yes or no.

        Args:
            logits: [rows, labels].
            labels: [rows].
            names: The label names.
            goal: Says which labels, and by which score.
            temperature: What logits are divided by for the scores, not for the model's usual rule.
        """
        return {}

    def decided(self, logits: np.ndarray, names: Sequence[str], decision: Decision) -> np.ndarray:
        """Return predictions as metrics take them, by thresholds [rows] or [rows, labels].

        Args:
            logits: [rows, labels].
            names: The label names.
            decision: Thresholds and temperature.
        """
        return self.decode(logits)

    @abstractmethod
    def assess(
        self,
        metric: str,
        names: Sequence[str],
        logits: Logits,
        labels: Sequence[Label],
        unseen: Sequence[Sequence[UnseenWord]] = (),
    ) -> Assessment:
        """Score logits with an interval over the rows.

        Args:
            metric: Name of the metric.
            names: The label names.
            logits: Logits in the order of the labels.
            labels: The rows' labels; of words one for every position, as ``data.batching.encode`` gives them.
            unseen: For words, those of each row that have no token. They count as answered with 'O' (or the first
                label), the same for every model, and ``detail["unseen_words"]`` has their number.
        """

    @abstractmethod
    def review(self, logits: npt.ArrayLike, label: Label, confidence: float) -> tuple[Label, Label]:
        """Compare a model's prediction for one row with its label.

        The prediction overrules the label where it differs with a probability of at least ``confidence``; of several
        labels, or of the labels of words, each is compared by itself. Numbers have no confidence and are never
        overruled.

        Args:
            logits: [labels]; of words [words, labels], NaN for words that were cut off, which keep their labels.
            label: The label of the row.
            confidence: Probability from which the model overrules the label.

        Returns:
            The prediction, and the label after it was overruled or not.
        """

    def constants(self, truth: np.ndarray, width: int) -> Iterator[tuple[float | np.ndarray, Sequence[int]]]:
        """Yield constant answers worth trying, likeliest first, each with the indices of its labels.

        Args:
            truth: Labels of the training rows, as :meth:`truth` returns them.
            width: Number of label names.
        """
        counts = np.bincount(truth, minlength=width)
        for index in np.argsort(-counts, kind="stable")[:CONSTANTS]:
            yield index, (int(index),)

    def confusion(
        self, logits: Sequence[npt.ArrayLike] | np.ndarray, labels: Sequence[Any], count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count, text by text, which output answers where which label is true.

        Args:
            logits: Of each text [labels], or of its positions [positions, labels].
            labels: The label of each text, or its labels.
            count: Number of labels.

        Returns:
            Decisions [texts, label, output]; decisions that the most frequent answer alone gets right [texts]; and all
            decisions [texts].
        """
        tables = np.zeros((len(labels), count, count))
        for table, values, label in zip(tables, logits, labels, strict=True):
            counted, truth = self.decisions([np.asarray(values)], [label])
            np.add.at(table, (truth, self.decode(counted)), 1.0)
        constant, totals = tables.sum(2)[:, tables.sum((0, 2)).argmax()], tables.sum((1, 2))
        return tables, np.asarray(constant), np.asarray(totals)
