"""Metrics that rank, sorted once for all resamples, against the same metrics of the resampled rows."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.metrics import METRICS
from limbeck.core.ranking import MIN_RESAMPLES, metric_interval, resampled_metric
from limbeck.core.statistics import resampled_score, score

RNG = np.random.default_rng(0)
LABELS = {
    "two classes": RNG.integers(0, 2, 50),
    "several classes, some absent from resamples": RNG.choice([0, 1, 2, 5], 50, p=[0.6, 0.3, 0.08, 0.02]),
    "several labels": (RNG.random((50, 4)) < 0.3).astype(int),
    "a label that all have": np.ones((50, 2), dtype=int),
}


RANKING = sorted(name for name, info in METRICS.items() if info.reads_scores and not info.reads_distributions)


@pytest.mark.parametrize("metric", RANKING)
@pytest.mark.parametrize("labels", LABELS)
def test_a_resample_scores_as_its_rows_do(metric, labels):
    truth = LABELS[labels]
    width = truth.shape[1] if truth.ndim == 2 else max(2, int(truth.max()) + 1)
    scores = RNG.random((50, width)).round(1)  # with ties
    resampled = resampled_metric(metric, scores, truth)
    for _ in range(20):
        chosen = RNG.integers(0, 50, 50)
        assert resampled(chosen) == pytest.approx(METRICS[metric](scores[chosen], truth[chosen]), abs=1e-12)


def test_the_interval_is_that_of_the_plain_bootstrap():
    truth, scores = LABELS["two classes"], RNG.random((50, 2))
    plain = score(METRICS["roc_auc"], scores, truth)
    assert metric_interval("roc_auc", scores, truth) == pytest.approx(plain)
    answers = scores.argmax(1)
    assert metric_interval("macro_f1", answers, truth) == score(METRICS["macro_f1"], answers, truth)


def test_many_cells_take_fewer_resamples(monkeypatch):
    resample_counts = []
    monkeypatch.setattr("limbeck.core.ranking.MAX_VALUES", 50 * 4 * 300)
    monkeypatch.setattr(
        "limbeck.core.ranking.resample",
        lambda statistic, count, resamples: (
            resample_counts.append(resamples) or resampled_score(METRICS["accuracy"], [1], [1])
        ),
    )
    metric_interval("roc_auc", RNG.random((50, 4)), LABELS["several labels"])
    monkeypatch.setattr("limbeck.core.ranking.MAX_VALUES", 1)
    metric_interval("roc_auc", RNG.random((50, 4)), LABELS["several labels"])
    assert resample_counts == [300, MIN_RESAMPLES]
