from __future__ import annotations

import json

from limbeck.measure.profile import profile


def test_profile_describes_and_measures_the_machine():
    made = profile(rounds=2)
    json.dumps(made)
    assert {"processor", "instructions", "cores", "memory_bytes", "versions"} <= set(made)
    assert made["float_gflops"] > 0
    assert made["int8_gops"] > 0
    assert made["noise"] >= 0
