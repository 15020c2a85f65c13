"""The command that times and trains a grid."""

from __future__ import annotations

import csv
from pathlib import Path
from unittest import mock

import pytest
from commands import answer, call


@pytest.mark.slow
def test_bench_of_a_small_grid():
    """Timed for real; run again it only reads; a page, a table and all samples are there."""
    command = ["bench", "--base", "tuned", "--layers", "1", "2", "--attention-ratio", "0.5", "1.0", "--calls", "6"]
    command += ["--trials", "1", "--seq-len", "8", "--number-format", "float", "int8", "--id", "tiny"]
    first = answer(*command)
    assert [row["architecture"] for row in first["rows"]] == ["1 layer, attention 0.5", "2 layers, attention 1"] * 2
    assert {path.name for path in Path("runs/bench-tiny").iterdir()} == {
        "trials.jsonl",
        "samples.parquet",
        "latency.csv",
        "report.html",
    }
    assert answer(*command)["rows"] == first["rows"]
    status, out, _ = call(*command)
    assert (status, "latency ms" in out) == (0, True)
    status, _, err = call("bench", "--layers", "1", "2", "--attention-ratio", "0.5")
    assert (status, "equally long" in err) == (2, True)


SMALL = ("bench", "--base", "tuned", "--calls", 4, "--trials", 1, "--task", "moods", "--train-samples", 32)
QUICK = ("--epochs", 1, "--train-batch-size", 16)


@pytest.mark.slow
def test_accuracy_alone_and_shared_beside_latency():
    """Trained for real; the second time nothing is timed or trained, and all is found again."""
    forms = ("--number-format", "float", "int8")
    command = (*SMALL, *QUICK, *forms, "--layers", 1, 2, "--train", "both", "--id", "trained")
    first = answer(*command)
    assert [row["architecture"] for row in first["rows"]] == ["1 layer", "2 layers"] * 2
    for row in first["rows"]:
        for mode in ("alone", "shared"):
            assert row[f"accuracy_{mode}_low"] <= row[f"accuracy_{mode}"] <= row[f"accuracy_{mode}_high"]
        assert (row["judged_on"], row["judged_texts"]) == ("validation", 48)
    folder = Path("runs/bench-trained")
    table = list(csv.DictReader((folder / "latency.csv").open()))
    assert float(table[1]["accuracy_alone"]) == first["rows"][1]["accuracy_alone"]
    assert "Accuracy against latency" in (folder / "report.html").read_text()
    with (
        mock.patch("limbeck.train.loop.fit", side_effect=AssertionError("trained")),
        mock.patch("limbeck.benchmark.run.time_trial", side_effect=AssertionError("timed")),
    ):
        assert answer(*command)["rows"] == first["rows"]
        status, out, _ = call(*command)
    assert (status, "accuracy" in out, "begun with leading parts of tuned" in out) == (0, True, True)


@pytest.mark.slow
def test_a_failure_is_told_and_the_rest_stands():
    command = (*SMALL, *QUICK, "--layers", 1, 2, "--train", "both", "--id", "failed", "--seed", 5)
    with mock.patch("limbeck.techniques.weight_sharing.WeightSharing.apply", side_effect=RuntimeError("broken")):
        status, out, err = call(*command)
    assert (status, "broken" in err, "%" in out) == (1, True, True)


def test_nonsense_is_refused_before_anything_is_timed():
    with mock.patch("limbeck.benchmark.run.bench", side_effect=AssertionError("timed")):
        for given, message in (
            (("bench", "--layers", 1, "--train", "both"), "--train needs a task"),
            (("bench", "--layers", 1, "--epochs", 2), "--epochs applies to training"),
            (("bench", "--layers", 1, "--id", "../../out"), "--id: should be a name of at most 100 characters"),
            ((*SMALL[:-1], 1000, "--layers", 1, "--train", "shared"), "the task has 96 training texts; got 1,000"),
            ((*SMALL, "--layers", 1, "--train", "both", "--split", "tset"), "no split 'tset'"),
            ((*SMALL, "--layers", 1, 4, "--train", "both"), "4 layers cannot begin with the weights of 'tuned'"),
            ((*SMALL, "--layers", 1, "--train", "both", "--epochs", 0), "--epochs should be in (0, 100,000]"),
            (("bench", "--layers", 1, 2, "--jointly"), "at least two"),
            (
                ("bench", "--layers", 1, "--device", "cuda:97", "--runtime", "torch"),
                "torch finds no device",
            ),
            (("bench", "--layers", 1, "--track", "tensorboard"), "--track applies to training"),
            (("bench", "--layers", 1, "--executor", "processes"), "--settings apply to training"),
            ((*SMALL, "--layers", 1, "--train", "both", "--track", "nonsense"), "no tracker 'nonsense'"),
            (("bench", "--layers", 1, "--runtime", "tensorrt"), "tensorrt runs on a GPU, got device 'cpu'"),
            (("bench", "--layers", 1, "--precision", "bfloat16"), "got 'bfloat16'; use 'float16'"),
        ):
            status, _, err = call(*given)
            assert (status, message in err) == (2, True), err


@pytest.mark.slow
def test_attention_against_length():
    """Timed and weighed for real; the page and the terminal say where a linear core pays, or that it does not."""
    command = ["bench", "--base", "tuned", "--attention", "softmax", "linformer:4", "--lengths", "8", "40"]
    command += ["--calls", "4", "--trials", "1", "--id", "cores"]
    result = answer(*command)
    assert [(row["architecture"], row["tokens"]) for row in result["rows"]] == [
        ("softmax", 8),
        ("linformer:4", 8),
        ("softmax", 40),
        ("linformer:4", 40),
    ]
    assert all(row["peak_memory_mb"] >= 0 for row in result["rows"])
    (break_even,) = result["break_even"]
    assert (break_even["core"], break_even["runtime"], break_even["longest"]) == ("linformer:4", "onnxruntime", 40)
    status, out, _ = call(*command)
    assert status == 0
    assert "linformer:4, onnxruntime float: " in out
    assert "Memory against length" in Path("runs/bench-cores/report.html").read_text()
    status, _, err = call(*command, "--seq-len", "8")
    assert (status, "--lengths is another name for --seq-len" in err) == (2, True)
