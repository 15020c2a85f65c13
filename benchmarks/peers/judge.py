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
    right = {place: answers == labels for place, answers in zip(session["opened"], session["answers"], strict=True)}
    times = {
        way: {place: Timing(seconds) for place, seconds in zip(session[key], session[f"seconds_{way}"], strict=True)}
        for way, key in (("alone", "alone"), ("whole", "opened"))
    }
    places = {entry["key"]: place for place, entry in enumerate(entries)}
    made = []
    for place in session["opened"]:
        row = {"place": place, **{name: entries[place][name] for name in ("key", "name", "megabytes")}}
        row["accuracy"] = _rounded(wilson(int(right[place].sum()), len(labels)))
        row["over_teacher"] = _rounded(difference_of_shares(right[place], right[0]))
        row["mcnemar"] = mcnemar(right[place], right[0])
        for way, timings in times.items():
            row[way] = _timed(place, timings, places)
        made.append(row)
    made.sort(key=lambda row: -row["whole"]["p50_ms"][0])
    for number, row in enumerate(made, 1):
        row["number"] = number
    for row in made:
        row["dominated_by"] = [other["number"] for other in made if dominates(_point(other), _point(row), SENSES)]
    return made


SENSES = ("max", "min")


def _point(row):
    return row["accuracy"][0], row["whole"]["p50_ms"][0]


def _timed(place, timings, places):
    """Milliseconds of a call and how many times faster it is than the references; None where it was not timed."""
    mine = timings.get(place)
    if mine is None:
        return None
    found = {
        "p50_ms": _rounded(mine.p50, 1e3),
        "p99_ms": _rounded(mine.quantile(0.99), 1e3),
        "noise": round(mine.spread, 3),
    }
    for key, name in REFERENCES.items():
        if places.get(key) in timings:
            found[f"over_{name}"] = _rounded(paired_ratio(timings[places[key]].rounds, mine.rounds))
    return found


def _rounded(interval, scale=1.0):
    return [round(scale * float(value), 5) for value in interval]
