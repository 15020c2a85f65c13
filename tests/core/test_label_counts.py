from __future__ import annotations

import numpy as np

from limbeck.core.label_counts import per_class, per_label


def test_rows_are_counted_by_class():
    counts = per_class(("a", "b"), np.array([0, 1, 1]), np.array([0, 0, 1]))
    assert counts["a"] == {"examples": 2, "predicted": 1, "correct": 1}
    assert counts["b"] == {"examples": 1, "predicted": 2, "correct": 1}


def test_rows_with_several_labels_are_counted_by_label():
    has = np.array([[1, 0], [1, 1], [0, 0]], dtype=bool)
    counts = per_label(("a", "b"), has, has[::-1])
    assert counts["a"] == {"examples": 2, "predicted": 2, "correct": 1}
    assert counts["b"] == {"examples": 1, "predicted": 1, "correct": 1}
