"""Numbers and settings as text; the examples in the docstrings are tested, too."""

from __future__ import annotations

from limbeck.core.measurement import Measurement
from limbeck.report.formatting import quality_interval, settings, signed, time_interval


def test_signed_has_a_minus_sign_and_no_negative_zero():
    assert [signed(value) for value in (-1.26, 0.0, -0.01, 2.0)] == ["−1.3", "0.0", "0.0", "+2.0"]


def test_intervals_are_empty_where_there_is_none():
    bare = Measurement("quality", 0.5, "1")
    assert (quality_interval(bare, "accuracy"), time_interval(bare)) == ("", "")
    fact = Measurement("quality", 0.5, "1", 0.4, 0.61)
    assert quality_interval(fact, "accuracy") == "[40.0, 61.0]"
    assert quality_interval(fact, "spearman") == "[0.400, 0.610]"


def test_settings_are_cut():
    assert settings({"keep": 0.25, "layers": [], "heads": 12}, 12) == "keep 0.25, …"
