"""Thousands of malformed recipes, tasks and data files: a result or one clear error, soon, and nothing else."""

from __future__ import annotations

import csv
import io
import json
import warnings
from pathlib import Path

import pytest
from fuzzing import Rule, examples, mutated, mutated_bytes
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.loading import check_task, load_task
from limbeck.errors import RecipeError, RenamedWarning
from limbeck.recipe.recipe import check, parse, shipped
from limbeck.storage import yaml_text

pytestmark = pytest.mark.fuzz

RECIPES = [yaml_text.load_file(path) for path in shipped().values()]
RECIPES += [
    {
        "model": "m",
        "task": {"path": "movie-reviews", "limit": {"train": 20}, "max_length": 64},
        "target": {"threads": 2, "seq_len": 32, "device": "cpu", "runtime": "onnxruntime"},
        "budget": {"latency_ms": 2.5, "size_mb": 10, "max_drop": 1},
        "seed": 3,
        "replicas": 2,
        "teacher": "t",
        "name": "all",
        "steps": [
            {"finetune": {"epochs": 1, "class_weights": [1, 2]}},
            {"each": {"prune": {"keep": [0.5, 0.3], "samples": [10, 20]}}},
            {"stages": [{"prune": {"speedup": [2, 3]}}, "distill"]},
            {"fork": [[{"export": {}}], [], [{"search": {"latency_ms": 3}}]]},
            {"latency": {"rounds": 3}},
            "best",
        ],
    }
]
TEXTS = [path.read_bytes() for path in shipped().values()]
TASKS = [
    {"path": "data.csv", "text": "text", "label": "label", "max_length": 32, "limit": {"train": 10}, "seed": 1},
    {
        "train": "data.csv",
        "test": "data.tsv",
        "kind": "classification",
        "metric": "accuracy",
        "label_names": ["a", "b"],
    },
    {"path": "data.jsonl", "on_empty": "drop", "on_unlabelled": "drop", "header": True, "delimiter": ",", "name": "x"},
    {"path": "data.csv", "kind": "multilabel", "label": ["label", "other"], "label_separator": "|"},
]
ROWS = [("text", "pair", "label")] + [(f"word {n} of a text", f"second {n}", ("up", "down")[n % 2]) for n in range(30)]


def _parquet():
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    columns = dict(zip(ROWS[0], map(list, zip(*ROWS[1:], strict=True)), strict=True))
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def _csv(delimiter):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(ROWS)
    return stream.getvalue().encode()


FILES = {
    "csv": [_csv(","), b"text,a,b\n" + b"x,0,1\ny,1,0\n" * 20, b"text,score\n" + b"a,0.5\nb,1.25\n" * 20],
    "tsv": [_csv("\t"), b"good\t1\nbad\t0\n" * 20],
    "jsonl": ["\n".join(json.dumps(dict(zip(ROWS[0], row, strict=True))) for row in ROWS[1:]).encode()],
    "json": [json.dumps([{"text": f"a {n}", "label": n % 2} for n in range(30)]).encode()],
    "conll": [b"".join(b"New B-LOC\nYork I-LOC\nis O\n\n" for _ in range(20))],
    "parquet": [_parquet()],
    "txt": [b"".join(b"New\tB-LOC\nYork\tI-LOC\n\n" for _ in range(20))],
}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RenamedWarning)
        yield


@pytest.fixture
def rule(tmp_path, monkeypatch):
    rule = Rule(tmp_path)
    monkeypatch.chdir(rule.work)
    for suffix, files in FILES.items():
        Path(f"data.{suffix}").write_bytes(files[0])
    return rule


@examples(3000)
@given(data=mutated(RECIPES))
def test_recipes_as_data(rule, data):
    with rule.check():
        problems = check(data)
        assert all(len(str(problem)) < 1000 for problem in problems)
        try:
            parse(data)
        except RecipeError:
            assert problems


@examples(2000)
@given(raw=mutated_bytes(TEXTS))
def test_recipes_as_files(rule, raw):
    Path("recipe.yaml").write_bytes(raw)
    with rule.check():
        assert all(len(str(problem)) < 1000 for problem in check("recipe.yaml"))


@examples(1000)
@given(options=mutated(TASKS))
def test_options_of_a_task(rule, options):
    with rule.check():
        check_task(options if isinstance(options, dict) else str(options))
        load_task(options if isinstance(options, dict) else str(options))


@pytest.mark.parametrize("suffix", FILES)
@examples(450)
@given(data=st.data())
def test_data_files(rule, suffix, data):
    path = Path(f"data.{suffix}")
    path.write_bytes(data.draw(mutated_bytes(FILES[suffix])))
    with rule.check():
        load_task({"path": str(path)})
