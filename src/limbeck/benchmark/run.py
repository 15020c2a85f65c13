"""Latency of a grid of architectures, with random weights: resumable, with every raw sample kept.

    rows = bench(Bench(points, settings), Path("runs/bench-main"))

A trial is a fresh process that calls one architecture again and again. Trials of all architectures are interleaved
(every architecture once, in an order drawn anew, then every one again), so that a slow hour meets all alike; what was
timed is written at once and never timed again by the same command on the same machine.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.benchmark.grid import Point
from limbeck.benchmark.options import Mode
from limbeck.core import analytic_cost as counts
from limbeck.core.finite import load_json
from limbeck.core.measurement import Measurement, environment, machine
from limbeck.core.shape import Shape, short_key
from limbeck.errors import InputError, LimbeckError
from limbeck.measure.dummy_model import Setting
from limbeck.measure.trial import Trial, peak_memory, time_trial
from limbeck.model.style import Style
from limbeck.storage.jsonl import append_lines, whole_lines

TRIALS, MEMORY, SAMPLES, TABLE = "trials.jsonl", "memory.jsonl", "samples.parquet", "latency.csv"
VOCABULARY = 30522  #: words that parameters are counted with, those of BERT: the tables of a stand-in are small
IDENTITY = ("group", "architecture", "shape", "weights", "runtime", "format", "tokens")
"""Columns that say whose a sample is."""
Timer = Callable[[Trial], np.ndarray]


@dataclass(frozen=True)
class Bench:
    """What to time: every point in every setting, ``trials`` times. ``within``: the super model of shared weights.

    ``memory``: also what each needs while it answers, in one process more.
    """

    points: tuple[Point, ...]
    settings: tuple[Setting, ...]
    trials: int = 3
    calls: int = 100
    warmup_ratio: float = 0.1
    lengths: tuple[int, ...] = ()
    within: Shape | None = None
    seed: int = 0
    memory: bool = False

    def jobs(self) -> list[Job]:
        """Every trial, in the order in which they run."""
        once = [
            Job(point, Trial(point.shape, setting, self.calls, self.warmup_ratio, self.lengths, self.within), 0)
            for setting in self.settings
            for point in self.points
        ]
        rng = random.Random(self.seed)
        return [replace(job, number=number) for number in range(self.trials) for job in rng.sample(once, len(once))]

    @property
    def target_text(self) -> str:
        """Where and at which lengths, for a title: all runtimes, and the range of the lengths that were asked for."""
        runtimes = " and ".join(dict.fromkeys(setting.target.runtime for setting in self.settings))
        lengths = [setting.seq_len for setting in self.settings]
        target = self.settings[0].target
        target_text = str(replace(target, precision="float32", compile=False)).replace(target.runtime, runtimes)
        varied = not self.lengths and len(set(lengths)) > 1
        return (
            target_text.replace("real lengths", f"{min(lengths):,} to {max(lengths):,} tokens")
            if varied
            else target_text
        )

    def check(self) -> None:
        """Refuse what cannot be timed, before any work starts."""
        if not self.points:
            raise InputError("there is nothing to time: give layers, hidden, miniatures, attention_ratio or attention")
        if self.trials < 1:
            raise InputError(f"trials: should be at least 1, got {self.trials}")
        for job in self.jobs():
            job.trial.check()


@dataclass(frozen=True)
class Job:
    """One trial of one point."""

    point: Point
    trial: Trial
    number: int

    @property
    def key(self) -> str:
        """Digest of what is timed, on which machine, and of the number of the repetition."""
        identity = {"trial": self.trial.to_json(), "number": self.number, "machine": machine()}
        return short_key(identity)


@dataclass(frozen=True)
class Row:
    """What was measured of a point in a setting: seconds of each trial's calls, quality by how it was trained.

    ``shared``: it was timed as a slice of a larger model. ``memory``: bytes that it needed while it answered.
    """

    point: Point
    setting: Setting
    shared: bool
    seconds: tuple[np.ndarray, ...]
    scores: Mapping[Mode, Measurement] = field(default_factory=dict)
    memory: float | None = None

    @property
    def medians(self) -> list[float]:
        """Median call of each trial, in seconds."""
        return [float(np.median(each)) for each in self.seconds]

    @property
    def median(self) -> float:
        """Median of the trials' medians, in seconds."""
        return float(np.median(self.medians))

    @property
    def p90(self) -> float:
        """Time that 90 % of all calls needed at most, in seconds."""
        return float(np.quantile(np.concatenate(self.seconds), 0.9))

    def to_json(self) -> dict[str, Any]:
        """Figures for a table: times in milliseconds, qualities in units of the metric."""
        shape, target = self.point.shape, self.setting.target
        style = Style(**{**self.setting.style, "vocab_size": VOCABULARY})
        pooler = bool(style.pooler) and not self.setting.per_token
        return {
            "group": self.point.group,
            "architecture": self.point.label,
            "shape": str(shape),
            "approach": self.point.approach or "",
            "weights": "shared" if self.shared else "own",
            "runtime": target.runtime,
            "format": self.setting.form,
            **({} if target.device == "cpu" else {"device": target.device}),
            "threads": target.threads,
            "batch": target.batch,
            "tokens": self.setting.seq_len,
            "latency_ms": round(self.median * 1e3, 4),
            "fastest_trial_ms": round(min(self.medians) * 1e3, 4),
            "slowest_trial_ms": round(max(self.medians) * 1e3, 4),
            "p90_ms": round(self.p90 * 1e3, 4),
            "trials": len(self.seconds),
            "calls": sum(map(len, self.seconds)),
            "million_parameters": round(counts.parameters(shape, style, pooler=pooler) / 1e6, 3),
            "million_macs": round(counts.macs(shape, self.setting.seq_len, style, pooler=pooler) / 1e6, 3),
            **({} if self.memory is None else {"peak_memory_mb": round(self.memory / 1e6, 2)}),
            **self._qualities(),
        }

    def _qualities(self) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        for mode, fact in self.scores.items():
            name = f"{fact.detail['metric']}_{mode}"
            bounds = {name: fact.value, f"{name}_low": fact.low, f"{name}_high": fact.high}
            columns |= {key: value if value is None else round(value, 4) for key, value in bounds.items()}
        for fact in self.scores.values():  # last, and once
            columns |= {"judged_on": fact.split, "judged_texts": fact.n}
        return columns


def bench(
    plan: Bench,
    folder: Path,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    timer: Timer = time_trial,
    memory_of: Callable[[Trial], int] = peak_memory,
) -> list[Row]:
    """Time what ``folder`` does not hold yet, and write the samples and the table beside it.

    Args:
        plan: What to time.
        folder: Folder of the trials, the samples and the table.
        on_event: Called with a dictionary at every start and end.
        timer: Times a trial; returns the seconds of its calls.
        memory_of: Returns the most memory that a trial needs while it answers, in bytes.

    Returns:
        All rows, those measured earlier included.
    """
    plan.check()
    folder.mkdir(parents=True, exist_ok=True)
    jobs, samples = plan.jobs(), _read(folder / TRIALS, "seconds")
    todo = [job for job in jobs if job.key not in samples]
    for done, job in enumerate(todo):
        number_format = job.trial.setting.form
        on_event({"done": done, "total": len(todo), "label": job.point.label, "format": number_format})
        samples[job.key] = [float(f"{second:.6g}") for second in timer(job.trial)]
        entry = {"key": job.key, "label": job.point.label, "number": job.number, "trial": job.trial.to_json()}
        entry |= {"machine": environment()["processor"], "seconds": samples[job.key]}
        append_lines(folder / TRIALS, [json.dumps(entry)])
    memory = _memory(jobs, folder / MEMORY, memory_of, on_event) if plan.memory else {}
    rows = list(_rows(plan, jobs, samples, memory))
    _write_samples(rows, folder / SAMPLES)
    write_table(rows, folder / TABLE)
    return rows


def _memory(
    jobs: Sequence[Job], path: Path, memory_of: Callable[[Trial], int], on_event: Callable[[dict[str, Any]], None]
) -> dict[str, int]:
    """Measure the bytes that first trials need, by their keys; what the file holds already is read from it."""
    firsts = [job for job in jobs if job.number == 0]
    sizes: dict[str, int] = _read(path, "bytes")
    todo = [job for job in firsts if job.key not in sizes]
    for done, job in enumerate(todo):
        number_format = job.trial.setting.form
        on_event({"done": done, "total": len(todo), "label": f"memory of {job.point.label}", "format": number_format})
        sizes[job.key] = memory_of(job.trial)
        append_lines(path, [json.dumps({"key": job.key, "label": job.point.label, "bytes": sizes[job.key]})])
    return sizes


def _rows(plan: Bench, jobs: Sequence[Job], samples: dict[str, Any], memory: Mapping[str, int]) -> Iterator[Row]:
    for setting in plan.settings:
        for point in plan.points:
            trials = [job for job in jobs if job.point == point and job.trial.setting == setting]
            trials.sort(key=lambda job: job.number)
            seconds = tuple(np.array(samples[job.key]) for job in trials)
            yield Row(point, setting, plan.within is not None, seconds, memory=memory.get(trials[0].key))


def _read(path: Path, what: str) -> dict[str, Any]:
    """Read the seconds or bytes of trials from a file, by key."""
    entries = {}
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            entry = load_json(line)
            entries[entry["key"]] = entry[what]
        except (ValueError, KeyError, TypeError):
            raise LimbeckError(f"{path} is damaged in line {number}; remove that line or the file") from None
    return entries


def _write_samples(rows: Iterable[Row], path: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    columns: dict[str, list[Any]] = {}
    for row in rows:
        figures = row.to_json()
        for number, seconds in enumerate(row.seconds):
            for call, value in enumerate(seconds):
                identity = {name: figures[name] for name in IDENTITY}
                for name, entry in {**identity, "trial": number, "call": call, "seconds": float(value)}.items():
                    columns.setdefault(name, []).append(entry)
    parquet.write_table(arrow.table(columns), path)


def write_table(rows: Sequence[Row], path: Path) -> None:
    """One line a point and setting."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        lines = [row.to_json() for row in rows]
        table = csv.DictWriter(stream, list(dict.fromkeys(name for line in lines for name in line)))
        table.writeheader()
        table.writerows(lines)
