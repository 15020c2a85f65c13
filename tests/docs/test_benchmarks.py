"""Scripts of benchmarks are run by hand, for they take long; what they use of limbeck must exist all the same."""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parent.parent.parent / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_benchmark_uses_exists(script):
    tree = ast.parse(script.read_text(encoding="utf-8"))
    used = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module.startswith("limbeck")]
    assert used
    for node in used:
        for name in (alias.name for alias in node.names):
            there = hasattr(import_module(node.module), name) or find_spec(f"{node.module}.{name}")
            assert there, f"{node.module} has no {name}"
