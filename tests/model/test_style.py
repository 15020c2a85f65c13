from __future__ import annotations

from limbeck.model.families import OURS, STYLE
from limbeck.model.style import Style


def test_every_field_is_a_key_of_our_configuration():
    assert set(STYLE) == set(vars(Style())) <= OURS
