"""What the answers and the times of models say: accuracy against the teacher, speed-ups, who dominates whom."""

import numpy as np

from limbeck.core.pareto import dominates
from limbeck.core.statistics import difference_of_shares, mcnemar, paired_ratio, wilson
from limbeck.measure.timing import Timing

REFERENCES = {"eager": "eager", "onnxruntime-int8": "int8"}
"""Peers that every other is stated against, and what the speed-up over them is called."""


def rows(entries, session, labels):
    """A row for every model that ran, slowest first; the first entry is the teacher.

    Accuracies and their differences are shares, times milliseconds; intervals are 95 %: [value, low, high].
    """
    labels = np.asarray(labels)
    right = {index: answers == labels for index, answers in zip(session["opened"], session["answers"], strict=True)}
    times = {
        way: {index: Timing(seconds) for index, seconds in zip(session[key], session[f"seconds_{way}"], strict=True)}
        for way, key in (("alone", "alone"), ("whole", "opened"))
    }
    indices = {entry["key"]: index for index, entry in enumerate(entries)}
    table = []
    for index in session["opened"]:
        row = {"place": index, **{name: entries[index][name] for name in ("key", "name", "megabytes")}}
        row["accuracy"] = _rounded(wilson(int(right[index].sum()), len(labels)))
        row["over_teacher"] = _rounded(difference_of_shares(right[index], right[0]))
        row["mcnemar"] = mcnemar(right[index], right[0])
        for way, timings in times.items():
            row[way] = _timed(index, timings, indices)
        table.append(row)
    table.sort(key=lambda row: -row["whole"]["p50_ms"][0])
    for number, row in enumerate(table, 1):
        row["number"] = number
    for row in table:
        row["dominated_by"] = [other["number"] for other in table if dominates(_point(other), _point(row), SENSES)]
    return table


SENSES = ("max", "min")


def _point(row):
    return row["accuracy"][0], row["whole"]["p50_ms"][0]


def _timed(index, timings, indices):
    """Milliseconds of a call and how many times faster it is than the references; None where it was not timed."""
    timing = timings.get(index)
    if timing is None:
        return None
    values = {
        "p50_ms": _rounded(timing.p50, 1e3),
        "p99_ms": _rounded(timing.quantile(0.99), 1e3),
        "noise": round(timing.spread, 3),
    }
    for key, name in REFERENCES.items():
        if indices.get(key) in timings:
            values[f"over_{name}"] = _rounded(paired_ratio(timings[indices[key]].rounds, timing.rounds))
    return values


def _rounded(interval, scale=1.0):
    return [round(scale * float(value), 5) for value in interval]
