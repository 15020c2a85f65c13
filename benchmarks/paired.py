"""Differences in accuracy between the candidates of a run, on the same examples, with 95 % bootstrap intervals.

    python benchmarks/paired.py runs/distillation --against KEY --split test
    python benchmarks/paired.py runs/seed0 runs/seed1 runs/seed2 --against KEY

Several runs are one recipe with other seeds: candidates that were made alike are one line, with their accuracy by seed,
and an example counts with its mean over the seeds. Intervals are over examples. KEY is one of the first run.
"""

import argparse
import json

import numpy as np

from limbeck.core.statistics import bootstrap, unpack
from limbeck.engine.result import read_result
from limbeck.report.display_names import changed_parameters


def read(run, split):
    """Which examples each candidate of a run has right [examples], by key and by how it was made."""
    result, right, methods = read_result(run), {}, {}
    for key, record in result.records.items():
        fact = record.fact("quality", split)
        if fact is None:
            continue
        steps = [(ancestor.step, changed_parameters(ancestor)) for ancestor in result.ancestors(key)[1:]]
        right[key] = unpack(fact.detail["correct"], fact.n).astype(float)
        methods[key] = json.dumps(steps, sort_keys=True)
    return right, methods


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="folders of runs")
    parser.add_argument("--against", required=True, help="key of the candidate to compare with, or its beginning")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    runs = [read(run, arguments.split) for run in arguments.runs]
    (base,) = [method for key, method in runs[0][1].items() if key.startswith(arguments.against)]
    for key, method in runs[0][1].items():
        both = []
        for right, methods in runs:
            by_method = {method: right[key] for key, method in methods.items()}
            if method in by_method and base in by_method:
                both.append((by_method[method], by_method[base]))
        accuracy, reference = (np.mean(side, axis=0) for side in zip(*both, strict=True))
        change = accuracy - reference
        value, low, high = bootstrap(lambda rows, change=change: 100 * float(np.mean(change[rows])), len(change))
        seeds = ", ".join(f"{100 * correct.mean():.2f}" for correct, _ in both)
        steps = "/".join(step for step, _ in json.loads(method))
        print(f"{key}  {100 * accuracy.mean():.2f} % ({seeds})  {value:+.2f} [{low:+.2f}, {high:+.2f}]  {steps}")


if __name__ == "__main__":
    main()
