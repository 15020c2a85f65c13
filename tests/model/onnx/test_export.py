"""Export of a model in memory, without a step."""

import math

import numpy as np
import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.data.calibration import first_batches
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError, LimbeckError
from limbeck.model.onnx.export import Parity, export_model, parity

TASK = toy_task("classification", train=32, validation=20, test=16)
TOKENIZER = toy_tokenizer(TASK)
BATCHES, TEXTS = first_batches(TASK, "validation", TOKENIZER, 20)


@pytest.fixture
def model(make_model):
    shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    return make_model(shape, labels=TASK.num_labels, vocab_size=len(TOKENIZER))


@pytest.mark.parametrize("fused", [True, False])
def test_an_exported_model_gives_the_same_logits(model, tmp_path, fused):
    exported = export_model(model, TOKENIZER, tmp_path, fused=fused)
    measured = parity(model, exported, BATCHES, TEXTS)
    exported.close()
    logits = np.concatenate([model.predict(batch) for batch in BATCHES])
    assert measured.texts == 20
    assert measured.difference < 1e-4
    assert measured.largest == np.abs(logits).max()
    assert {path.name for path in tmp_path.iterdir()} >= {"onnx", "config.json", "model.safetensors", "tokenizer.json"}


class Shifted:
    """A model whose first logit is off."""

    def __init__(self, model, by):
        self.model, self.by = model, by

    def predict(self, batch):
        logits = self.model.predict(batch).copy()
        logits[0, 0] += self.by
        return logits


def test_a_difference_is_measured_and_refused_beyond_the_tolerance(model):
    measured = parity(model, Shifted(model, 0.5), BATCHES, TEXTS)
    assert measured.difference == pytest.approx(0.5)
    with pytest.raises(LimbeckError, match=r"differ from torch by up to 0\.5 on 20 texts"):
        measured.check(1e-3)
    measured.check(1.0)
    with pytest.raises(LimbeckError):
        Parity(math.nan, 1.0, 1.0, 1).check(1.0)


def test_logits_that_are_no_numbers_are_an_error(model):
    with torch.no_grad():
        model.classifier.bias[0] = math.nan
    with pytest.raises(InputError):
        parity(model, model, BATCHES, TEXTS)
