"""Fronts of accuracy and latency by how their models were made, from runs of search.yaml.

    python benchmarks/fronts.py runs/search [runs/search-seed1 …] --split test

For each run: the accuracy and latency of every INT8 model and, where a search predicted its latency, the prediction
beside the measurement in the search's number format; and the hypervolume of each method (points of accuracy x ms) from
one reference point, the worst of both over all methods. Differences between methods have 95 % bootstrap intervals over
the examples.
"""

import argparse
from itertools import combinations

import numpy as np

from limbeck.core.pareto import beyond, hypervolume
from limbeck.core.statistics import bootstrap, unpack
from limbeck.engine.result import read_result

SENSES = ("max", "min")


def method(records):
    """How a model was made, by the steps of its lineage."""
    steps = {record.step: record.parameters for record in records}
    if "search" in steps:
        return f"searched in {steps['search'].get('number_format', 'int8')}"
    if "prune" not in steps:
        return "whole"
    return "pruned evenly" if steps["prune"].get("heads") else "pruned by latency"


def models(run, split):
    """Yield method, shape, correct examples, latency in ms and predicted latency of every measured INT8 model."""
    result = read_result(run)
    floats = {
        record.parent: record.fact("latency_p50")
        for record in result.records.values()
        if record.step == "export" and record.fact("latency_p50")
    }
    for key, record in result.records.items():
        quality, latency = record.fact("quality", split), record.fact("latency_p50")
        records = result.ancestors(key)
        if quality is None or latency is None or not any(ancestor.step == "quantize" for ancestor in records):
            continue
        prediction = ""
        if predicted := next((fact for ancestor in records if (fact := ancestor.fact("latency_predicted"))), None):
            trained = next(ancestor.parent for ancestor in records if ancestor.step == "export")
            measured = latency if predicted.detail["number_format"] == "int8" else floats.get(trained)
            prediction = compared(predicted, measured) if measured is not None else ""
        right = unpack(quality.detail["correct"], quality.n).astype(float)
        yield method(records), str(record.shape), right, latency.value * 1e3, prediction


def compared(predicted, measured):
    """What was predicted of a latency, and what was measured."""
    low, middle, high = (1e3 * bound for bound in (predicted.low, predicted.value, predicted.high))
    error = 100 * (predicted.value / measured.value - 1)
    number_format = predicted.detail["number_format"]
    interval = f"predicted {middle:.3f} [{low:.3f}, {high:.3f}] ms"
    return f"  {number_format}: {interval}, measured {1e3 * measured.value:.3f} ({error:+.1f} %)"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="folders of runs")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    for run in arguments.runs:
        measured_models = sorted(models(run, arguments.split), key=lambda model: (model[0], model[3]))
        print(f"\n{run}, {arguments.split}, n = {len(measured_models[0][2])}")
        for name, shape, right, latency, prediction in measured_models:
            print(f"{name:18} {100 * right.mean():6.2f} %  {latency:.3f} ms  {shape}{prediction}")
        compare(measured_models)


def compare(measured_models):
    """Print the hypervolume of each method, and the difference of every two."""
    every = np.stack([model[2] for model in measured_models])
    times = np.array([model[3] for model in measured_models])
    corner = beyond(np.column_stack([100 * every.mean(1), times]), SENSES)
    print(f"hypervolume from {corner[0]:.2f} %, {corner[1]:.3f} ms:")

    def volume(name, rows):
        indices = [index for index, model in enumerate(measured_models) if model[0] == name]
        points = np.column_stack([100 * every[indices][:, rows].mean(1), times[indices]])
        return hypervolume(points, corner, SENSES)

    names = sorted({model[0] for model in measured_models} - {"whole"})
    whole = np.arange(every.shape[1])
    for name in names:
        print(f"{name:18} {volume(name, whole):.3f}")
    for first, second in combinations(names, 2):
        value, low, high = bootstrap(
            lambda rows, first=first, second=second: volume(first, rows) - volume(second, rows), every.shape[1]
        )
        print(f"{first} less {second}: {value:+.3f} [{low:+.3f}, {high:+.3f}]")


if __name__ == "__main__":
    main()
