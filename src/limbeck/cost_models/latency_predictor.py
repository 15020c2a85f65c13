"""Latency of any shape of a space, fitted to measured ones: prices of operations, and trees for the rest.

    latency(shape) = sum over kinds of operations (price x count) x exp(trees(shape))

The first factor is additive over layers and follows from what an encoder computes (``features.design``): its prices are
fitted to the data set itself, hidden width included, none negative. It is inaccurate where kernels are irregular: on
narrow matrices, or where weights exceed a cache. Gradient-boosted trees (scikit-learn) fit the logarithm of the
residual from a dozen features (``features.SHAPE_FEATURES``, the additive prediction and the shares of its parts). Where
cross-validation finds that the trees do not help, they are left out.

Cross-validated residuals give the error and, as split-conformal prediction does (Vovk et al., 2005; Barber et al.,
2021, arXiv:1905.02928), bounds that hold for a new shape drawn like the measured ones with the stated probability.
Features outside the measured range are named, and the interval is widened.

References: AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686) and Bigger&Faster (2022, arXiv:2209.12127) predict with a
multilayer perceptron from four features, layers / 12, hidden / 768, mean neurons / 3072 and mean attention width / 768
(``benchmarks/mlp.py``). Differs: widths of single layers, and the last layer's, count; the model is additive first; it
states its error, its interval and where it extrapolates. Nothing is pickled: what is stored is the measured shapes and
a seed, and the fit is made again, the same, when it is opened.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.analytic_cost import NumberFormat, check_format
from limbeck.core.cost import Cost, Memo
from limbeck.core.measurement import Measurement
from limbeck.core.measurement import machine as this_machine
from limbeck.core.search_space import Space
from limbeck.core.shape import Shape, short_key
from limbeck.core.target import Target
from limbeck.core.token_schedule import check_reads_all
from limbeck.cost_models.boosted_fit import BoostedFit, check_extra
from limbeck.cost_models.features import SHAPE_FEATURES, columns_of, design, kinds, shape_features
from limbeck.cost_models.latency_dataset import Series
from limbeck.errors import InputError, nearest
from limbeck.measure.dummy_model import Setting
from limbeck.storage.drafts import temporary_folder

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate


FEWEST = 20  #: fewest measured shapes to learn from
SAMPLES = 200  #: shapes that are measured for one space
FOLDS = 10
LEVEL = 0.95
Price = Callable[[Sequence[Shape]], np.ndarray]
"""From shapes to predicted seconds."""


@dataclass(frozen=True)
class Errors:
    """How far predictions are from measurements: fractions of the measured time, and Kendall's rank correlation."""

    median: float
    p95: float
    within_10: float
    tau: float
    count: int
    mean: float = math.nan
    rmse: float = math.nan
    """Root of the mean squared difference, in seconds."""

    @classmethod
    def of(cls, predicted: np.ndarray, measured: np.ndarray) -> Errors:
        """Compare predicted with measured seconds [shapes]."""
        from scipy.stats import kendalltau

        shares = np.abs(predicted / measured - 1)
        median, p95 = np.quantile(shares, [0.5, 0.95])
        tau = float(kendalltau(predicted, measured).statistic)
        rmse = float(np.sqrt(np.square(predicted - measured).mean()))
        within = float((shares <= 0.1).mean())
        return cls(float(median), float(p95), within, tau, len(shares), float(shares.mean()), rmse)


@dataclass(frozen=True)
class Predictor(Cost):
    """A Cost: predicted latency of a shape in seconds, with its interval; ``many`` answers thousands at once.

    Two predictors are the same if they learned from the same data with the same seed.

    Attributes:
        setting: Target, number format and length that it holds for.
        shapes: Measured shapes.
        seconds: Their latencies.
        machine: Digest of the machine (``core.measurement.machine``).
        seed: Decides the folds of the cross-validation, and the trees.
    """

    setting: Setting = field(hash=False)
    shapes: tuple[Shape, ...]
    seconds: tuple[float, ...]
    machine: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.shapes) != len(self.seconds) or len(set(self.shapes)) < len(self.shapes):
            raise InputError("a predictor needs shapes that all differ, each with its seconds")
        if len(self.shapes) < FEWEST:
            raise InputError(f"a predictor needs at least {FEWEST} measured shapes, got {len(self.shapes)}")

    @classmethod
    def of(cls, series: Series, seed: int = 0) -> Predictor:
        """Learn from one series of a data set."""
        seconds = tuple(float(value) for value in series.seconds)
        return cls(series.setting, series.shapes, seconds, series.machine, seed)

    @classmethod
    def memoized(cls, candidate: Candidate, space: Space, target: Target, number_format: str, memo: Memo) -> Predictor:
        """Measure shapes of a space at the median length of a candidate's texts and fit to them, once per ``memo``.

        Args:
            candidate: Its task gives the texts, its model the style of the measured encoders.
            space: Shapes are sampled from it.
            target: Where latency is measured.
            number_format: ``float`` or ``int8``.
            memo: Returns the stored arrays of a key, or computes and stores them.
        """
        from limbeck.cost_models.collection import Collection, collect
        from limbeck.cost_models.shape_sampling import sample_shapes

        check_extra()
        kind: NumberFormat = "int8" if number_format == "int8" else "float"
        setting = Setting.of(candidate, target, kind)
        inputs = {"space": space.to_json(), "setting": setting.to_json(), "machine": this_machine(), "count": SAMPLES}
        name = f"latency-predictor-{short_key(inputs)}"

        def measure() -> dict[str, Any]:
            with temporary_folder() as folder:
                data = collect(Collection(tuple(sample_shapes(space, SAMPLES)), (setting,)), folder / "data.jsonl")
            predictor = cls.of(data.of(setting, this_machine()))
            return {"json": np.frombuffer(json.dumps(predictor.to_json()).encode(), dtype=np.uint8)}

        return cls.from_json(json.loads(np.asarray(memo(name, measure)["json"], dtype=np.uint8).tobytes()))

    def __call__(self, shape: Shape, number_format: str | None = None) -> Measurement:
        """Predicted latency with its 95 % interval; ``detail`` names the features in which it extrapolates."""
        check_format(self.setting.number_format, number_format)
        ((value, low, high),), features = self._bounded([shape])
        setting = self.setting
        detail: dict[str, Any] = {
            "source": "predictor",
            "number_format": setting.number_format,
            "seq_len": setting.seq_len,
        }
        outside = [name for name, beyond in zip(SHAPE_FEATURES, self._beyond(features)[0], strict=True) if beyond > 0]
        detail |= {"extrapolates": outside} if outside else {}
        where: dict[str, Any] = {"target": str(setting.target), "n": len(self.shapes), "detail": detail}
        return Measurement("latency_p50", float(value), "s", float(low), float(high), **where)

    def for_format(self, number_format: str) -> Predictor:
        """Return this predictor, if it has that number format."""
        check_format(self.setting.number_format, number_format)
        return self

    def seconds_of(self, shapes: Sequence[Shape]) -> np.ndarray:
        """Predicted seconds [shapes]."""
        return self._predict(shapes)[0] if len(shapes) else np.zeros(0)

    def many(self, shapes: Sequence[Shape]) -> np.ndarray:
        """Predicted seconds, and the ends of their 95 % intervals [shapes, 3]; the same as one by one, but faster."""
        return self._bounded(shapes)[0] if len(shapes) else np.zeros((0, 3))

    def upper(self, shape: Shape, level: float = LEVEL) -> float:
        """Seconds that the shape takes at most, with that probability."""
        return float(self.uppers([shape], level)[0])

    def uppers(self, shapes: Sequence[Shape], level: float = LEVEL) -> np.ndarray:
        """Seconds that each shape takes at most, with that probability [shapes]."""
        if not 0 < level < 1:
            raise InputError(f"level: should be between 0 and 1, got {level:g}")
        if not len(shapes):
            return np.zeros(0)
        values, features = self._predict(shapes)
        bound = self._bound(level)
        return values * np.exp(bound * (self._stretch(features) if bound > 0 else 1.0))

    def extrapolates(self, shapes: Sequence[Shape]) -> np.ndarray:
        """Whether some feature of a shape lies outside the measured range [shapes]."""
        columns = columns_of(shapes)
        outside = self._beyond(shape_features(columns, design(columns, self.setting))) > 0
        return np.asarray(outside.any(axis=1))

    @cached_property
    def errors(self) -> Errors:
        """Cross-validated: every shape predicted by a fit that did not see it."""
        return Errors.of(self._crossed[int(self.boosted)], np.asarray(self.seconds))

    @cached_property
    def errors_additive(self) -> Errors:
        """Likewise for the additive part alone."""
        return Errors.of(self._crossed[0], np.asarray(self.seconds))

    @cached_property
    def boosted(self) -> bool:
        """Whether the trees help, by the mean absolute logarithm of the cross-validated error."""
        plain, with_trees = np.abs(np.log(self._crossed / np.asarray(self.seconds))).mean(axis=1)
        return bool(with_trees < plain)

    @property
    def key(self) -> str:  # type: ignore[override]  # computed here, a plain field elsewhere
        """Digest of what it learned from; equal keys mean equal predictions."""
        return short_key(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the measured data that it is fitted to, as plain values."""
        plain = {"setting": self.setting.to_json(), "shapes": [shape.to_json() for shape in self.shapes]}
        return plain | {"seconds": list(self.seconds), "machine": self.machine, "seed": self.seed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Predictor:
        """Inverse of :meth:`to_json`; the fit is repeated with the same result."""
        shapes = tuple(map(Shape.from_json, data["shapes"]))
        setting = Setting.from_json(data["setting"])
        return cls(setting, shapes, tuple(data["seconds"]), data["machine"], data["seed"])

    def _bounded(self, shapes: Sequence[Shape]) -> tuple[np.ndarray, np.ndarray]:
        """Seconds with both ends of the interval [shapes, 3], and features of the shapes [shapes, SHAPE_FEATURES]."""
        values, features = self._predict(shapes)
        ends = np.array([0.0, self._bound(0.025), self._bound(0.975)])
        return values[:, None] * np.exp(self._stretch(features)[:, None] * ends), features

    def _predict(self, shapes: Sequence[Shape]) -> tuple[np.ndarray, np.ndarray]:
        """Predict seconds [shapes] and features; refuse an attention core that was never measured."""
        if unknown := kinds(shapes) - self._kinds:
            name = min(unknown)
            raise InputError(f"the predictor has not learned attention '{name}'; {nearest(name, self._kinds)}")
        for shape in shapes:
            check_reads_all(shape, "the predictor")
        return self._fit(shapes, self.boosted)

    @cached_property
    def _kinds(self) -> set[str]:
        return kinds(self.shapes)

    @cached_property
    def _fit(self) -> BoostedFit:
        return BoostedFit.of(self.shapes, np.asarray(self.seconds), self.setting, self.seed)

    @cached_property
    def _crossed(self) -> np.ndarray:
        """Seconds that fits on the other folds predict, without and with trees [2, shapes]."""
        seconds, count = np.asarray(self.seconds), len(self.shapes)
        fold = np.random.default_rng(self.seed).permutation(count) % FOLDS
        predicted = np.zeros((2, count))
        for number in range(FOLDS):
            training, held_out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            fit = BoostedFit.of([self.shapes[index] for index in training], seconds[training], self.setting, self.seed)
            shapes = [self.shapes[index] for index in held_out]
            predicted[:, held_out] = [fit(shapes, with_trees)[0] for with_trees in (False, True)]
        return predicted

    @cached_property
    def _residuals(self) -> np.ndarray:
        """Logarithms of measured over cross-validated seconds, in order."""
        return np.sort(np.log(np.asarray(self.seconds) / self._crossed[int(self.boosted)]))

    def _bound(self, level: float) -> float:
        """Bound a new shape's residual from above (below 1/2: from below) with probability ``level``: conformal.

        Where there are too few residuals for the level, the largest is exceeded by as much as it exceeds the median.
        """
        if level < 0.5:
            return -_conformal(-self._residuals[::-1], 1 - level)
        return _conformal(self._residuals, level)

    @cached_property
    def _range(self) -> tuple[np.ndarray, np.ndarray]:
        columns = columns_of(self.shapes)
        measured = shape_features(columns, design(columns, self.setting))
        return measured.min(axis=0), measured.max(axis=0)

    def _beyond(self, features: np.ndarray) -> np.ndarray:
        """How far each feature lies outside the measured range, as a logarithm [shapes, SHAPE_FEATURES]; 0 inside."""
        low, high = self._range
        over = np.log1p(np.maximum(features, high)) - np.log1p(high)
        beyond: np.ndarray = over + np.log1p(low) - np.log1p(np.minimum(features, low))
        return beyond

    def _stretch(self, features: np.ndarray) -> np.ndarray:
        """How many times wider the interval of a shape is: 1 inside; outside 2, and 1 more for each 10 % beyond."""
        total = self._beyond(features).sum(axis=1)
        return np.where(total > 0, 2 + 10 * total, 1.0)


def _conformal(ordered: np.ndarray, level: float) -> float:
    count = len(ordered)
    rank = math.ceil((count + 1) * level)
    if rank > count:
        return float(2 * ordered[-1] - np.median(ordered))
    return float(ordered[rank - 1])
