"""Tiny real models and tasks as files, one model fine-tuned, one compressed."""

from __future__ import annotations

import contextlib
import io
import os
from unittest import mock

import pytest
from commands import TRAIN, answer, write_task
from timed_here import timed_here

from limbeck.data.synthetic import toy_task, toy_tokenizer

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A folder with two tasks as CSV files, an encoder without a head for each, and one that is fine-tuned."""
    import torch
    from transformers import BertConfig, BertModel

    workspace = tmp_path_factory.mktemp("place")
    for task, name in ((toy_task(train=96, validation=48, test=48), "moods"), (toy_task("pairs", train=64), "pairs")):
        write_task(task, workspace / name)
        tokenizer = toy_tokenizer(task)
        tokenizer.save_pretrained(workspace / f"bert-{name}")
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **SMALL)
        with contextlib.redirect_stderr(io.StringIO()):
            BertModel(config).save_pretrained(workspace / f"bert-{name}")
    with contextlib.chdir(workspace), mock.patch.dict(os.environ, LIMBECK_STORE=str(workspace / "store")):
        result = answer("finetune", "--model", "bert-moods", "--task", "moods", "--out", "tuned", *TRAIN)
        assert result["shape"] == "2x32 heads 2 of 16 ffn 32"
    return workspace


@pytest.fixture(autouse=True)
def _inside(workspace, monkeypatch, in_process):
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("LIMBECK_STORE", str(workspace / "store"))


@pytest.fixture(scope="session")
def compressed(workspace):
    """What the main job prints, for a model that answers the task already."""
    here = mock.patch.dict(os.environ, LIMBECK_STORE=str(workspace / "store"))
    with contextlib.chdir(workspace), here, timed_here():
        options = (
            "--task",
            "moods",
            "--effort",
            "quick",
            "--latency-ms",
            "200",
            "--max-drop",
            "50",
            "--runtime",
            "onnxruntime",
        )
        return answer("compress", "tuned", *options, "--folder", "run", "--out", "art")
