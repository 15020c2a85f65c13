"""Models with early exits are stored and opened, and answer by all heads."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from limbeck.core.early_exits import EarlyExits
from limbeck.core.shape import Shape
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.checkpoints import open_model, peek, save_model
from limbeck.model.early_exits import add_exits, all_logits, set_rule
from limbeck.model.interchange import translate_folder

TASK = toy_task("classification", train=8, validation=24, test=8)
TOKENIZER = toy_tokenizer(TASK)
RULE = EarlyExits((1, 2), "confidence", 0.7)


@pytest.fixture
def model(make_model):
    shape = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
    exiting = make_model(shape, labels=TASK.num_labels, vocab_size=len(TOKENIZER))
    exiting.config.id2label = dict(enumerate(TASK.label_names))
    add_exits(exiting, RULE)
    with torch.no_grad():
        for parameter in exiting.exits.parameters():
            parameter.mul_(1.5)
    set_rule(exiting, RULE)
    return exiting


@pytest.mark.parametrize("translated", [False, True])
def test_a_stored_model_answers_the_same(model, tmp_path, translated):
    save_model(model, TOKENIZER, tmp_path)
    if translated:
        translate_folder(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
    assert peek(tmp_path)["traits"] == {"torch", "exits"}
    again, _ = open_model(tmp_path, task=TASK)
    assert again.leaves_early
    encoded = encode(TASK, "validation", TOKENIZER)
    np.testing.assert_array_equal(predict(again, encoded), predict(model, encoded))


def test_labels_in_another_order_reorder_every_head(model, tmp_path):
    save_model(model, TOKENIZER, tmp_path)
    turned = replace(TASK, label_names=TASK.label_names[::-1])
    again, _ = open_model(tmp_path, task=turned)
    encoded = encode(TASK, "validation", TOKENIZER)
    np.testing.assert_allclose(predict(again, encoded)[:, ::-1], predict(model, encoded), atol=1e-6)


@pytest.mark.parametrize("kind", ["multilabel", "tokens"])
def test_another_task_is_refused(model, tmp_path, kind):
    save_model(model, TOKENIZER, tmp_path)
    with pytest.raises(InputError, match="has early exits, whose heads answer for the labels"):
        open_model(tmp_path, task=toy_task(kind, train=8, validation=8, test=8))


def test_a_damaged_entry_is_refused(model, tmp_path):
    save_model(model, TOKENIZER, tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "early_exits": {**config["early_exits"], "layers": [1, 7]}}))
    with pytest.raises(InputError, match="a head after 7 layers, and the model has 3"):
        open_model(tmp_path, task=TASK)


def test_the_last_of_all_logits_is_the_models_own(make_model, make_batch):
    model, batch = make_model(Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)), make_batch()
    before = model.predict(batch)
    add_exits(model, RULE)
    with torch.no_grad():
        np.testing.assert_allclose(all_logits(model, batch)[-1].numpy(), before, atol=1e-6)
