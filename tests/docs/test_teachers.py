"""The page on teachers: its code runs as it stands, with a small student in a folder."""

from __future__ import annotations

import json

import pages
import torch
from transformers import BertConfig, BertForSequenceClassification

from limbeck.data.synthetic import toy_task, toy_tokenizer

PAGE = (pages.DOCS / "guides" / "teachers.md").read_text(encoding="utf-8")


def test_the_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    tokenizer = toy_tokenizer(toy_task(train=8, validation=8, test=8))
    labels = {0: "negative", 1: "positive"}
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    names = {"id2label": labels, "label2id": {name: index for index, name in labels.items()}}
    config = BertConfig(vocab_size=len(tokenizer), **sizes, **names)
    BertForSequenceClassification(config).save_pretrained("student")
    tokenizer.save_pretrained("student")
    scope = {}
    for block in pages.blocks(PAGE, "python"):
        exec(compile(block, "teachers.md", "exec"), scope)
    lines = (tmp_path / "scores.jsonl").read_text().splitlines()
    assert len(lines) == 6
    assert set(json.loads(lines[0])) == {"text", "probabilities"}
    assert scope["student"].shape.depth == 1
