"""Models that a plain checkpoint of their family cannot hold: their folders work, and the reason is given."""

from __future__ import annotations

import family_models as families
import pytest
import torch
from transformers import AutoModelForSequenceClassification

import limbeck
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.predict import answer
from limbeck.errors import InputError
from limbeck.model.checkpoints import open_model, save_model
from limbeck.model.interchange import translate_folder
from limbeck.model.pretrained import to_transformers
from limbeck.model.pruning.slicing import Cut, slice_to

TASK = toy_task("classification", train=24, validation=12, test=12)
TOKENIZER = toy_tokenizer(TASK)
CUTS = {
    "fewer heads": lambda shape: Cut(
        tuple(range(shape.depth)), ((1, 3),) * shape.depth, tuple(tuple(range(row.ffn)) for row in shape.layers)
    ),
    "other widths in each layer": lambda shape: Cut(
        tuple(range(shape.depth)),
        ((0, 2, 3), *((1,),) * (shape.depth - 1)),
        tuple(tuple(range(3, row.ffn - number)) for number, row in enumerate(shape.layers)),
    ),
}


def narrow(family, cut):
    """A pruned model that answers the toy task."""
    names = dict(enumerate(TASK.label_names))
    labels = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    model = families.ours(f"{family}-small")
    model.config.id2label, model.config.label2id = labels["id2label"], labels["label2id"]
    return slice_to(model, CUTS[cut](model.shape))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("family", ["albert", "deberta-v2", "modernbert", "mpnet"])
def test_a_narrow_model_is_no_plain_checkpoint_but_its_folder_works(family, cut, tmp_path):
    model = narrow(family, cut)
    with pytest.raises(InputError, match=f"cannot be a plain {family} checkpoint: .*save_model keeps any shape"):
        to_transformers(model)
    save_model(model, TOKENIZER, tmp_path / "float")
    limbeck.quantize(model, TOKENIZER, TASK, tmp_path / "int8")
    texts = list(TASK.split("test").texts)
    expected = [row["answer"] for row in answer(str(tmp_path / "float"), texts)]
    translate_folder(tmp_path / "float")
    translate_folder(tmp_path / "int8")
    again, tokenizer = open_model(str(tmp_path / "float"))
    assert again.shape == model.shape
    batch = tokenizer(texts[:4], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(again.run(batch)[0], model.run(batch)[0])
    assert [row["answer"] for row in answer(str(tmp_path / "float"), texts)] == expected
    rounded = [row["answer"] for row in answer(str(tmp_path / "int8"), texts)]
    assert sum(map(str.__eq__, rounded, expected)) >= 10
    value = limbeck.evaluate(str(tmp_path / "int8"), None, TASK, "test").quality
    labels = [TASK.label_names[label] for label in TASK.split("test").labels]
    assert value == pytest.approx(sum(map(str.__eq__, rounded, labels)) / 12)
    with pytest.raises((RuntimeError, ValueError)):  # the family's own class finds a tensor of another size
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "float", trust_remote_code=False)
