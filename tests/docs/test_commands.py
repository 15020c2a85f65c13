"""Commands of the pages run in the order in which they need each other, on a tiny model and task of the same names."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path
from unittest import mock

import pages
import pytest
import torch
from commands import TRAIN, answer, call, write_task
from transformers import BertConfig, BertModel

from limbeck.cost_models import latency_table
from limbeck.data.synthetic import toy_task, toy_tokenizer

NAMES = {"minilm-l6": "encoder", "MODEL": "encoder", "movie-reviews": "reviews", "TASK": "reviews"}
FASTER = {"--epochs": "1", "--intermediate-epochs": "1", "--threads": "1", "--population": "2", "--generations": "1"}
ELSEWHERE = {"run", "plan", "check", "bench", "recipes", "profile", "predictor", "report", "lineage", "save"}
ELSEWHERE |= {"compress"}
"""Commands of whole runs, of machines, and those of which another test runs some: ``test_recipes.py`` reads them."""

STEPS = ("finetune", "vocabulary", "prune", "student_init", "supernet", "linearize", "meta_pseudo_labels", "distill")
STEPS += ("export", "augment", "weight_sharing")
RECIPES = ("tinybert", "fastformers", "mpl", "linearize", "bigger-and-faster")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An encoder as deep and with as many heads as MiniLM, a task as folder and as file, and no saved latencies."""
    folder = tmp_path_factory.mktemp("commands")
    task = toy_task(train=32, validation=16, test=16)
    tokenizer = toy_tokenizer(task)
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes)
    with contextlib.redirect_stderr(io.StringIO()):
        BertModel(config).save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    write_task(task, folder / "reviews")
    shutil.copy(folder / "reviews" / "train.csv", folder / "reviews.csv")
    return folder


@pytest.fixture(autouse=True)
def _inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LIMBECK_STORE", str(folder / "store"))
    monkeypatch.setitem(latency_table.build.__kwdefaults__, "seconds", 0.5)


def as_here(words):
    """The same command for the tiny model, with little training."""
    words = [NAMES.get(word, word) for word in words]
    return [FASTER.get(before, word) for before, word in zip(["", *words], words, strict=False)]


def runnable(page):
    """The commands of a page that need nothing but a model, a task and what came out before."""
    text = (pages.DOCS / f"{page}.md").read_text(encoding="utf-8")
    for words in pages.commands(text):
        of_a_run = any(word.startswith("runs/") or word in ("machine.jsonl", "predictor.json") for word in words)
        if words[0] not in ELSEWHERE and not of_a_run:
            yield as_here(words)


def carry_out(words):
    if "--out" in words:
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    status, out, err = call(*words)
    assert status == 0, f"limbeck {' '.join(words)}\n{out}\n{err}"


@pytest.mark.slow
def test_commands_of_techniques_run_one_after_the_other():
    for step in STEPS:
        commands = list(runnable(f"techniques/{step}"))
        assert commands, step
        for words in commands:
            carry_out(words)
            assert any(Path(words[words.index("--out") + 1]).iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("page", RECIPES)
def test_the_steps_of_a_recipe_run_by_themselves(page):
    commands = list(runnable(f"recipes/{page}"))
    assert len(commands) >= 2
    for words in commands:
        carry_out(words)


@pytest.mark.slow
def test_commands_of_guides_run():
    with mock.patch.dict(os.environ):
        answer("finetune", "--model", "encoder", "--task", "reviews", "--out", "small", *TRAIN)
    moods = ("angry", "happy", "sad")
    lines = [f"remark {row} of a buyer;{moods[row % 3]}" for row in range(24)]
    for page, table in (("index", None), ("guides/machines", None), ("guides/data", ["remark;rude", *lines])):
        if table:
            Path("reviews.csv").write_text("\n".join(table), encoding="utf-8")
        for words in runnable(page):
            carry_out(["small" if word == "encoder" else word for word in words])
