"""The page on single techniques: its code runs as it stands, beside a fine-tuned model of transformers."""

from __future__ import annotations

import pages
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import limbeck
import limbeck.functional
from limbeck.data.synthetic import toy_task, toy_tokenizer

PAGE = (pages.DOCS / "guides" / "functions.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    tokenizer = toy_tokenizer(toy_task(train=8, validation=8, test=8))
    labels = {0: "negative", 1: "positive"}
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        id2label=labels,
        label2id={name: index for index, name in labels.items()},
    )
    BertForSequenceClassification(config).save_pretrained("tuned")
    tokenizer.save_pretrained("tuned")
    (block,) = pages.blocks(PAGE, "python")
    exec(compile(block, "functions.md", "exec"), {})
    shown = capsys.readouterr().out.splitlines()
    assert 0 <= float(shown[0]) <= 1
    assert "before" in shown[1]
    assert "after" in shown[1]


def test_every_function_has_a_line():
    for name in limbeck.functional.__all__:
        assert f"| `{name}(" in PAGE
