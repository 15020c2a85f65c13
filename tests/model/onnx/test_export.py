"""Export of a model in memory, without a step."""

import math

import numpy as np
import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.data.calibration import first_batches
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError, LimbeckError
from limbeck.model import token_pruning
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


def with_ties(make_model, long):
    """Give a model whose first layer passes on 60 %, and attends to all tokens alike; and 20 texts, of which so many
    have more than two tokens, and so a choice between equal ones."""
    shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64).with_tokens(0.6, 0.6)
    model = make_model(shape, labels=3, vocab_size=60)
    model.encoder.layers[0].query.weight.data.zero_()
    model.encoder.layers[0].query.bias.data.zero_()
    mask = (torch.arange(8) < torch.tensor([8] * long + [2] * (20 - long))[:, None]).long()
    ids = torch.randint(5, 60, (20, 8), generator=torch.Generator().manual_seed(1)) * mask
    return model, {"input_ids": ids, "attention_mask": mask, "index": torch.arange(20)}


class Rounded:
    """A model in which tokens receive a little more attention the later they stand."""

    def __init__(self, model, monkeypatch, more=1e-6):
        self.model, self.monkeypatch, self.more = model, monkeypatch, more

    def predict(self, batch):
        received = token_pruning.received_attention

        def rounded(scores, real, heads=None):
            sums = received(scores, real, heads)
            return sums * (1 + self.more * torch.arange(sums.shape[1]))

        with self.monkeypatch.context() as patch:
            patch.setattr(token_pruning, "received_attention", rounded)
            return self.model.predict(batch)


def test_texts_in_which_rounding_chooses_between_tokens_are_counted_apart(make_model, monkeypatch):
    model, batch = with_ties(make_model, long=2)
    measured = parity(model, Rounded(model, monkeypatch), [batch], ["text"] * 20)
    measured.check(1e-3)
    assert measured.difference < 1e-6
    assert min(measured.tied) > 0.01
    most = f"{max(measured.tied):.1e}"
    assert str(measured).endswith(f"; 2 of 20 texts have tied tokens, and a difference of up to {most}")
    same = parity(model, model, [batch], ["text"] * 20)
    assert same.tied == (0.0, 0.0)
    assert "tied" not in str(same)


def test_more_than_a_few_tied_texts_are_refused(make_model, monkeypatch):
    model, batch = with_ties(make_model, long=3)
    with pytest.raises(LimbeckError, match="3 of 20 texts, more than 10%, have tied tokens, between which rounding"):
        parity(model, Rounded(model, monkeypatch), [batch], ["text"] * 20).check(1e-3)


def test_a_choice_that_rounding_cannot_turn_is_a_difference(make_model, monkeypatch):
    model, batch = with_ties(make_model, long=2)
    model.encoder.layers[0].query.weight.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    with pytest.raises(LimbeckError, match="logits in ONNX differ from torch"):
        parity(model, Rounded(model, monkeypatch, more=9.0), [batch], ["text"] * 20).check(1e-3)


def test_ties_excuse_no_logits_that_are_no_numbers(make_model):
    model, batch = with_ties(make_model, long=2)
    with pytest.raises(LimbeckError, match="differ from torch by up to nan on 20 texts"):
        parity(model, Shifted(model, math.nan), [batch], ["text"] * 20).check(1e-3)


def test_logits_that_are_no_numbers_are_an_error(model):
    with torch.no_grad():
        model.classifier.bias[0] = math.nan
    with pytest.raises(InputError):
        parity(model, model, BATCHES, TEXTS)
