"""Thousands of malformed recipes: the problems, or one clear error, soon, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import examples, mutated, mutated_bytes
from hypothesis import given

from limbeck.errors import RecipeError
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


@examples(2600)
@given(data=mutated(RECIPES))
def test_recipes_as_data(rule, data):
    with rule.check():
        problems = check(data)
        assert all(len(str(problem)) < 1000 for problem in problems)
        try:
            parse(data)
        except RecipeError:
            assert problems


@examples(1200)
@given(raw=mutated_bytes(TEXTS))
def test_recipes_as_files(rule, raw):
    Path("recipe.yaml").write_bytes(raw)
    with rule.check():
        assert all(len(str(problem)) < 1000 for problem in check("recipe.yaml"))
