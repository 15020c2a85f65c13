"""INT8 models from an exported one, without a step."""

from functools import partial

import numpy as np
import pytest

from limbeck.core.shape import Shape
from limbeck.data.batching import encode, predict
from limbeck.data.calibration import spaced_texts
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.model.onnx.export import export_model
from limbeck.model.onnx.onnx_model import read_parts
from limbeck.model.onnx.post_training import Attempt, Ranges, fall_back, quantize_model
from limbeck.model.onnx.quantization import Int8, quantizable_modules, sensitivity

TASK = toy_task("classification", train=32, validation=20, test=16)
TOKENIZER = toy_tokenizer(TASK)


@pytest.fixture
def exported(make_model, tmp_path):
    shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    model = make_model(shape, labels=TASK.num_labels, vocab_size=len(TOKENIZER))
    return export_model(model, TOKENIZER, tmp_path / "float")


def texts_of(model):
    return partial(spaced_texts, TASK, TOKENIZER, model.inputs)


@pytest.mark.parametrize("mode", ["dynamic", "static"])
@pytest.mark.parametrize("smooth", [False, True])
def test_answers_stay_near_those_of_the_float_model(exported, tmp_path, mode, smooth):
    small = quantize_model(
        exported, TOKENIZER, tmp_path / "int8", texts_of(exported), ranges=Ranges(mode, samples=8), smooth=smooth
    )
    encoded = encode(TASK, "validation", TOKENIZER)
    before, after = (predict(model, encoded, 1) for model in (exported, small))
    assert 0 < np.abs(after - before).max() < 0.2 * np.ptp(before)
    assert small.size_bytes < 0.5 * exported.size_bytes
    assert [path.name for path in (tmp_path / "int8" / "onnx").glob("*.onnx")] == ["model_quantized.onnx"]


@pytest.mark.parametrize("harmless", [0, 1, 3, 6])
def test_as_few_parts_as_possible_fall_back(exported, tmp_path, harmless):
    """The score is lost unless all but ``harmless`` of the parts, the worst first, are in float."""
    parts, texts = read_parts(exported.path), texts_of(exported)(4)
    whole = Int8(frozenset(quantizable_modules(*parts)))
    ranking = list(sensitivity(*parts, whole, texts))
    scored = []

    class Recorded(Attempt):
        def points(self, int8):
            scored.append(int8)
            return 0.0 if int8 is not None and int8.modules & {*ranking[: len(ranking) - harmless]} else 100.0

    attempt, messages = Recorded(exported, parts, tmp_path, lambda model: 0.0), []
    assert fall_back(attempt, whole, 1.0, texts, messages.append).modules == {*ranking[len(ranking) - harmless :]}
    assert len(scored) <= 2 + np.ceil(np.log2(len(ranking)))
    assert f"{len(ranking) - harmless} of {len(ranking)} parts stay in float" in messages[0]
