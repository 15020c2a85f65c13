"""Activations and checks of logits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from limbeck.core.logits import activate, describe_bad_numbers, require_finite_logits
from limbeck.errors import InputError


def test_activations_neither_overflow_nor_warn():
    extreme = np.array([-1e30, -800.0, -89.0, 0.0, 89.0, 800.0, 1e30], dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sigmoid, softmax = activate(extreme, "sigmoid"), activate(extreme, "softmax")
    assert sigmoid[[0, 3, -1]].tolist() == [0.0, 0.5, 1.0]
    assert sigmoid[2] == pytest.approx(np.exp(-89.0))  # small, not zero
    assert softmax.sum() == 1.0


def test_what_is_no_number_is_named():
    assert describe_bad_numbers([1.0]) == ""
    rows = [np.zeros(2), np.array([np.inf, np.nan])]
    with pytest.raises(
        InputError, match=r"m gives no numbers for text 2 \('second'\): its outputs are 1 NaN and 1 infinite"
    ):
        require_finite_logits(rows, ["first", "second"], "m")
    require_finite_logits(rows[:1], ["first"])
