"""What kinds of task share."""

from __future__ import annotations

import pytest

from limbeck.core.kinds import KINDS, NAMES, find
from limbeck.errors import InputError


def test_every_file_defines_the_kind_of_its_name():
    assert list(KINDS) == list(NAMES)
    assert [KINDS[name].name for name in NAMES] == list(NAMES)
    assert "__init__" not in KINDS
    assert "score" not in KINDS


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(InputError, match="no kind of task 'token'; did you mean 'tokens'"):
        find("token")
