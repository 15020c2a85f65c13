"""Measure a latency table on the target: encoders with random weights are timed alternately in one process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from limbeck.core.analytic_cost import NumberFormat, as_shape, of_model
from limbeck.core.candidate import Candidate
from limbeck.core.cost import Memo
from limbeck.core.measurement import environment
from limbeck.core.shape import Shape, short_key
from limbeck.core.target import Target
from limbeck.cost_models.latency_table import LatencyTable
from limbeck.cost_models.latency_table_fit import designs, fit
from limbeck.errors import InputError
from limbeck.measure.dummy_model import Setting, warm_calls

VERSION = 2  #: part of the key of a stored table; bump it when the same input gives another table


@dataclass(frozen=True)
class Anchor:
    """A model of another table, timed once more among those of a new one.

    A machine may have another speed by then. Latencies of the new table are given in the speed of the other, so that
    the two can be compared.

    Attributes:
        shape: Shape of the model, as deep as those that the other table was fitted to, so that nothing is extrapolated.
        seconds: Its latency by the other table.
    """

    shape: Shape
    seconds: float


def memoized(
    candidate: Candidate,
    target: Target,
    number_format: str,
    memo: Memo,
    whole: Shape | None = None,
    anchor: Anchor | None = None,
) -> LatencyTable:
    """Measure the table for the median length of a candidate's texts, once per ``memo``.

    Args:
        candidate: Its task gives the texts, its model the style of the measured encoders.
        target: Where latency is measured.
        number_format: ``float`` or ``int8``.
        memo: Returns the stored arrays of a key, or computes and stores them.
        whole: The table holds for everything that can be cut out of this shape; the candidate's own if None.
        anchor: Ties the table to another one, with which it will be compared.
    """
    if number_format not in ("float", "int8"):
        raise InputError(f"number_format should be 'float' or 'int8', got '{number_format}'")
    kind: NumberFormat = "int8" if number_format == "int8" else "float"
    shape, setting = whole or of_model(candidate.model)[0], Setting.of(candidate, target, kind)
    machine = {name: environment()[name] for name in ("processor", "instructions", "versions")}
    machine |= {"accelerators": environment().get("accelerators")} if target.on_gpu else {}
    inputs = {"shape": shape.to_json(), "style": setting.style, "seq_len": setting.seq_len, "machine": machine}
    inputs |= {"target": str(target), "number_format": number_format, "version": VERSION}
    inputs |= {"per_token": setting.per_token} | ({"long_texts": True} if setting.long_texts else {})
    inputs |= {"text_lengths": setting.text_lengths} if setting.text_lengths else {}
    inputs |= {"all_tokens": True} if shape.tokens and setting.reads_all > setting.per_token else {}  # newer, too
    inputs |= {"anchor": [anchor.shape.to_json(), anchor.seconds]} if anchor else {}
    name = f"latency-table-{short_key(inputs)}"

    def measure() -> dict[str, Any]:
        table = build(shape, setting, anchor)
        return {"json": np.frombuffer(json.dumps(table.to_json()).encode(), dtype=np.uint8)}

    return LatencyTable.from_json(json.loads(np.asarray(memo(name, measure)["json"], dtype=np.uint8).tobytes()))


def build(
    shape: Shape, setting: Setting, anchor: Anchor | None = None, *, seconds: float = 25.0, seed: int = 0
) -> LatencyTable:
    """Measure a table for everything that can be cut out of a shape.

    Args:
        shape: The largest shape.
        setting: How the encoders are made and run.
        anchor: A model of another table, with which this one will be compared.
        seconds: Approximate timing budget; loading comes on top.
        seed: Seed of the sampled shapes.
    """
    from limbeck.measure.isolation import run_timed

    setting.check()
    full, target = as_shape(shape), setting.target
    fitted, held_out = designs(full, seed)
    shapes = [each.to_json() for each in (*fitted, *held_out, *([anchor.shape] if anchor else []))]
    payload = {"shapes": shapes, "setting": setting.to_json(), "seconds": seconds}
    answer = run_timed("limbeck.cost_models.table_measurement:session", payload, target)
    times = measured = undisturbed_seconds(answer["seconds"])
    if anchor is not None:
        times = measured[:-1] * anchor.seconds / measured[-1]
    described = (str(target), setting.number_format, setting.seq_len)
    table = fit(full, fitted, times[: len(fitted)], *described, all_tokens=setting.reads_all)
    errors = relative_errors(table, held_out, times[len(fitted) :])
    quartiles = np.quantile(answer["seconds"].min(axis=2), [0.25, 0.75], axis=1)
    return dataclasses.replace(
        table,
        error_median=float(np.median(errors)),
        error_p95=float(np.quantile(errors, 0.95)),
        held_out=len(held_out),
        noise=float(np.median((quartiles[1] - quartiles[0]) / measured)),
        machine=environment()["processor"],
    )


def undisturbed_seconds(seconds: np.ndarray) -> np.ndarray:
    """Return the undisturbed seconds of each candidate, from [candidate, round, call] of one and the same input.

    Other work on the machine only ever adds time: the best call of each round, and the better quarter of the rounds.
    """
    return np.asarray(np.quantile(seconds.min(axis=2), 0.25, axis=1))


def relative_errors(table: LatencyTable, shapes: Sequence[Shape], times: np.ndarray) -> np.ndarray:
    """Return the relative error of each prediction.

    Args:
        table: The table that predicts.
        shapes: Measured shapes.
        times: Their latencies in seconds [shapes].
    """
    errors: np.ndarray = np.abs(np.array([table(shape).value for shape in shapes]) / times - 1)
    return errors


def session(payload: dict[str, Any]) -> dict[str, Any]:
    """Build an encoder of each shape in the child process and time them alternately for the given seconds."""
    from limbeck.measure.accelerator import clock, warm_up
    from limbeck.measure.timing import alternate, time_call

    setting = Setting.from_json(payload["setting"])
    device = setting.target.device
    calls = warm_calls([Shape.from_json(shape) for shape in payload["shapes"]], setting)
    warm_up(calls, device)
    once = sum(time_call(partial(call, 0)) for call in calls)
    turns, most, least = 5, 25, 5
    rounds = int(min(max(payload["seconds"] / (once * (turns + 1)), least), most))
    timings = alternate(calls, turns, rounds, now=clock(device))
    return {"seconds": np.stack([timing.seconds for timing in timings])}
