"""A number."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.kinds.regression import KIND


def test_numbers_are_never_overruled():
    assert KIND.review(np.array([2.5]), 1.0, 0.5) == (2.5, 1.0)


def test_the_logit_is_the_number():
    assert KIND.decode([[0.5], [1.5]]).tolist() == [0.5, 1.5]
    assert KIND.answer(np.array([0.5]), (), "identity") == {"answer": 0.5, "scores": {}}


def test_errors_stand_beside_the_correlation():
    assessment = KIND.assess("pearson", (), np.array([[1.0], [2.0], [4.0]]), [1.0, 2.0, 3.0])
    assert assessment.beside["rmse"].value == pytest.approx((1 / 3) ** 0.5)
    assert set(assessment.beside) == {"rmse", "r2"}


def test_the_constant_is_the_mean():
    assert list(KIND.constants(np.array([1.0, 4.0]), 1)) == [(2.5, ())]
