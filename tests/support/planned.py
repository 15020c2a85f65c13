"""A task and two models on disk, one of which answers it: what planning and compressing begin with. Not a test."""

from __future__ import annotations

import json

import pytest

from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.model.checkpoints import save_model
from limbeck.model.classification_head import set_labels

TASK = toy_task(train=24, validation=8, test=8)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, make_model):
    """A task as files, with and without a test split, and a model that answers it."""
    workspace = tmp_path_factory.mktemp("planned")
    for name, splits in (("task", ("train", "validation", "test")), ("no-test", ("train", "validation"))):
        (workspace / name).mkdir()
        for split in splits:
            rows = [{**row, "label": TASK.label_names[row["label"]]} for row in TASK.split(split).to_rows()]
            (workspace / name / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = make_model(labels=3, vocab_size=60, max_positions=128)
    save_model(model, toy_tokenizer(TASK), workspace / "other")
    set_labels(model, TASK.label_names, TASK.kind, seed=0)
    save_model(model, toy_tokenizer(TASK), workspace / "ready")
    return workspace
