"""Cascades: a smaller model answers the texts that it is sure of, a larger one the others.

The rule is that of early exits (``early_exits.py``), with the smaller model as the only head before the last.

References: Viola and Jones, 2001, doi:10.1109/CVPR.2001.990517 (cascades of classifiers); Wang et al., 2020,
arXiv:2012.01988 (cascades of trained models, by the confidence of the smaller); FrugalGPT (Chen et al., 2023,
arXiv:2305.05176).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from limbeck.core import pareto
from limbeck.core.early_exits import EarlyExits, FittedExits, answering_heads, fit_exits
from limbeck.errors import InputError, nearest, shown

SECTION = "cascade"
"""The entry of config.json."""
Criterion = Literal["confidence", "entropy"]
"""Those of early exits that need no second head."""
SMALLER_FIRST = (1,)
"""The place of the only inner head: after the first of two models."""


@dataclass(frozen=True)
class Cascade:
    """What a model's folder says of the smaller of two models in its graph.

    Attributes:
        criterion: By what the smaller model is sure, as in :class:`EarlyExits`.
        threshold: From where on it is.
        small: The smaller model's own config.json.
    """

    criterion: Criterion
    threshold: float
    small: Mapping[str, Any]

    @property
    def exits(self) -> EarlyExits:
        """The rule."""
        return EarlyExits(SMALLER_FIRST, self.criterion, self.threshold)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as in config.json."""
        return {"criterion": self.criterion, "threshold": self.threshold, "small": dict(self.small)}


def cascade_in(config: Mapping[str, Any], source: object = "model") -> Cascade | None:
    """Return what a config.json of ours says about a cascade; None for a single model.

    Args:
        config: The content of a config.json.
        source: Name of the model in errors.

    Raises:
        InputError: The entry is damaged.
    """
    if (data := config.get(SECTION)) is None:
        return None
    where = f"{source}: {SECTION} in config.json"
    if not isinstance(data, Mapping) or data.keys() != {"criterion", "threshold", "small"}:
        raise InputError(f"{where} should have criterion, threshold and small, got {shown(data)}")
    criterion, threshold, small = data["criterion"], data["threshold"], data["small"]
    if criterion not in get_args(Criterion):
        raise InputError(f"{where}: criterion {shown(criterion)}; {nearest(str(criterion), get_args(Criterion))}")
    if type(threshold) not in (int, float) or not 0 <= threshold <= 1000:
        raise InputError(f"{where}: threshold should be a number from 0 to 1000, got {shown(threshold)}")
    if not isinstance(small, Mapping):
        raise InputError(f"{where}: small should be the configuration of a model, got {shown(small)}")
    return Cascade(criterion, threshold, small)


def fit_cascade(
    small: np.ndarray, large: np.ndarray, most_changed: float, criterion: Criterion = "confidence"
) -> FittedExits:
    """Find when a smaller model is sure enough to answer instead of a larger one.

    Args:
        small: Logits of the smaller model on texts that were not trained on [rows, classes].
        large: Those of the larger model.
        most_changed: Largest share of answers that may differ from the larger model's.
        criterion: By what the smaller model is sure.

    Returns:
        The rule; its threshold is None if none is shown to hold, or the smaller model answers nothing.
    """
    return fit_exits(EarlyExits(SMALLER_FIRST, criterion), np.stack([small, large]), most_changed)


def cascade_logits(exits: EarlyExits, small: np.ndarray, large: np.ndarray) -> np.ndarray:
    """Return the answers of a cascade: the smaller model's where it is sure, else the larger one's [rows, classes].

    Args:
        exits: The rule.
        small: Logits of the smaller model [rows, classes].
        large: Those of the larger model.
    """
    both = np.stack([small, large])
    logits: np.ndarray = both[answering_heads(exits, both), np.arange(len(small))]
    return logits


class PayingPair(NamedTuple):
    """Two models that pay as a cascade.

    Attributes:
        small: Which of the models is the smaller one.
        large: Which is the larger one.
        fitted: When the smaller one answers.
        seconds: Expected mean time of a call.
    """

    small: int
    large: int
    fitted: FittedExits
    seconds: float


def paying_pairs(
    logits: Sequence[np.ndarray],
    seconds: Sequence[float],
    score: Callable[[np.ndarray], float],
    most_changed: float,
    criterion: Criterion = "confidence",
    compatible: Callable[[int, int], bool] = lambda small, large: True,
    batch: int = 1,
) -> list[PayingPair]:
    """Return the pairs of models that neither a single model nor another pair beats in both quality and mean time.

    A call of a cascade takes the time of the smaller model, and that of the larger one if a text of the batch goes on.
    Texts of any length are taken to go on equally often, and independently of each other; what is chosen here is
    measured later. A smaller model that would answer every text needs no larger one.

    Args:
        logits: Of each model, on the same texts [rows, classes].
        seconds: Mean time of a call of each model.
        score: Maps logits to the metric, of which more is better.
        most_changed: Largest share of answers that may differ from the larger model's.
        criterion: By what the smaller model is sure.
        compatible: Whether two of them read the same tokens.
        batch: Texts of a call.

    Returns:
        The pairs, those first that save the largest share of their larger model's time.
    """
    alone = [(score(rows), time) for rows, time in zip(logits, seconds, strict=True)]
    pairs, points = [], []
    for small, large in combinations(sorted(range(len(logits)), key=lambda index: seconds[index]), 2):
        if not compatible(small, large):
            continue
        fitted = fit_cascade(logits[small], logits[large], most_changed, criterion)
        expected = seconds[small] + (1 - fitted.shares[0] ** batch) * seconds[large]
        if 0 < fitted.leaving < len(fitted.heads) and expected < seconds[large]:
            pairs.append(PayingPair(small, large, fitted, expected))
            points.append((score(cascade_logits(fitted.exits, logits[small], logits[large])), expected))
    on_front = pareto.front([*alone, *points], ("max", "min"))[len(alone) :]
    paying = [pair for pair, stays in zip(pairs, on_front, strict=True) if stays]
    return sorted(paying, key=lambda pair: pair.seconds / seconds[pair.large])
