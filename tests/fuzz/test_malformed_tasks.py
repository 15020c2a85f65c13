"""Thousands of malformed tasks and data files: a task, or one clear error, soon, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import examples, mutated, mutated_bytes
from hypothesis import given
from hypothesis import strategies as st
from malformed_files import FILES

from limbeck.data.loading import check_task, load_task

pytestmark = pytest.mark.fuzz

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


@examples(600)
@given(options=mutated(TASKS))
def test_options_of_a_task(rule, options):
    with rule.check():
        check_task(options if isinstance(options, dict) else str(options))
        load_task(options if isinstance(options, dict) else str(options))


@pytest.mark.parametrize("suffix", FILES)
@examples(250)
@given(data=st.data())
def test_data_files(rule, suffix, data):
    path = Path(f"data.{suffix}")
    path.write_bytes(data.draw(mutated_bytes(FILES[suffix])))
    with rule.check():
        load_task({"path": str(path)})
