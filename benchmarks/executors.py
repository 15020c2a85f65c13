"""Carry out a recipe in one process, in worker processes and on a Ray cluster, and compare what the runs end with.

    python benchmarks/executors.py quickstart --set max_minutes=null --set replicas=2

The Ray cluster has three nodes on this machine. Each run has a store of its own, which has only the measurements of
shapes and of precisions from the first one: measured again, they would differ, and with them what is cut. Keys, figures
and bytes of weights and graphs must be the same, and so must be the choice, unless times within their noise made it.
Exit status 1 if anything differs.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from kill_workers import Nodes, Processes, begin, differences, outcome

from limbeck.recipe.recipe import dump, load_recipe

TIMED = ("latency", "speedup", "throughput", "memory")
"""Beginnings of the names of facts that are measured anew."""

SHARED = ("latency-table-*", "precision-*")
"""Measurements that the stores share."""


def untimed(found):
    """An outcome without what is measured anew by every run."""
    kept = {key: [fact for fact in facts if not fact[0].startswith(TIMED)] for key, facts in found["facts"].items()}
    return {**found, "facts": kept}


def carried_out(folder, recipe, settings, first):
    """Carry out the recipe in a folder; return the outcome and the seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    (memo := folder / "store" / "memo").mkdir(parents=True)
    for pattern in SHARED:
        for file in (first / "store" / "memo").glob(pattern):
            shutil.copy2(file, memo)
    start = time.perf_counter()
    process = begin(folder, settings, recipe)
    if process.wait() not in (0, 3):  # 3: nothing meets the budget, which is an outcome
        sys.exit((folder / "stderr").read_text()[-3000:])
    return untimed(outcome(folder)), time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="PATH=VALUE")
    parser.add_argument("--executors", nargs="+", choices=["processes", "ray"], default=["processes", "ray"])
    parser.add_argument("--folder", type=Path, default=Path("runs/executors"))
    options = parser.parse_args()
    recipe = dump(load_recipe(options.recipe).with_(*options.changes), full=True)
    first = options.folder / "local"
    expected, seconds = carried_out(first, recipe, None, first)
    print(json.dumps({"executor": "local", "models": len(expected["files"]), "seconds": round(seconds, 1)}), flush=True)
    differs = False
    for executor in options.executors:
        backend = Nodes() if executor == "ray" else Processes()
        try:
            found, seconds = carried_out(options.folder / executor, recipe, backend.settings, first)
        finally:
            backend.close()
        names = differences(expected, found)
        row = {"executor": executor, "models": len(found["files"]), "differences": names, "seconds": round(seconds, 1)}
        print(json.dumps(row), flush=True)
        differs = differs or bool(names)
    sys.exit(differs)


if __name__ == "__main__":
    main()
