"""Commands on the machine."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import pytest
from commands import answer, call


@pytest.mark.slow
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
            (("--seq-len", 8), "--seq-len applies to a full profile; add --full"),
            (("--executor", "processes"), "--store apply to a full profile; add --full"),
            ((*options, "--workers", 2), "workers: the executor 'local'"),
            ((*options, "--batch", 0), "--batch should be in [1, 100,000], got 0"),
            ((*options, "--threads", 0), "--threads should be in [1, 1,024], got 0"),
            ((*options, "--hidden", 4), "hidden: should be LOW HIGH"),
        ):
            status, _, err = call("profile", *wrong)
            assert (status, message in err) == (2, True), err


def test_a_predictor_is_learned_kept_and_compared():
    from limbeck.core.shape import Shape
    from limbeck.core.target import Target
    from limbeck.cost_models.latency_dataset import Dataset, Group, TimedShape, write
    from limbeck.measure.dummy_model import Setting, style_of
    from limbeck.model.style import Style

    setting = Setting(style_of(Style()), Target(seq_len=32), "float", 32)

    def data(name, widths):
        shapes = [Shape.uniform(layers, 64, 4, ffn) for layers in (1, 2, 3) for ffn in widths]
        timed = [TimedShape(shape, 1e-8 * shape.weights, 0.01, (1.0, 1.0)) for shape in shapes]
        write(Dataset(groups=(Group("there", setting, "first", timed[0], tuple(timed[1:])),)), name)

    data("timed.jsonl", range(64, 512, 64))
    data("others.jsonl", range(96, 480, 64))
    learned = answer("predictor", "timed.jsonl", "--out", "predictor.json")
    assert (learned["shapes"], learned["errors"]["count"], learned["file"]) == (21, 21, "predictor.json")
    assert learned["errors"]["median"] < 0.1
    compared = answer("predictor", "others.jsonl", "--against", "predictor.json")
    assert compared["errors"]["count"] == 18
    status, out, _ = call("predictor", "predictor.json")
    assert (status, "21 shapes of" in out, "Kendall's tau" in out) == (0, True, True)
    for wrong, message in (
        (("nothing.jsonl",), "no such file of latency data"),
        (("timed.jsonl", "--threads", 2), "no series fits threads 2"),
        (("timed.jsonl", "--layers", 1, 2), "--layers applies to shapes to measure; add --measure"),
        (("timed.jsonl", "--out", "a.json", "--against", "predictor.json"), "leave one of them out"),
        (("timed.jsonl", "--against", "timed.jsonl"), "is not a latency predictor"),
        (("timed.jsonl", "--out", "no-folder/a.json"), "there is no folder no-folder"),
    ):
        status, _, err = call("predictor", *wrong)
        assert (status, message in err) == (2, True), err


def test_a_predictor_measures_first_on_request():
    ranges = ("--layers", 1, 2, "--ffn", 8, 32, 8, "--samples", 20, "--seq-len", 8)
    with (
        mock.patch("limbeck.cli.machine._measure", side_effect=AssertionError("measured")) as measure,
        pytest.raises(AssertionError, match="measured"),
    ):
        call("predictor", "new.jsonl", "--measure", "--model", "tuned", *ranges, "--number-format", "int8")
    file, threads, options, fewest = measure.call_args.args
    assert fewest == 20
    assert (file, threads, options.number_format, options.ffn) == (Path("new.jsonl"), 1, ("int8",), (8, 32, 8))


def test_too_few_shapes_for_a_predictor_are_refused_before_any_is_timed():
    options = ("--measure", "--model", "tuned", "--number-format", "int8", "--seq-len", 8)
    for few, message in (
        (("--samples", 7), "at least 20 measured shapes; --samples 7 gives 7"),
        (("--layers", 1, 2, "--no-per-layer"), "at least 20 measured shapes; these ranges have "),
    ):
        with mock.patch("limbeck.cost_models.machine_profile.full", side_effect=AssertionError("measured")):
            status, _, err = call("predictor", "new.jsonl", *options, *few)
        assert (status, message in err) == (2, True), err
    assert not Path("new.jsonl").exists()


def test_profile():
    call("profile", "--out", "machine.json")
    assert {"processor", "cores", "versions"} <= json.loads(Path("machine.json").read_text()).keys()
