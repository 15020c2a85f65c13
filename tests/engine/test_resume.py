"""Kill a run at any moment, run it again: the same records, and nothing finished is repeated.

Also two runs at once on one store. The runs are real processes: this file is also their program.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FAST = {"TOY_SLOW": "0"}


def main(root: Path, folder: str) -> None:
    """One run of the toy steps; its records go to standard output."""
    spec = importlib.util.spec_from_file_location("engine_toys", Path(__file__).parent.parent / "support" / "toys.py")
    toys = importlib.util.module_from_spec(spec)
    sys.modules["engine_toys"] = toys
    spec.loader.exec_module(toys)
    from limbeck.core.step import REGISTRY
    from limbeck.engine.run import run
    from limbeck.recipe.parsing import registry
    from limbeck.recipe.recipe import Fork, Recipe

    registry()
    REGISTRY.update(toys.TOYS)
    branches = Fork(((toys.ToyTrain(4, 1.0),), (toys.ToyTrain(4, 2.0),)))
    steps = (branches, toys.ToyLevels((4, 2)), toys.ToyQuality())
    recipe = Recipe(str(root / "model"), "movie-reviews", steps)
    result = run(recipe, toys.store(root / "store"), root / folder, task=toys.ToyTask())
    facts = {key: [record.step, [fact.value for fact in record.facts]] for key, record in result.records.items()}
    weights = {key: result.open(key).model.weights for key in result.front}
    sys.stdout.write(json.dumps([facts, weights]))


def start(root, folder="run", **environment):
    environment = {**os.environ, "TOY_CALLS": str(root / "calls"), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, __file__, str(root), folder]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def finish(process):
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(output)


def calls(root):
    return (root / "calls").read_text().splitlines() if (root / "calls").exists() else []


def epochs(root):
    return [call for call in calls(root) if call.startswith("epoch")]


@pytest.fixture
def root(toys, tmp_path):
    toys.model_folder(tmp_path / "model")
    return tmp_path


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    other = tmp_path_factory.mktemp("undisturbed")
    sys.modules["engine_toys"].model_folder(other / "model")  # conftest.py has loaded it
    return finish(start(other, **FAST))


@pytest.mark.slow
def test_kill_at_several_moments(root, expected):
    for wanted in (1, 3, 6):  # epochs begun before the blow
        process = start(root, TOY_SLOW="0.15")
        while len(epochs(root)) < wanted and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert finish(start(root, **FAST)) == expected
    done = epochs(root)
    assert set(done) == {f"epoch {by} {number}" for by in (1.0, 2.0) for number in range(4)}
    assert len(done) <= 8 + 3  # each blow costs the epoch it fell in and no more
    assert not list((root / "store" / "work").iterdir())


@pytest.mark.slow
def test_a_torn_ledger_is_told_and_left_alone(root, expected):
    finish(start(root, **FAST))
    with (root / "run" / "ledger.jsonl").open("a") as stream:
        stream.write('{"event": "rec')
    assert finish(start(root, **FAST)) == expected
    assert "torn by a crash" in (root / "run" / "ledger.jsonl").read_text()


def test_two_runs_on_one_store_share_the_work(root, expected):
    both = [start(root, folder, TOY_SLOW="0.02") for folder in ("one", "two")]
    assert [finish(process) for process in both] == [expected, expected]
    assert sorted(epochs(root)) == sorted(f"epoch {by} {number}" for by in (1.0, 2.0) for number in range(4))
    assert len([call for call in calls(root) if call.startswith("quality")]) <= 8


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
