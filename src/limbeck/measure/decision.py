"""Fit decision thresholds and a temperature for each candidate on validation, and measure what they give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.decision import (
    CALIBRATION_ERROR,
    DETECTION,
    TEMPERATURE,
    THRESHOLD,
    Decision,
    DecisionGoal,
    Detection,
    Goal,
    detection_detail,
    fit_threshold,
)
from limbeck.core.field_groups import group, without_effect
from limbeck.core.label_names import label_called
from limbeck.core.measurement import Measurement
from limbeck.core.step import Probe, RunContext, StepInfo, step
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    import numpy as np

    from limbeck.core.pieces import Piece, Result
    from limbeck.core.shape import Shape
    from limbeck.core.target import Target
    from limbeck.core.task import Task
    from limbeck.core.task_kind import TaskKind

FITTED_ON = "validation"


@step(
    StepInfo(
        "decision",
        version=2,
        reads={"teacher", "target"},
        with_teacher=True,
        judges=True,
        example={"temperature": True},
    )
)
class DecisionProbe(Probe):
    """Fit the threshold of each label, and a temperature, on validation; measure both there and on ``split``.

    A threshold makes a candidate decide like the original model: with the same recall, precision or alarm rate on
    validation. A temperature makes probabilities as large as answers are often right. Both are stored in the artefact's
    ``limbeck.json``; predictions and the card's example use them.

    Units: rates 0 to 1; a calibration error likewise, in bins of equal width.
    """

    goal: DecisionGoal = group(default=DecisionGoal())
    split: str = "validation"  #: where figures are measured besides validation: 'test', once, at the end
    batch: Annotated[int, Ge(1), Le(100_000)] = 32  #: texts answered together

    def problems(self) -> list[str]:
        """Return what is missing, or has no effect."""
        goal, problems = self.goal, []
        if goal.threshold is None and goal.positive is None and not goal.temperature:
            problems.append("threshold: give a goal, as same-recall, or a positive class, or temperature: true")
        if goal.threshold is None:
            problems += without_effect(goal, ("original_threshold", "bands"), "without a threshold")
        if len(set(goal.bands)) < len(goal.bands):
            problems.append(f"bands: should differ, got {list(goal.bands)}")
        return problems

    def required_traits(self) -> frozenset[str]:
        """Return that there must be an original model, if its figures are the goal."""
        goal = self.goal.threshold
        return frozenset({"teacher"} if goal is not None and goal.startswith("same-") else ())

    def required_splits(self) -> tuple[str, ...]:
        """Return the splits whose texts are read."""
        return tuple(dict.fromkeys((FITTED_ON, self.split)))

    def task_problems(self, task: Task) -> dict[str, str]:
        """Return the fields that do not fit the task and its labels."""
        problems = task.task_kind.goal_problems(_named(self.goal, task), task.label_names)
        if self.goal.temperature and task.answered_by is not None:
            reason = "the labels are a model's own answers, which do not say how often it is right; leave it out"
            problems = {"temperature": reason} | problems
        return problems

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: one answer for each text.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        return forward_seconds(shape, sum(rows.get(split, 0) for split in self.required_splits()), tokens)

    def prepares(self, kind: TaskKind, target: Target) -> bool:
        """Return whether a candidate can be answered before it is measured."""
        from limbeck.measure.split_answers import prepares_answers

        return prepares_answers(kind, target)

    def work_on(
        self, pieces: Sequence[Piece], shared: Mapping[str, Any], candidate: Candidate, context: RunContext
    ) -> Iterable[Result]:
        """Keep the answers of a candidate."""
        from limbeck.measure.split_answers import keep_answers

        return keep_answers(candidate, self.required_splits(), self.batch, context, len(pieces))

    def measure(self, candidates: Sequence[Candidate], context: RunContext) -> Iterable[tuple[int, Measurement]]:
        """Yield what was fitted for each candidate, and its figures with and without."""
        from limbeck.core.model import AnswerSource

        compared = context.reference
        original: _Answers | None = None
        for index, candidate in enumerate(candidates):
            if isinstance(candidate.model, AnswerSource):
                continue  # it serves nobody, so nothing is decided by its scores
            answers = self._answers(candidate, context)
            if compared is not None and index == compared.position:
                original = answers
            for fact in _facts(_named(self.goal, candidate.task), candidate.task, answers, original or answers):
                yield index, fact

    def _answers(self, candidate: Candidate, context: RunContext) -> _Answers:
        import numpy as np

        from limbeck.measure.split_answers import split_answers

        splits = {}
        for split in self.required_splits():
            encoded, logits, _ = split_answers(candidate, split, self.batch, context)
            splits[split] = (np.stack(list(logits)).astype(float), candidate.task.task_kind.truth(encoded.labels))
        return _Answers(splits)


@dataclass(frozen=True)
class _Answers:
    """Logits [rows, labels] and labels of each split."""

    splits: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(repr=False)

    def detections(self, split: str, task: Task, goal: DecisionGoal, temperature: float) -> dict[str, Detection]:
        """Return the labels of a split that have thresholds.

        Args:
            split: Name of the split.
            task: Gives kind and label names.
            goal: Says which labels.
            temperature: What logits are divided by.
        """
        logits, labels = self.splits[split]
        return task.task_kind.detections(logits, labels, task.label_names, goal, temperature)


def _named(goal: DecisionGoal, task: Task) -> DecisionGoal:
    """Return the goal with the task's own name of the class that matters."""
    if goal.positive is None:
        return goal
    return replace(goal, positive=label_called(goal.positive, task.label_names, task.former_names))


def _facts(goal: DecisionGoal, task: Task, answers: _Answers, original: _Answers) -> Iterator[Measurement]:
    """Yield the facts of one candidate.

    Args:
        goal: What is to be fitted.
        task: The task.
        answers: Its answers.
        original: Those of the original model.
    """
    temperature = 1.0
    if goal.temperature:
        temperature, facts = _calibrate(task, answers)
        yield from facts
    if goal.threshold is None and goal.positive is None:
        return
    thresholds: dict[str, float] = {}
    if goal.threshold is not None:
        fact = _threshold(goal, goal.threshold, task, answers, original, temperature)
        thresholds = dict(fact.detail["thresholds"])
        yield fact
    decision = Decision(temperature, thresholds, goal.positive_score)
    figured = replace(goal, original_threshold=None)  # no candidate decides by that one
    for split, (logits, labels) in answers.splits.items():
        (recall, low, high), figures = detection_detail(
            answers.detections(split, task, figured, temperature), thresholds, goal.positive
        )
        figures |= _quality(task, logits, labels, decision, goal.positive)
        yield Measurement(DETECTION, recall, "1", low, high, n=len(labels), split=split, detail=figures)


def _threshold(
    goal: DecisionGoal, wanted: Goal, task: Task, answers: _Answers, original: _Answers, temperature: float
) -> Measurement:
    """Fit the threshold of every label.

    Args:
        goal: Says which labels, and by which score.
        wanted: What the thresholds have to meet.
        task: The task.
        answers: The candidate's answers.
        original: Those of the original model.
        temperature: What the candidate's logits are divided by.
    """
    detections = answers.detections(FITTED_ON, task, goal, temperature)
    before = original.detections(FITTED_ON, task, goal, 1.0)
    fitted = {name: fit_threshold(wanted, each, before[name]) for name, each in detections.items()}
    thresholds = {name: threshold for name, (threshold, _) in fitted.items()}
    shown = goal.positive or next(iter(thresholds))
    detail: dict[str, Any] = {
        "goal": wanted,
        "original_threshold": goal.original_threshold,
        "positive": goal.positive,
        "positive_score": goal.positive_score,
        "temperature": temperature,
        "thresholds": thresholds,
        "notes": [f"{name}: {note}" for name, (_, note) in fitted.items() if note],
    }
    count = len(answers.splits[FITTED_ON][1])
    return Measurement(THRESHOLD, thresholds[shown], "1", n=count, split=FITTED_ON, detail=detail)


def _calibrate(task: Task, answers: _Answers) -> tuple[float, list[Measurement]]:
    """Return the temperature, and the facts about it."""
    from limbeck.core.temperature import BINS, expected_calibration_error, fit_temperature, negative_log_likelihood

    activation = task.task_kind.activation
    logits, labels = answers.splits[FITTED_ON]
    temperature = fit_temperature(logits, labels, activation)
    detail: dict[str, Any] = {
        "nll_before": negative_log_likelihood(logits, labels, activation),
        "nll_after": negative_log_likelihood(logits, labels, activation, temperature),
    }
    if temperature == 1.0:
        detail["notes"] = ["all validation answers are right, or no better than chance: the temperature stays 1"]
    facts = [Measurement(TEMPERATURE, temperature, "1", n=len(labels), split=FITTED_ON, detail=detail)]
    for split, (values, truth) in answers.splits.items():
        before, after = (expected_calibration_error(values, truth, activation, each) for each in (1.0, temperature))
        error = {"before": before, "bins": BINS}
        facts.append(Measurement(CALIBRATION_ERROR, after, "1", n=len(truth), split=split, detail=error))
    return temperature, facts


def _quality(
    task: Task, logits: np.ndarray, labels: np.ndarray, decision: Decision, positive: str | None
) -> dict[str, Any]:
    """Return the metric by the usual rule and by thresholds, and of classes the accuracy on texts of the others.

    Args:
        task: Gives kind and metric.
        logits: [rows, labels].
        labels: The labels.
        decision: The fitted thresholds.
        positive: The class that matters.
    """
    import numpy as np

    from limbeck.core.metrics import METRICS

    kind, metric, names = task.task_kind, METRICS[task.metric], task.label_names
    predictions = {"usual": kind.decode(logits), "fitted": kind.decided(logits, names, decision)}
    figures: dict[str, Any] = {}
    if not metric.reads_scores and not kind.numeric:
        scores = {name: float(metric(values, labels)) for name, values in predictions.items()}
        figures["quality"] = {"metric": task.metric, **scores}
    if kind.single_class and positive is not None and (others := labels != list(names).index(positive)).any():
        figures["others"] = {
            name: float(np.mean(values[others] == labels[others])) for name, values in predictions.items()
        }
    return figures
