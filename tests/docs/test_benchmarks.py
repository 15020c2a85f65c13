"""Scripts of benchmarks are run by hand, for they take long: what they use must exist, what they conclude be right."""

import ast
import runpy
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"
SCRIPTS = sorted(FOLDER.rglob("*.py"))


def defined(script):
    """Names that a script gives to others; read, not imported, for what it needs may not be installed."""
    body = ast.parse(script.read_text(encoding="utf-8")).body
    named = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return named | {target.id for node in body if isinstance(node, ast.Assign) for target in node.targets}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(FOLDER).with_suffix("").as_posix())
def test_what_a_benchmark_uses_exists(script):
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        beside = (script.parent if node.level else FOLDER).joinpath(*(node.module or "").split("."))
        for name in (alias.name for alias in node.names):
            if node.module and node.module.startswith("limbeck"):
                there = hasattr(import_module(node.module), name) or find_spec(f"{node.module}.{name}")
            elif beside.is_dir():
                there = (beside / f"{name}.py").is_file()
            elif beside.with_suffix(".py").is_file():
                there = name in defined(beside.with_suffix(".py"))
            else:
                there = not node.level  # of another library
            assert there, f"{node.module or '.'} has no {name}"


def test_a_peer_is_dominated_by_who_is_faster_and_no_worse():
    results = SimpleNamespace(**runpy.run_path(str(FOLDER / "peers" / "results.py")))
    labels = [0, 1] * 4
    answers = np.array([labels, labels, [0] * 8])
    seconds = np.array([4.0, 2.0, 1.0])[:, None, None] * np.ones((3, 6, 2)) * 1e-3
    session = {"opened": [0, 1, 2], "alone": [0, 1], "answers": answers}
    session |= {"seconds_whole": seconds, "seconds_alone": seconds[:2]}
    entries = [{"key": key, "name": key, "megabytes": 1.0} for key in ("eager", "onnxruntime-int8", "model2vec")]
    slow, fast, rough = results.rows(entries, session, labels)
    assert [row["dominated_by"] for row in (slow, fast, rough)] == [[fast["number"]], [], []]
    assert fast["whole"]["over_eager"] == [2.0, 2.0, 2.0]
    assert rough["alone"] is None
    assert rough["over_teacher"][0] == -0.5
    assert rough["mcnemar"] == 2 / 2**4
