"""Fit cascades of exported candidates on validation texts, and find the pairs that pay.

Answers are those that the probe of quality keeps, so nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from limbeck.core import pareto
from limbeck.core.acceptance import value
from limbeck.core.candidate import Candidate, Record, Stored
from limbeck.core.cascade import Criterion, cascade_logits, fit_cascade, paying_pairs
from limbeck.core.label_names import label_difference, read_labels
from limbeck.core.measurement import CASCADE, Measurement
from limbeck.errors import InputError, LimbeckError

if TYPE_CHECKING:
    from limbeck.core.early_exits import EarlyExits, FittedExits
    from limbeck.core.model import Runnable
    from limbeck.core.step import RunContext
    from limbeck.measure.split_answers import SplitAnswers

SPLIT = "validation"
TOLERANCE = 1e-3
"""Share of the largest logit by which answers of one graph may differ from those of two."""
TOGETHER = 32
"""Texts answered together by float models, as by the probe of quality."""


class FoundPair(NamedTuple):
    """A pair that pays.

    Attributes:
        small: Key of the smaller model.
        large: Key of the larger one.
        fitted: When the smaller one answers.
        seconds: Expected mean time of a call, as a share of the larger model's.
    """

    small: str
    large: str
    fitted: FittedExits
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.small} before {self.large}: {100 * self.fitted.shares[0]:.0f} % of the validation texts need the "
            f"first alone; a call should take {100 * self.seconds:.0f} % of the second's time on average"
        )


def front_of(candidates: Sequence[Stored], records: Sequence[Record]) -> list[Stored]:
    """Return the candidates that none beats in both quality and mean time, the fastest first.

    Args:
        candidates: The candidates.
        records: Records of those that are compared, with both facts.
    """
    points = [(value(record, "quality"), mean_seconds(record)) for record in records]
    on_front = pareto.front(points, ("max", "min"))
    front_records = [record for record, stays in zip(records, on_front, strict=True) if stays]
    by_key = {each.key: each for each in candidates}
    return [by_key[record.key] for record in sorted(front_records, key=mean_seconds)]


def mean_seconds(record: Record) -> float:
    """Return the mean time of a call; the median where an earlier version kept no mean."""
    return value(record, "latency_mean" if record.fact("latency_mean") else "latency_p50")


def find_pairs(
    front: Sequence[Stored], max_changed: float, criterion: Criterion, context: RunContext
) -> list[FoundPair]:
    """Return the pairs of candidates that pay, those first that save the largest share of their larger model's time.

    Args:
        front: The candidates, with their records.
        max_changed: Largest share of answers that may differ from the larger model's, in per cent.
        criterion: By what the smaller model is sure.
        context: Has the target, and keeps answers.
    """
    from limbeck.measure.split_answers import split_answers

    opened = [each.open() for each in front]
    answers = [split_answers(each, SPLIT, TOGETHER, context) for each in opened]
    task, labels = opened[0].task, answers[0].encoded.labels
    seconds = [mean_seconds(each.record) for each in front if each.record is not None]
    pairs = paying_pairs(
        [np.asarray(each.logits) for each in answers],
        seconds,
        lambda logits: float(task.score(logits, labels)),
        max_changed / 100,
        criterion,
        lambda small, large: not difference(opened[small], opened[large], (answers[small], answers[large])),
        context.target.batch,
    )
    return [
        FoundPair(front[pair.small].key, front[pair.large].key, pair.fitted, pair.seconds / seconds[pair.large])
        for pair in pairs
    ]


def check_labels(small: Sequence[str], large: Sequence[str]) -> None:
    """Refuse two models of which the same logit stands for different labels.

    Args:
        small: Labels of the smaller model, in the order of its outputs.
        large: Those of the larger one.

    Raises:
        InputError: They differ in number, names or order.
    """
    if reason := label_difference(small, large):
        raise InputError(f"cascade: the two models {reason}; both should have the same labels in the same order")


def _labels(candidate: Candidate) -> tuple[str, ...]:
    return read_labels(candidate.model.config, candidate.model.folder)


def difference(small: Candidate, large: Candidate, answers: tuple[SplitAnswers, SplitAnswers]) -> str:
    """Return what keeps two models from being a cascade: other labels or other token ids; empty if nothing does.

    Args:
        small: The smaller model.
        large: The larger one.
        answers: What they read and answered.
    """
    if reason := label_difference(_labels(small), _labels(large)):
        return reason
    if small.tokenizer.get_vocab() != large.tokenizer.get_vocab():
        return "have different vocabularies"
    lengths = small.task.max_length, large.task.max_length
    if lengths[0] != lengths[1]:
        return f"cut texts after {lengths[0]} and {lengths[1]} tokens"
    first, second = (list(map(tuple, each.encoded.input_ids)) for each in answers)
    return "" if first == second else "split texts into different tokens"


def fit(
    small: Candidate, large: Candidate, max_changed: float, criterion: Criterion, context: RunContext
) -> FittedExits:
    """Find on validation texts when a smaller model answers instead of a larger one.

    Args:
        small: The smaller model.
        large: The larger one.
        max_changed: Largest share of answers that may differ from the larger model's, in per cent.
        criterion: By what the smaller model is sure.
        context: Has the target, keeps answers, and is told of the result.

    Raises:
        InputError: They have other labels, read different tokens, or no threshold is shown to hold.
    """
    from limbeck.measure.split_answers import split_answers

    check_labels(_labels(small), _labels(large))
    answers = (split_answers(small, SPLIT, TOGETHER, context), split_answers(large, SPLIT, TOGETHER, context))
    if reason := difference(small, large, answers):
        raise InputError(f"cascade: the two models {reason}; both should read the same token ids")
    logits = [np.asarray(each.logits) for each in answers]
    fitted = fit_cascade(logits[0], logits[1], max_changed / 100, criterion)
    count = len(fitted.heads)
    if fitted.exits.threshold is None:
        raise InputError(
            f"cascade: of {count:,} validation texts the smaller model answers none at a threshold of which they show "
            f"that at most {max_changed:g} % of the answers change; give more texts or a larger max_changed"
        )
    context.log(
        f"{criterion} {fitted.exits.threshold:g}: the smaller model answers {100 * fitted.shares[0]:.0f} % of the "
        f"texts; {fitted.changed} of {count:,} validation answers change, with 95 % confidence at most "
        f"{100 * fitted.highest:.2f} % of all"
    )
    return fitted


def check_answers(model: Runnable, small: Candidate, large: Candidate, exits: EarlyExits, texts: int = 100) -> float:
    """Compare the answers of a cascade on validation texts, in batches, with those that its models give by the rule.

    Args:
        model: The cascade.
        small: The smaller model.
        large: The larger one.
        exits: The rule.
        texts: Number of texts.

    Returns:
        The largest difference of a logit.

    Raises:
        LimbeckError: It gives other answers. One text may be sure for the one computation and not for the other, by a
            rounding.
    """
    from limbeck.data.calibration import first_batches

    strangers, largest = 0, 0.0
    batches, _ = first_batches(large.task, SPLIT, large.tokenizer, texts)
    for batch in batches:
        both = [each.model.predict(batch) for each in (small, large)]
        differences = np.abs(model.predict(batch) - cascade_logits(exits, *both)).max(axis=-1)
        near = differences <= TOLERANCE * max(1.0, float(np.abs(both).max()))
        strangers += int((~near).sum())
        largest = max(largest, float(differences[near].max(initial=0.0)))
    if strangers > 1:
        raise LimbeckError(
            f"cascade: {strangers} of the first {texts} validation texts have other answers in one graph than from the "
            "two models; report them"
        )
    return largest


def cascade_fact(fitted: FittedExits) -> Measurement:
    """Return the share of texts that the smaller model answers, with all that the rule does."""
    return replace(fitted.fact(SPLIT), name=CASCADE)
