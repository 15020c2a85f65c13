"""Commands on the machine."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

from commands import call


def test_a_full_profile_goes_into_one_file():
    from limbeck.cost_models.latency_dataset import read
    from limbeck.cost_models.latency_table import Curve, LatencyTable

    curve = Curve((0, 2), (0.0, 1e-3))
    table = LatencyTable(32, 16, 1e-4, 1e-5, {"softmax": curve}, curve, {"softmax": curve}, curve, "here", "float", 8)
    options = ("--full", "--model", "tuned", "--number-format", "float", "--seq-len", 8, "--out", "machine.jsonl")
    few = ("--samples", 3, "--layers", 1, 2, "--hidden", 16, 32, 8)
    with (
        mock.patch("limbeck.cost_models.machine_profile.profile", return_value={"noise": 0.1}),
        mock.patch("limbeck.cost_models.machine_profile.table_of", return_value=table),
    ):
        status, out, err = call("profile", *options, *few)
        assert (status, "machine.jsonl: float, 3 shapes from" in out, "measuring table float" in err) == (0, True, True)
        assert call("profile", *options, *few)[2] == ""
    data = read("machine.jsonl")
    assert [str(space.smallest) for space in data.spaces] == ["1x16 heads 1 of 16 ffn 32"]
    assert data.series(seq_len=8).shapes
    with mock.patch("limbeck.cost_models.machine_profile.full", side_effect=AssertionError("measured")):
        for wrong, message in (
            (("--full",), "add --out"),
            (("--seq-len", 8), "--seq-len is about a full profile; add --full"),
            ((*options, "--batch", 0), "--batch should be in [1, 100,000], got 0"),
            ((*options, "--threads", 0), "--threads should be in [1, 1,024], got 0"),
            ((*options, "--hidden", 4), "hidden: should be LOW HIGH"),
        ):
            status, _, err = call("profile", *wrong)
            assert (status, message in err) == (2, True), err


def test_profile():
    call("profile", "--out", "machine.json")
    assert {"processor", "cores", "versions"} <= json.loads(Path("machine.json").read_text()).keys()
