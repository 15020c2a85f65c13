"""The page on data tells the truth: its options exist, its task file loads, its report is what is printed."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from limbeck.data.config import Options
from limbeck.data.conll import SUFFIXES
from limbeck.data.loading import load_judged, load_task
from limbeck.data.readers import READERS
from limbeck.data.summary import summarize
from limbeck.data.task_file import settings, with_settings

PAGE = (Path(__file__).parent.parent.parent / "docs" / "guides" / "data.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    remarks = [f"remark number {row} of a buyer" for row in range(24)]
    lines = [f"{text};{row % 2};{int(row % 3 == 0)}" for row, text in enumerate(remarks)]
    (tmp_path / "reviews.csv").write_text("\n".join(["remark;late;rude", *lines]) + "\n")
    return tmp_path


def test_every_option_is_explained():
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert {each.name for each in fields(Options)} <= named
    assert {suffix for suffix in READERS if suffix not in SUFFIXES} <= set(re.findall(r"`(\.\w+)`", PAGE))


def test_the_task_file_loads(folder):
    (folder / "task.yaml").write_text(blocks("yaml")[0])
    task = load_task(folder / "task.yaml")
    assert (task.kind, task.label_names, task.max_length) == ("multilabel", ("late", "rude"), 64)
    assert len(task.split("train")) == 16


def test_the_command_reads_the_file(folder):
    words = shlex.split(blocks("bash")[0])
    assert words[:2] == ["limbeck", "evaluate"]
    pairs = [words[index + 1] for index, word in enumerate(words) if word == "--task-set"]
    changes = settings(pairs) | {"delimiter": words[words.index("--delimiter") + 1]}
    task, split = load_judged(with_settings(words[words.index("--task") + 1], changes), base=folder)
    assert (split, len(task.split(split)), task.kind, task.columns.text) == ("test", 24, "classification", "remark")


def test_the_report_is_what_is_printed(tmp_path):
    rows = "".join(f"{row},comment number {row} of many,{row % 2}\n" for row in range(24))
    (tmp_path / "reviews.csv").write_text("id,comment,angry\n" + rows)
    task = load_task(tmp_path / "reviews.csv")
    report = summarize(task, lambda texts, pairs: [8] * len(texts)).lines()
    shown = re.search(r"```\n(data: reviews\n.*?)```", PAGE, re.DOTALL)[1].splitlines()
    assert report == shown
