"""Time many shapes into a file of latency data, in groups, each in a fresh process; resumable.

    data = collect(Collection(sample_shapes(space, 200), (setting,)), Path("machine.jsonl"))

Shapes of a group alternate, so that machine drift affects all of them equally, and every group also times the same
anchor, which reveals drift between groups (``latency_dataset.Series.factors``). Once all shapes have been timed, a
random sample is timed again to estimate the noise; then those whose two times differ, or whose time is far from an
additive model of the others; then those that still differ. Everything is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from limbeck.core.analytic_cost import macs
from limbeck.core.measurement import environment, machine
from limbeck.core.shape import Shape
from limbeck.cost_models.features import columns_of, design, fit_additive
from limbeck.cost_models.latency_dataset import TURNS, Dataset, Group, Series, TimedShape, append, read
from limbeck.errors import InputError
from limbeck.measure.dummy_model import Setting, warm_calls

WARMUP = 0.1  #: fraction of the rounds that is discarded
LEAST_TOLERANCE = 0.03  #: two measurements may differ by this much, or by three times the noise if that is more
FEWEST = 40  #: fewest shapes from which an additive model can tell outliers
MOST = 5  #: most rounds, as a multiple of those asked for, where calls are short


@dataclass(frozen=True)
class Collection:
    """What to time: every shape in every setting.

    Attributes:
        shapes: Different shapes; groups take them in this order, which should be a random one.
        settings: Targets, number formats and lengths.
        group: Shapes that one process times beside the anchor, all in memory at once.
        rounds: Turns of every shape; the first tenth is discarded.
        seconds: Minimum duration of a group, in up to five times as many rounds: a disturbance lasts a while.
        calls: Timed calls in a turn, all of the same input; the best of them counts.
        repeated: Share of the shapes that is timed a second time, in another process.
        seed: Decides which.
    """

    shapes: tuple[Shape, ...]
    settings: tuple[Setting, ...]
    group: int = 8
    rounds: int = 20
    seconds: float = 8.0
    calls: int = 5
    repeated: float = 0.1
    seed: int = 0

    def check(self) -> None:
        """Refuse what cannot be timed, before any work starts."""
        if len(set(self.shapes)) < max(len(self.shapes), 2):
            raise InputError(f"latency data need at least two shapes, all different; got {len(self.shapes)}")
        if min(self.group, self.calls) < 1 or self.rounds < 4 or not 0 <= self.repeated <= 1:
            wanted = "group and calls should be at least 1, rounds at least 4, repeated from 0 to 1"
            raise InputError(f"{wanted}; got {self.group}, {self.calls}, {self.rounds}, {self.repeated:g}")
        for setting in self.settings:
            setting.check()
        if not self.settings:
            raise InputError("latency data need at least one setting")


Timer = Callable[[Sequence[Shape], Setting, Collection], np.ndarray]
"""From shapes, their setting and how they are to be timed to seconds [shape, round, call]."""


def time_group(shapes: Sequence[Shape], setting: Setting, plan: Collection, graphs: Sequence[Path] = ()) -> np.ndarray:
    """Time shapes alternately in a fresh process.

    Args:
        shapes: What to time.
        setting: How encoders of these shapes are run.
        plan: Gives rounds, calls and seconds.
        graphs: Files of their graphs; made in the fresh process unless given.

    Returns:
        Seconds of every call [shape, round, call].
    """
    from limbeck.measure.isolation import run_timed

    payload: dict[str, Any] = {"shapes": [shape.to_json() for shape in shapes], "setting": setting.to_json()}
    payload |= {"rounds": plan.rounds, "calls": plan.calls, "seconds": plan.seconds}
    payload["graphs"] = [str(path) for path in graphs]
    answer = run_timed("limbeck.cost_models.collection:session", payload, setting.target)
    seconds: np.ndarray = answer["seconds"]
    return seconds


def session(payload: dict[str, Any]) -> dict[str, Any]:
    """Time the shapes of a payload in the child process."""
    from limbeck.measure.accelerator import clock, warm_up
    from limbeck.measure.timing import alternate, time_call

    setting, calls = Setting.from_json(payload["setting"]), payload["calls"]
    ready = warm_calls([Shape.from_json(shape) for shape in payload["shapes"]], setting, payload.get("graphs", ()))
    device = setting.target.device
    warm_up(ready, device)
    once = sum(time_call(partial(call, 0)) for call in ready)
    lasting = int(payload["seconds"] / (once * (calls + 1)))
    rounds = max(payload["rounds"], min(lasting, MOST * payload["rounds"]))
    timings = alternate(ready, calls, rounds, warmup=0, now=clock(device))
    return {"seconds": np.stack([timing.seconds for timing in timings])}


def collect(
    plan: Collection,
    path: str | Path,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    timer: Timer = time_group,
) -> Dataset:
    """Time what the file does not hold yet, one group at a time, and append each group as soon as it is done.

    Args:
        plan: What to time.
        path: File of latency data, new or begun.
        on_event: Called with the progress before each group.
        timer: Times one group.

    Returns:
        Everything in the file.
    """
    plan.check()
    path = Path(path)
    data = read(path) if path.is_file() and path.stat().st_size else Dataset()
    here = machine()
    if here not in data.machines:
        append(Dataset({here: environment()}), path)
        data = read(path)
    for setting in plan.settings:
        series = data.of(setting, here)
        for turn in TURNS:
            for group in _missing(plan, series, turn, timer, on_event):
                append(Dataset(groups=(group,)), path)
                series = Series(here, setting, (*series.groups, group))
    return read(path)


def _missing(
    plan: Collection, series: Series, turn: str, timer: Timer, on_event: Callable[[dict[str, Any]], None]
) -> Iterator[Group]:
    """Time the groups of a pass that the series lacks, lazily."""
    anchor = next(iter(series.anchors), None) or middle(plan.shapes)
    done = {timed.shape for group in series.groups if group.turn == turn for timed in group.shapes}
    todo = [shape for shape in _wanted(plan, series.before(turn), turn) if shape not in done and shape != anchor]
    for start in range(0, len(todo), plan.group):
        shapes = todo[start : start + plan.group]
        progress = {"turn": turn, "done": start, "total": len(todo), "setting": series.setting}
        on_event(progress | {"shapes": len(shapes)})
        seconds = np.asarray(timer([anchor, *shapes], series.setting, plan))
        counted = seconds[:, math.ceil(WARMUP * seconds.shape[1]) :]
        first, *others = map(TimedShape.of, [anchor, *shapes], counted)
        yield Group(series.machine, series.setting, turn, first, tuple(others), time.time())


def middle(shapes: Sequence[Shape]) -> Shape:
    """Return the median shape by multiply-accumulates, which serves as the anchor."""
    return sorted(shapes, key=lambda shape: macs(shape, 32))[len(shapes) // 2]


def _wanted(plan: Collection, earlier: Series, turn: str) -> list[Shape]:
    """Choose the shapes to time in a pass by the measurements of earlier passes."""
    if turn == "first":
        return list(plan.shapes)
    if turn == "repeat":
        count = math.ceil(plan.repeated * len(plan.shapes))
        return Random(plan.seed).sample(plan.shapes, count)
    planned = set(plan.shapes)
    return [shape for shape in outliers(earlier) if shape in planned]


def tolerance(series: Series) -> float:
    """Return the share by which two measures of one shape may differ."""
    return max(LEAST_TOLERANCE, 3 * series.noise)


def outliers(series: Series) -> list[Shape]:
    """Find shapes to time again: their measures differ, or their only one is far from an additive fit of the others."""
    allowed = tolerance(series)
    far = _far_off(series, allowed)
    suspicious = []
    for shape, turns in series.measures.items():
        values = sorted(turns.values())
        settled = len(values) > 2 or (len(values) > 1 and values[1] / values[0] - 1 <= allowed)
        if not settled and (len(values) > 1 or shape in far):
            suspicious.append(shape)
    return suspicious


def _far_off(series: Series, allowed: float) -> set[Shape]:
    """Find shapes that an additive model of all the others misses by far more than usual."""
    shapes, seconds = series.shapes, series.seconds
    if len(shapes) < FEWEST:
        return set()
    matrix = design(columns_of(shapes), series.setting)
    fits = np.ones(len(shapes), dtype=bool)
    for _ in range(3):  # outliers distort the fit, so it is repeated without them
        predicted = matrix @ fit_additive(matrix[fits], seconds[fits])
        residuals = np.log(seconds / predicted)
        centred = np.abs(residuals - np.median(residuals[fits]))
        usual = 1.4826 * np.median(centred[fits])
        fits = centred <= max(4 * usual, allowed)
    return {shape for shape, good in zip(shapes, fits, strict=True) if not good}
