"""gc in a loop beside three runs on one store changes no result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUNS = 3
PROGRAM = Path(__file__).with_name("test_resume.py")
LOOP = """
import os, sys
from pathlib import Path
from limbeck.engine.store.gc import collect
from limbeck.engine.store.store import Store
rounds, store = 0, Store(Path(sys.argv[1]))
while not Path(sys.argv[2]).exists():
    if store.root.is_dir() and store.folder.marked:
        collect(store)
        rounds += 1
print(rounds)
"""


def start(root, folder):
    """A run of the toy steps in a process of its own, which test_resume.py is the program of."""
    environment = {**os.environ, "TOY_CALLS": str(root / f"calls-{folder}"), "TOY_SLOW": "0.1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(root), folder]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.mark.slow
def test_gc_in_a_loop_beside_three_runs_changes_no_result(toys, tmp_path):
    alone, shared, stop = tmp_path / "alone", tmp_path / "shared", tmp_path / "stop"
    for root in (alone, shared):
        root.mkdir()
        toys.model_folder(root / "model")
    expected = finish(start(alone, "run"))
    collecting = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(shared / "store"), str(stop)], stdout=subprocess.PIPE, text=True
    )
    try:
        first = start(shared, "run-0")
        time.sleep(0.3)  # the others find some work done, some in progress, some to do
        others = [start(shared, f"run-{number}") for number in range(1, RUNS)]
        results = [finish(process) for process in (first, *others)]
    finally:
        stop.touch()
        rounds, _ = collecting.communicate(timeout=300)
    assert int(rounds) > 3
    assert results == [expected] * RUNS
