"""What kinds of task share."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.kinds import KINDS, NAMES, find
from limbeck.core.task_kind import per_class
from limbeck.errors import InputError


def test_every_file_defines_the_kind_of_its_name():
    assert list(KINDS) == list(NAMES)
    assert [KINDS[name].name for name in NAMES] == list(NAMES)
    assert "__init__" not in KINDS
    assert "score" not in KINDS


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(InputError, match="no kind of task 'token'; did you mean 'tokens'"):
        find("token")


def test_rows_are_counted_by_class():
    counts = per_class(("a", "b"), np.array([0, 1, 1]), np.array([0, 0, 1]))
    assert counts["a"] == {"examples": 2, "predicted": 1, "correct": 1}
    assert counts["b"] == {"examples": 1, "predicted": 2, "correct": 1}
