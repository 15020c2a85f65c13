"""Fronts of accuracy and latency by the way their models were made, from runs of search.yaml.

    python benchmarks/fronts.py runs/search [runs/search-seed1 …] --split test

For each run: every model in INT8 with its accuracy, its latency and, where a search foretold one, that too, beside what
was measured in the number format of the search; and for each way the hypervolume (points of accuracy x ms) from one
reference point: the worst of both over all ways. Differences between ways have 95 % intervals, by bootstrap over the
examples.
"""

import argparse
from itertools import combinations

import numpy as np

from limbeck.core.pareto import beyond, hypervolume
from limbeck.core.statistics import bootstrap, unpack
from limbeck.engine.result import read_result

SENSES = ("max", "min")


def way(records):
    """How a model was made, by the steps of its lineage."""
    steps = {record.step: record.parameters for record in records}
    if "search" in steps:
        return f"searched in {steps['search'].get('number_format', 'int8')}"
    if "prune" not in steps:
        return "whole"
    return "pruned evenly" if steps["prune"].get("heads") else "pruned by latency"


def models(run, split):
    """Way, shape, which examples are right, latency in ms, and what was foretold, of every measured INT8 model."""
    result = read_result(run)
    floats = {
        record.parent: record.fact("latency_p50")
        for record in result.records.values()
        if record.step == "export" and record.fact("latency_p50")
    }
    for key, record in result.records.items():
        quality, latency = record.fact("quality", split), record.fact("latency_p50")
        records = result.ancestors(key)
        if quality is None or latency is None or not any(one.step == "quantize" for one in records):
            continue
        told = ""
        if foretold := next((fact for one in records if (fact := one.fact("latency_predicted"))), None):
            trained = next(one.parent for one in records if one.step == "export")
            seen = latency if foretold.detail["number_format"] == "int8" else floats.get(trained)
            told = compared(foretold, seen) if seen is not None else ""
        right = unpack(quality.detail["correct"], quality.n).astype(float)
        yield way(records), str(record.shape), right, latency.value * 1e3, told


def compared(foretold, seen):
    """What was foretold of a latency, and what was measured."""
    low, middle, high = (1e3 * one for one in (foretold.low, foretold.value, foretold.high))
    off = 100 * (foretold.value / seen.value - 1)
    form = foretold.detail["number_format"]
    return f"  {form}: foretold {middle:.3f} [{low:.3f}, {high:.3f}] ms, measured {1e3 * seen.value:.3f} ({off:+.1f} %)"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="folders of runs")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    for run in arguments.runs:
        found = sorted(models(run, arguments.split), key=lambda model: (model[0], model[3]))
        print(f"\n{run}, {arguments.split}, n = {len(found[0][2])}")
        for name, shape, right, latency, told in found:
            print(f"{name:18} {100 * right.mean():6.2f} %  {latency:.3f} ms  {shape}{told}")
        compare(found)


def compare(found):
    """Hypervolumes of the ways, and of every two the difference."""
    every = np.stack([model[2] for model in found])
    times = np.array([model[3] for model in found])
    corner = beyond(np.column_stack([100 * every.mean(1), times]), SENSES)
    print(f"hypervolume from {corner[0]:.2f} %, {corner[1]:.3f} ms:")

    def volume(name, rows):
        mine = [place for place, model in enumerate(found) if model[0] == name]
        points = np.column_stack([100 * every[mine][:, rows].mean(1), times[mine]])
        return hypervolume(points, corner, SENSES)

    names = sorted({model[0] for model in found} - {"whole"})
    whole = np.arange(every.shape[1])
    for name in names:
        print(f"{name:18} {volume(name, whole):.3f}")
    for one, other in combinations(names, 2):
        value, low, high = bootstrap(
            lambda rows, one=one, other=other: volume(one, rows) - volume(other, rows), every.shape[1]
        )
        print(f"{one} less {other}: {value:+.3f} [{low:+.3f}, {high:+.3f}]")


if __name__ == "__main__":
    main()
