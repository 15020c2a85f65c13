"""Which head a task gets: the old one, the old one reordered, or a new one."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.model.heads import build, label_order, set_labels

SHAPE = Shape.uniform(layers=1, hidden=8, heads=2, ffn=4)
NAMES = ("red", "green", "blue")
SETTINGS = {
    "hidden_size": 8,
    "head_dim": 4,
    "layer_heads": [2],
    "layer_ffn": [4],
    "vocab_size": 11,
    "max_positions": 6,
    "id2label": dict(enumerate(NAMES)),
    "label2id": {name: index for index, name in enumerate(NAMES)},
}


def weights():
    from limbeck.model.encoder import LimbeckConfig, LimbeckForSequenceClassification

    torch.manual_seed(0)
    return LimbeckForSequenceClassification(LimbeckConfig(**SETTINGS)).state_dict()


@pytest.mark.parametrize("new", permutations(NAMES))
def test_outputs_follow_their_names(new):
    model = build(SETTINGS, weights(), per_token=False, shape=SHAPE)
    inputs = {"input_ids": torch.tensor([[1, 2, 3]])}
    before = dict(zip(NAMES, model.predict(inputs)[0], strict=True))
    set_labels(model, new, "classification")
    assert not model.fresh_head
    assert dict(zip(new, model.predict(inputs)[0], strict=True)) == pytest.approx(before)
    assert model.config.label2id == {name: index for index, name in enumerate(new)}


def test_names_that_say_nothing_keep_the_order():
    assert label_order(NAMES, ("0", "1", "2")) == [0, 1, 2]
    assert label_order(("LABEL_0", "LABEL_1", "LABEL_2"), NAMES) == [0, 1, 2]
    assert label_order(("LABEL_0", "LABEL_1"), ("LABEL_1", "LABEL_0")) == [1, 0]
    assert label_order(("a", "a"), ("a", "a")) is None
    assert label_order(NAMES, NAMES[:2]) is None


def test_weights_are_copied_in_float32():
    given = {name: weight.half() for name, weight in weights().items()}
    model = build(SETTINGS, given, per_token=False, shape=SHAPE)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    given = weights()
    model = build(SETTINGS, given, per_token=False, shape=SHAPE)
    given["classifier.weight"].zero_()
    assert model.classifier.weight.any()
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("part", ["pooler", "classifier"])
def test_only_the_head_may_be_missing(part):
    given = {name: weight for name, weight in weights().items() if not name.startswith(part)}
    model = build(SETTINGS, given, per_token=False, shape=SHAPE)
    set_labels(model, NAMES, "classification", seed=4)
    assert model.fresh_head
    assert f"{part}.weight, {part}.bias" in model.untrained
    assert model.predict({"input_ids": torch.tensor([[1, 2]])}).shape == (1, 3)
    del given["encoder.embeddings.word.weight"]
    with pytest.raises(InputError, match=r"'encoder\.embeddings\.word\.weight'"):
        build(SETTINGS, given, per_token=False, shape=SHAPE)
