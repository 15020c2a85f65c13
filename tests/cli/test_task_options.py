"""Every command that takes a task takes its options too, and says what was read before it works."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from commands import answer, call, recipe

from limbeck.core.kinds import KINDS


@pytest.fixture
def file(workspace):
    """The test rows of the task, in a file whose columns must be named: semicolons, an id, two kinds of labels."""
    with Path("moods/test.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    lines = [f"{n};{row['text']};{row['label']};{'xyz'[n % 3]}" for n, row in enumerate(rows)]
    Path("odd.csv").write_text("\n".join(["no;remark;mood;group", *lines]) + "\n")
    Path("odd.yaml").write_text('path: odd.csv\ndelimiter: ";"\nlabel: mood\n')
    return "odd.csv"


def test_the_kinds_are_those_of_the_data(file):
    status, _, err = call("evaluate", "tuned", "--task", file, "--kind", "tokenz")
    assert status == 2
    assert all(kind in err for kind in KINDS)


def test_evaluate_judges_every_row_of_a_file(file):
    options = ("--delimiter", ";", "--task-set", "label=mood")
    result = answer("evaluate", "tuned", "--task", file, *options)
    assert result["examples"] == 48
    assert answer("evaluate", "tuned", "--task", "odd.yaml")["quality"] == result["quality"]
    fewer = answer("evaluate", "tuned", "--task", "odd.yaml", "--split", "train", "--task-set", "limit.train=20")
    assert fewer["examples"] == 20
    status, _, err = call("evaluate", "tuned", "--task", "odd.yaml", "--max-length", 3, "--metric", "micro_f1")
    assert status == 0, err
    assert "text: 'remark', label: 'mood', not read: 'no', 'group'; classification (3 classes), metric micro_f1" in err
    assert "longer than 3 tokens and cut: test: 48 of 48 texts" in err


def test_errors_name_what_can_be_given(file):
    status, _, err = call("evaluate", "tuned", "--task", file)
    assert (status, "--delimiter ';'" in err) == (2, True)
    status, _, err = call("evaluate", "tuned", "--task", file, "--delimiter", ";")
    assert (status, "--task-set label=mood" in err, "--task-set label=group" in err) == (2, True, True)
    status, _, err = call("evaluate", "tuned", "--task", file, "--task-set", "lable=mood")
    assert (status, "did you mean 'label'" in err) == (2, True)
    Path("only").mkdir(exist_ok=True)
    Path("only/test.csv").write_text(Path("moods/test.csv").read_text())
    assert answer("evaluate", "tuned", "--task", "only")["examples"] == 48
    assert "no split 'train'" in call("evaluate", "tuned", "--task", "only", "--split", "train")[2]


def test_techniques_runs_and_plans_take_them(file):
    options = ("--delimiter", ";", "--task-set", "label=mood")
    status, out, err = call("prune", "--model", "tuned", "--task", file, "--out", "odd-pruned", "--heads", 1, *options)
    assert (status, err.count("data: odd")) == (0, 1), out + err
    steps = ({"size": {"split": "validation"}}, {"quality": {"split": "validation"}})
    planned = recipe("odd-recipe.yaml", *steps, task="odd.csv")
    assert call("plan", planned)[0] == 2
    status, _, err = call("plan", planned, *options)
    assert (status, "label: 'mood'" in err) == (0, True), err
    data = answer("plan", planned, *options, "--max-length", 4)["data"]
    assert (data["label"], data["truncation"][0]["max_length"], data["classes"]) == (["mood"], 4, 3)
    status, out, err = call("run", planned, *options, "--json")
    assert (status, "text: 'remark'" in err) == (0, True), err
    json.loads(out)
    assert "task" in Path("runs/odd-recipe/recipe.yaml").read_text()


def test_linearize_keeps_its_own_length():
    out = call("linearize", "--help")[1]
    assert out.count("--max-length") == 1
    assert "--task-set" in out


def test_a_bench_needs_a_task_for_them():
    status, _, err = call("bench", "--metric", "f1")
    assert (status, "add --task" in err) == (2, True)
