from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from limbeck.errors import LimbeckError
from limbeck.measure.isolation import run_isolated

HELPERS = """
import os

def describe(payload):
    import torch
    return {
        "pid": os.getpid(),
        "threads": torch.get_num_threads(),
        "omp": os.environ["OMP_NUM_THREADS"],
        "doubled": payload["array"] * 2,
        "word": payload["word"],
        "path": __import__("sys").path[0],
    }

def fail(payload):
    raise ValueError("the reason in words")

def refuse(payload):
    from limbeck.errors import InputError
    raise InputError("bad option")

def die(payload):
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def _helpers(tmp_path, monkeypatch):
    (tmp_path / "isolated_helpers.py").write_text(HELPERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_fresh_process_with_fixed_threads_gets_and_returns_data(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    payload = {"array": np.arange(3), "word": "grüße"}
    answer = run_isolated("isolated_helpers:describe", payload, threads=2)
    assert answer["pid"] != os.getpid()
    assert (answer["threads"], answer["omp"]) == (2, "2")
    assert answer["doubled"].tolist() == [0, 2, 4]
    assert answer["word"] == "grüße"
    assert Path(answer["path"]) != Path.cwd()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fail", "(?s)exit status 1.*ValueError: the reason in words"),
        ("refuse", "bad option"),
        ("die", "signal 9; is there enough memory"),
    ],
)
def test_what_went_wrong_is_told(name, message):
    with pytest.raises(LimbeckError, match=message):
        run_isolated(f"isolated_helpers:{name}", {})


def test_the_child_imports_from_where_its_parent_does(tmp_path, monkeypatch):
    (tmp_path / "helper.py").write_text("def work(payload):\n    return {'file': __file__}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert run_isolated("helper:work", {}) == {"file": str(tmp_path / "helper.py")}
