"""Commands on one model."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import shutil
from pathlib import Path
from unittest import mock

import pytest
from commands import answer, call

from limbeck.data.synthetic import toy_task


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_evaluate_in_every_runtime(compressed, runtime):
    if runtime == "openvino" and importlib.util.find_spec("openvino") is None:
        assert call("evaluate", "art", "--task", "moods", "--runtime", runtime)[0] == 2
        pytest.skip("openvino is not installed")
    if runtime == "openvino" and "quantized" in json.loads(Path("art/limbeck.json").read_text())["onnx_file"]:
        status, _, err = call("evaluate", "art", "--task", "moods", "--runtime", runtime)  # the fastest was INT8
        assert (status, "QAttention" in err) == (2, True)
        return
    result = answer("evaluate", "art", "--task", "moods", "--runtime", runtime)
    assert result["examples"] == 48
    assert result["quality"] > 0.9
    assert result["runtime"].startswith(runtime)
    assert result["total_ms"] == pytest.approx(48 * result["mean_ms"])


def test_evaluate_in_words_and_not_without_a_head():
    status, out, _ = call("evaluate", "tuned", "--task", "moods", "--split", "validation", "--batch", 8)
    assert status == 0
    assert re.search(r"accuracy: \d\.\d{4} \[.*\], n 48\nelapsed: .* ms on average \(torch eager, .*batch 8\)", out)
    status, _, err = call("evaluate", "bert-moods", "--task", "moods")
    assert (status, "no trained head" in err) == (2, True)


def test_evaluate_on_texts_without_labels():
    rows = list(dict.fromkeys(toy_task(train=300).split("train").texts))
    Path("calls.txt").write_text("\n".join(rows) + "\n")
    alone = answer("evaluate", "tuned", "--texts", "calls.txt", "--reference", "tuned")
    assert (alone["metric"], alone["quality"], alone["examples"]) == ("agreement", 1.0, round(len(rows) / 10))
    assert alone["beside"]["kl_divergence"][0] == pytest.approx(0, abs=1e-6)
    given = ("--texts", "calls.txt", "--metric", "neg_kl_divergence")
    assert answer("evaluate", "tuned", *given, "--reference", "tuned")["quality"] == pytest.approx(0, abs=1e-6)
    for options, message in (
        (given, "--texts and --reference belong together"),
        (("--task", "moods", "--reference", "tuned"), "--texts and --reference belong together"),
        ((*given, "--task", "moods"), "evaluate needs --task or --texts, got both"),
    ):
        status, _, err = call("evaluate", "tuned", *options)
        assert (status, message in err) == (2, True)


def test_options_that_cannot_be_are_told_before_any_work():
    for option, most in (("--threads", "1,024"), ("--batch", "100,000")):
        status, _, err = call("evaluate", "tuned", "--task", "moods", option, 0)
        assert (status, err) == (2, f"error: {option[2:]} should be at least 1 and at most {most}, got 0\n")
    with mock.patch("limbeck.cost_models.machine_profile.profile", side_effect=AssertionError("measured")):
        status, _, err = call("profile", "--out", "nowhere/machine.json")
    assert (status, err) == (2, "error: --out nowhere/machine.json: there is no folder nowhere\n")


def test_an_error_of_the_system_is_one_line():
    with mock.patch(
        "limbeck.cost_models.machine_profile.profile", side_effect=OSError(5, "Input/output error", "disk")
    ):
        status, _, err = call("profile")
    assert (status, err) == (2, "error: [Errno 5] Input/output error: 'disk'\n")


def test_predict_from_arguments_and_standard_input():
    status, out, _ = call("predict", "tuned", "the sunny merry film", "gloomy and bleak")
    assert (status, out) == (0, "happy\tthe sunny merry film\nsad\tgloomy and bleak\n")
    (row,) = answer("predict", "tuned", stdin="furious\n")
    assert row["answer"] == "angry"
    assert sum(row["scores"].values()) == pytest.approx(1)
    status, _, err = call("predict", "bert-moods", "sunny")
    assert (status, "no trained head" in err) == (2, True)


def test_the_band_of_a_number_stands_beside_it():
    rows = [{"text": "a", "answer": 4.5, "scores": {}, "band": 1234567.0}, {"text": "b", "answer": 0.25, "band": None}]
    with mock.patch("limbeck.engine.predict.answer", return_value=rows):
        assert call("predict", "tuned", "a", "b")[1] == "4.5\t1234567.0\ta\n0.25\t-\tb\n"


def test_predict_pairs():
    train = ("--epochs", "1", "--evaluations-per-epoch", "0")
    answer("finetune", "--model", "bert-pairs", "--task", "pairs", "--out", "tuned-pairs", *train)
    rows = answer("predict", "tuned-pairs", "sunny", "merry", "--pair", "gloomy", "--pair", "merry")
    assert [row["answer"] in {"sad", "happy"} for row in rows] == [True, True]
    status, _, err = call("predict", "tuned-pairs", "sunny", "merry", "--pair", "gloomy")
    assert (status, "2 texts but 1 second" in err) == (2, True)


def test_texts_longer_than_the_model_are_refused_as_in_a_run(tmp_path):
    described = {**json.loads(Path("tuned/config.json").read_text()), "max_positions": 64}
    shutil.copytree("tuned", tmp_path / "short")
    (tmp_path / "short" / "config.json").write_text(json.dumps(described))
    for command in ("evaluate", "export"):
        model = (
            (tmp_path / "short",) if command == "evaluate" else ("--model", tmp_path / "short", "--out", tmp_path / "o")
        )
        status, _, err = call(command, *model, "--task", "moods")
        assert (status, "takes at most 64 tokens; give the task 'max_length: 64' or less" in err) == (2, True)


def test_words_that_were_not_seen_are_reported(tmp_path):
    small = runpy.run_path(str(Path(__file__).parent.parent / "support" / "small_tokenizers.py"))
    labels = ("O", "PER", "LOC")
    model = small["write_model"](tmp_path / "words", "bert", labels, per_token=True, model_max_length=32)
    status, out, err = call("predict", model, "Anna \u200b lives")
    assert (status, len(out.split("\t")[0].split())) == (0, 3)
    assert err.splitlines()[-1].startswith("note: 1 of 3 words were not seen")
    status, out, err = call("predict", model, "Anna lives")
    assert (status, err) == (0, "")
    (row,) = answer("predict", model, stdin="word " * 900)
    assert len(row["labels"]) == 900
    assert row["unseen"][-1] == 899
    sentences = "".join(f"Anna PER\nsaw O\n\u200b O\nfilm{row} LOC\n\n" for row in range(4))
    (tmp_path / "words.conll").write_text(sentences, encoding="utf-8")
    status, out, _ = call("evaluate", model, "--task", tmp_path / "words.conll", "--max-length", 64)
    assert status == 0
    assert "\nunseen_words: 4 (" in out


def test_input_that_is_not_utf_8_is_named():
    status, _, err = call("predict", "tuned", stdin=b"sunny\ncaf\xe9\n")
    assert (status, err) == (2, "error: standard input, line 2: byte 3 is not UTF-8\n")
    status, _, err = call("predict", "tuned", "caf\udce9")
    assert (status, "this text is not UTF-8" in err) == (2, True)
