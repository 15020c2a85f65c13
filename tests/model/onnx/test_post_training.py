"""INT8 models from an exported one, without a step."""

from functools import partial

import numpy as np
import pytest

from limbeck.core.paired import CountedLoss
from limbeck.core.shape import Shape
from limbeck.data.batching import encode, predict
from limbeck.data.calibration import spaced_texts
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.model.onnx import post_training
from limbeck.model.onnx.export import export_model
from limbeck.model.onnx.onnx_model import read_parts
from limbeck.model.onnx.post_training import (
    SURE,
    Attempt,
    Ranges,
    fall_back,
    is_shown,
    quantize_model,
    smoothed,
)
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


def test_answers_are_the_same_with_any_number_of_threads(exported, tmp_path, monkeypatch):
    small = quantize_model(exported, TOKENIZER, tmp_path / "int8", texts_of(exported), ranges=Ranges("dynamic"))
    encoded = encode(TASK, "train", TOKENIZER)
    logits = predict(small, encoded)
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    np.testing.assert_array_equal(predict(small, encoded), logits)


@pytest.mark.parametrize("harmless", [0, 1, 3, 6])
def test_as_few_parts_as_possible_fall_back(exported, tmp_path, harmless):
    """The score is lost unless all but ``harmless`` of the parts, the worst first, are in float."""
    parts, texts = read_parts(exported.path), texts_of(exported)(4)
    whole = Int8(frozenset(quantizable_modules(*parts)))
    ranking = list(sensitivity(*parts, whole, texts))
    scored = []

    class Recorded(Attempt):
        def loss(self, int8, reference):
            scored.append(int8)
            lost = bool(int8.modules & {*ranking[: len(ranking) - harmless]})
            return CountedLoss.of(100 * lost, 0, 500)

    attempt, messages = Recorded(exported, parts, tmp_path, lambda model: None), []
    assert fall_back(attempt, whole, 1.0, texts, messages.append).modules == {*ranking[len(ranking) - harmless :]}
    assert len(scored) <= 2 + np.ceil(np.log2(len(ranking)))
    assert f"{len(ranking) - harmless} of {len(ranking)} parts stay in float" in messages[0]


class Simulated(Attempt):
    """A version that loses and wins so many of the reference's answers."""

    def __init__(self, lost, won, n):
        super().__init__(None, None, None, lambda model: None)
        object.__setattr__(self, "counts", (lost, won, n))

    def loss(self, int8, reference):
        return CountedLoss.of(*self.counts)

    def write(self, int8):
        return None


@pytest.mark.parametrize(("n", "rate"), [(200, 0.02), (500, 0.02), (500, 0.06), (2000, 0.06)])
def test_no_part_falls_back_by_noise_and_a_true_loss_does(n, rate):
    """Paired answers of many splits: an INT8 model that changes answers at a rate, as often for the better or not."""
    rng, messages = np.random.default_rng(0), []
    splits = rng.multinomial(n, [rate / 2, rate / 2, 1 - rate], 300)
    fell = [is_shown(Simulated(lost, won, n), None, 0.75, None, messages.append) for lost, won, _ in splits]
    assert np.mean(fell) <= 1 - SURE
    seeming = int(sum(100 * (lost - won) / n > 0.75 for lost, won, _ in splits))
    assert len(messages) == seeming - sum(fell), "whatever the numbers alone would say is said to be undecided"
    splits = rng.multinomial(n, [0.15, rate / 2, 0.85 - rate / 2], 50)
    assert all(is_shown(Simulated(lost, won, n), None, 0.75, None, messages.append) for lost, won, _ in splits)


def test_ten_seeds_of_splits_of_a_harmless_int8_keep_every_part():
    """The case that was seen: 500 texts, 0.8 points lost, more than 0.75."""
    messages = []
    assert not is_shown(Simulated(7, 3, 500), None, 0.75, None, messages.append)
    assert messages[0].startswith("undecided: INT8 lost 0.80 points, more than 0.75, with probability")
    for seed in range(10):
        lost, won, _ = np.random.default_rng(seed).multinomial(500, [0.01, 0.01, 0.98])
        assert not is_shown(Simulated(lost, won, 500), None, 0.75, None, messages.append)


def test_answers_without_labels_overrule_a_few_labels():
    """No more can be lost than answers change."""
    lost, messages = Simulated(25, 2, 500), []
    assert is_shown(lost, None, 0.75, lambda first, second: (40, 1000), messages.append)
    assert not is_shown(lost, None, 0.75, lambda first, second: (1, 1000), messages.append)
    assert "of the answers change on 1,000 texts" in messages[-1]


@pytest.mark.parametrize(("gain", "chosen"), [(0.5, True), (0.02, False), (-0.5, False)])
def test_smoothing_is_applied_only_where_it_is_shown_to_help(exported, monkeypatch, gain, chosen):
    """Errors of texts differ by orders of magnitude, so their means alone say little."""
    rng, messages = np.random.default_rng(1), []
    plain = np.exp(rng.normal(size=32))
    smooth = plain * np.exp(rng.normal(-gain, 0.3, 32))
    smooth *= plain.mean() * (1 - gain) / smooth.mean()
    monkeypatch.setattr(post_training, "errors", lambda *given: {"smooth": smooth, "plain": plain})
    parts, texts = read_parts(exported.path), texts_of(exported)
    int8 = Int8(frozenset(quantizable_modules(*parts)))
    smoothed_modules = smoothed(parts, texts, int8, Ranges(), messages.append)
    assert bool(smoothed_modules.smooth) == chosen
    assert bool(messages) == (gain == 0.02)
    assert all(message.startswith("undecided: smoothing leaves 98 %") for message in messages)
