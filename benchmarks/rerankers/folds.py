"""Carry out a recipe for rerankers once for each fold of the queries, and join the tests of all folds.

    python benchmarks/rerankers/folds.py benchmarks/rerankers/cranfield.yaml [--folds 0 1 2 3 4] [--set KEY=VALUE ...]

Every query is tested in one fold. Prints nDCG@10 of the first stage and of each model over all queries, what remains of
the model's in INT8 that nothing was cut out of, the overlap of the first ten documents with the fine-tuned model, and
for each request the time relative to that INT8 model, and to one padded batch of all documents. Intervals are 95 %:
over queries by a paired bootstrap, over folds from the least to the greatest for times. ``--json FILE`` keeps the
figures. Finished work is kept in the store, so an interrupted script continues.

A short run that goes through everything:

    python benchmarks/rerankers/folds.py benchmarks/rerankers/cranfield.yaml --folds 0 1 --folder runs/short \
        --set 'task.limit={train: 150, validation: 50, test: 50}' --set task.max_length=48 \
        --set allow_weak_teacher=true
"""

import argparse
import json
from pathlib import Path

import numpy as np

from limbeck.core.statistics import unpack_numbers
from limbeck.engine.run import run
from limbeck.recipe.recipe import load_recipe
from limbeck.report.display_names import names
from limbeck.report.table import rows

FIRST_STAGE = "first stage"


def quality(fact, fold):
    """Value, number of queries and values on resamples, shuffled by fold but alike for all models of a fold.

    Resamples of all folds hold the same rows, which are other queries in each: shuffled, folds are independent.
    """
    order = np.random.default_rng(fold).permutation(1000)
    return fact.value, fact.n, unpack_numbers(fact.detail["resampled"])[order]


def of_fold(result, fold):
    """The figures of every model of a run, by name."""
    summary = result.run_summary
    figures = {FIRST_STAGE: {"quality": quality(summary.baseline.quality["test"], fold)}}
    for row in rows(summary):
        record = summary.records.get(row.key)
        if record is None or record.fact("quality", "test") is None:
            continue
        latency, overlap = record.fact("latency_p50"), record.fact("overlap_at_10", "test")
        figures[names(summary)[row.key]] = {
            "quality": quality(record.fact("quality", "test"), fold),
            "overlap": overlap.value if overlap is not None else None,
            "ms": latency.value * 1e3 if latency is not None else None,
            "sub_batch": latency.detail["sub_batch"] if latency is not None else None,
            "over_one_batch": latency.detail["over_one_batch"] if latency is not None else None,
            "over_int8": row.speedup_int8.value if row.speedup_int8 is not None else None,
        }
    return figures


def joined(folds, name):
    """Mean over the queries of all folds, and the same on resamples."""
    parts = [figures[name]["quality"] for figures in folds]
    weights = np.array([count for _, count, _ in parts], dtype=float)
    return (
        float(np.average([value for value, _, _ in parts], weights=weights)),
        np.average([values for _, _, values in parts], axis=0, weights=weights),
        int(weights.sum()),
    )


def bounds(values):
    return [round(float(value), 4) for value in np.quantile(values, [0.025, 0.975])]


def table(folds, reference):
    """A row for each model: its quality, differences from the first stage, and what remains of the reference."""
    first, first_values, _ = joined(folds, FIRST_STAGE)
    whole, whole_values, _ = joined(folds, reference) if reference else (None, None, 0)
    result = []
    for name in folds[0]:
        if any(name not in figures for figures in folds):
            continue
        value, values, count = joined(folds, name)
        row = {"name": name, "ndcg": [round(value, 4), *bounds(values)], "queries": count}
        row["over_first_stage"] = [round(value - first, 4), *bounds(values - first_values)]
        if whole:
            row["kept"] = [round(value / whole, 4), *bounds(values / whole_values)]
        for key in ("overlap", "ms", "sub_batch", "over_one_batch", "over_int8"):
            numbers = [figures[name][key] for figures in folds if figures[name].get(key) is not None]
            if numbers:
                row[key] = [round(float(np.mean(numbers)), 4), round(min(numbers), 4), round(max(numbers), 4)]
        result.append(row)
    return result


def shown(row):
    spans = {key: row[key] for key in ("ndcg", "over_first_stage", "kept") if key in row}
    spans |= {key: row[key] for key in ("overlap", "ms", "sub_batch", "over_one_batch", "over_int8") if key in row}
    parts = [f"{key} {value[0]:.4g} [{value[1]:.4g}, {value[2]:.4g}]" for key, value in spans.items()]
    return f"{row['name']}: {', '.join(parts)}, n {row['queries']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folds, references = [], []
    for fold in arguments.folds:
        recipe = load_recipe(arguments.recipe).with_(f"task.fold={fold}", *arguments.set)
        folder = arguments.folder or Path("runs") / recipe.name
        result = run(recipe, arguments.store, folder / f"fold{fold}")
        for failure in result.failed:
            print(f"fold {fold}: {failure.path} {failure.step}: {failure.error}", flush=True)
        folds.append(of_fold(result, fold))
        references.append([name for name, row in folds[-1].items() if row.get("over_int8") is None and "INT8" in name])
        print(f"fold {fold}: done", flush=True)
    figures = table(folds, next(iter(references[0]), None))
    for row in figures:
        print(shown(row))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
