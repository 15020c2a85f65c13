"""Differences in accuracy between the candidates of a run, on the same examples, with 95 % bootstrap intervals.

python benchmarks/paired.py runs/distillation --against KEY --split test
"""

import argparse

import numpy as np

from limbeck.core.statistics import bootstrap, unpack
from limbeck.engine.deliver import story_of
from limbeck.engine.result import read_result
from limbeck.engine.run import load
from limbeck.engine.story import names


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a run")
    parser.add_argument("--against", required=True, help="key of the candidate to compare with, or its beginning")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    result = read_result(arguments.run)
    called = names(story_of(result, load(result.recipe)))
    right = {}
    for key, record in result.records.items():
        fact = record.fact("quality", arguments.split)
        if fact is not None:
            right[key] = unpack(fact.detail["correct"], fact.n).astype(float)
    (base,) = [key for key in right if key.startswith(arguments.against)]
    for key, flags in right.items():
        change = flags - right[base]
        value, low, high = bootstrap(lambda rows, change=change: 100 * float(np.mean(change[rows])), len(change))
        print(f"{key}  {100 * flags.mean():.2f} %  {value:+.2f} [{low:+.2f}, {high:+.2f}]  {called.get(key, '')}")


if __name__ == "__main__":
    main()
