"""Evaluate latency predictions: cross-validated, or by an earlier predictor on unseen shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.cost_models.latency_dataset import read
from limbeck.cost_models.latency_predictor import Errors, Predictor
from limbeck.cost_models.predictor_file import fit_predictor, is_predictor, read_predictor
from limbeck.data.readers import plural
from limbeck.errors import InputError


@dataclass(frozen=True)
class Evaluation:
    """Errors of a predictor, and of its additive part alone where it was cross-validated."""

    predictor: Predictor
    errors: Errors
    additive: Errors | None
    how: str

    def __str__(self) -> str:
        """Say what was learned, and how well it predicts."""
        setting, seconds = self.predictor.setting, 1e3 * np.asarray(self.predictor.seconds)
        lines = [
            f"{len(seconds)} shapes of {seconds.min():.3g} to {seconds.max():.3g} ms: {setting.number_format}, "
            f"{setting.target}, {setting.seq_len} tokens, machine {self.predictor.machine or 'unknown'}",
            f"error on {self.errors.count} shapes, {self.how}: {_words(self.errors)}",
        ]
        if self.additive is not None and self.predictor.boosted:
            lines.append(f"without trees: {_words(self.additive)}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the figures; shares of the measured time, and rmse in seconds."""
        setting = self.predictor.setting
        plain = {"number_format": setting.number_format, "seq_len": setting.seq_len, "target": str(setting.target)}
        plain |= {"machine": self.predictor.machine, "shapes": len(self.predictor.shapes), "how": self.how}
        additive = {"additive": asdict(self.additive)} if self.additive is not None else {}
        return plain | {"errors": asdict(self.errors)} | additive


def _words(errors: Errors) -> str:
    shares = f"median {errors.median:.1%}, mean {errors.mean:.1%}, 95 % within {errors.p95:.1%}"
    return f"{shares}; root mean square {1e3 * errors.rmse:.3g} ms; Kendall's tau {errors.tau:.3f}"


def evaluate(data: Path, criteria: Mapping[str, object], seed: int = 0, against: Path | None = None) -> Evaluation:
    """Fit a predictor to a file and cross-validate it, or compare an earlier one with shapes that it did not see.

    Args:
        data: File of latency data or of a predictor.
        criteria: Which series of the file (``latency_dataset.Dataset.series``).
        seed: Seed of a new fit.
        against: File of the earlier predictor.

    Raises:
        InputError: A file does not fit, or the data hold nothing that the earlier predictor did not learn from.
    """
    if against is None:
        predictor = fit_predictor(data, seed, **criteria)
        return Evaluation(predictor, predictor.errors, predictor.errors_additive, "cross-validated")
    predictor = read_predictor(against)
    if is_predictor(data):
        other = read_predictor(data, **criteria)
        shapes, seconds, setting = other.shapes, np.asarray(other.seconds), other.setting
    else:
        setting = predictor.setting
        own = {"number_format": setting.number_format, "seq_len": setting.seq_len, **_target(predictor)}
        series = read(data).series(**own | dict(criteria))
        shapes, seconds, setting = series.shapes, series.seconds, series.setting
    if setting != predictor.setting:
        raise InputError(f"{data} was measured in a different setting from {against}; choose a series with its setting")
    fresh = [index for index, shape in enumerate(shapes) if shape not in set(predictor.shapes)]
    if len(fresh) < 2:
        raise InputError(
            f"{data} has {plural(len(fresh), 'shape')} that {against} did not learn from; at least 2 are needed"
        )
    predicted = predictor.seconds_of([shapes[index] for index in fresh])
    return Evaluation(predictor, Errors.of(predicted, seconds[fresh]), None, "which it did not learn from")


def _target(predictor: Predictor) -> dict[str, object]:
    target = predictor.setting.target.identity()
    return {name: target[name] for name in ("device", "runtime", "threads", "batch")}
