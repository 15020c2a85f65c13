"""Measured latencies of many shapes on one or more targets, kept in one portable file.

The file is JSON Lines. The first line identifies it; each of the others is a complete entry: a machine, a space, a
latency table, or a *group*: the shapes that one fresh process timed alternately, among them an anchor that every group
times again. Lines are only appended, so an interrupted measurement resumes where it stopped, and several targets,
number formats and machines share a file. The figures are raw; drift between groups is corrected when the file is read.

    seconds of a shape = median over its groups of (undisturbed seconds / drift of the group)

where the drift is the ratio of a group's anchor to the median anchor, and 1 where that ratio lies within its noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.core.finite import load_json
from limbeck.core.measurement import machine as this_machine
from limbeck.core.search_space import Space
from limbeck.core.shape import Shape, canonical_json
from limbeck.cost_models.latency_table import LatencyTable
from limbeck.cost_models.table_measurement import undisturbed_seconds
from limbeck.errors import InputError, shown
from limbeck.measure.dummy_model import Setting
from limbeck.storage.atomic import replacing
from limbeck.storage.jsonl import append_lines, whole_lines

FORMAT, VERSION = "limbeck latency data", 1
TURNS = ("first", "repeat", "check", "recheck")
"""Passes over the shapes: all of them; a sample again, for the noise; outliers; outliers that still differ."""


@dataclass(frozen=True)
class TimedShape:
    """One shape as one group timed it: undisturbed seconds of ``latency_table``, and every round's median.

    ``spread`` is the distance between the quartiles of the best calls of the rounds, as a share of ``seconds``.
    """

    shape: Shape
    seconds: float
    spread: float
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, shape: Shape, seconds: np.ndarray) -> TimedShape:
        """Summarize the seconds of every call [round, call]."""
        value = float(undisturbed_seconds(seconds[None])[0])
        low, high = np.quantile(seconds.min(axis=1), [0.25, 0.75])
        rounds = tuple(_short(middle) for middle in np.median(seconds, axis=1))
        return cls(shape, _short(value), _short((high - low) / value), rounds)

    @property
    def error(self) -> float:
        """Standard error of ``seconds``, as a share of it: that of a lower quartile of so many rounds."""
        return self.spread / math.sqrt(len(self.rounds))

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        numbers = {"seconds": self.seconds, "spread": self.spread, "rounds": list(self.rounds)}
        return {"shape": self.shape.to_json(), **numbers}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TimedShape:
        """Inverse of :meth:`to_json`."""
        numbers = (float(data["seconds"]), float(data["spread"]), tuple(map(float, data["rounds"])))
        if not (0 < numbers[0] < math.inf and 0 <= numbers[1] < math.inf and all(map(math.isfinite, numbers[2]))):
            raise ValueError(f"not a duration: {numbers[0]}")
        return cls(Shape.from_json(data["shape"]), *numbers)


@dataclass(frozen=True)
class Group:
    """Shapes that one process timed in turn, so that a disturbance affected all of them alike."""

    machine: str
    setting: Setting
    turn: str
    anchor: TimedShape
    shapes: tuple[TimedShape, ...]
    at: float = field(default=0.0, compare=False)
    """When it ended, in seconds since 1970."""

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        origin = {"machine": self.machine, "setting": self.setting.to_json(), "turn": self.turn, "at": self.at}
        return origin | {"anchor": self.anchor.to_json(), "shapes": [each.to_json() for each in self.shapes]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Group:
        """Inverse of :meth:`to_json`."""
        if data["turn"] not in TURNS:
            raise ValueError(f"turn {shown(data['turn'])}")
        shapes = tuple(map(TimedShape.from_json, data["shapes"]))
        setting, anchor = Setting.from_json(data["setting"]), TimedShape.from_json(data["anchor"])
        return cls(str(data["machine"]), setting, data["turn"], anchor, shapes, float(data["at"]))


@dataclass(frozen=True)
class Series:
    """All groups of one setting on one machine."""

    machine: str
    setting: Setting
    groups: tuple[Group, ...]

    def before(self, turn: str) -> Series:
        """Return the groups of earlier passes: the choices of a pass must not depend on its own progress."""
        earlier = TURNS[: TURNS.index(turn)]
        return Series(self.machine, self.setting, tuple(group for group in self.groups if group.turn in earlier))

    @cached_property
    def anchors(self) -> dict[Shape, float]:
        """Median seconds of each anchor; there is one, unless files were joined."""
        times: dict[Shape, list[float]] = {}
        for group in self.groups:
            times.setdefault(group.anchor.shape, []).append(group.anchor.seconds)
        return {shape: float(np.median(seconds)) for shape, seconds in times.items()}

    @cached_property
    def drift(self) -> np.ndarray:
        """How much slower than usual each group ran, by its anchor [groups]."""
        return np.array([group.anchor.seconds / self.anchors[group.anchor.shape] for group in self.groups])

    @cached_property
    def factors(self) -> np.ndarray:
        """What each group's seconds are divided by [groups]: its drift where that exceeds two standard errors."""
        errors = np.array([group.anchor.error for group in self.groups])
        usual = float(np.median(errors)) if len(errors) else 0.0
        return np.where(np.abs(self.drift - 1) > 2 * np.hypot(errors, usual), self.drift, 1.0)

    @cached_property
    def measures(self) -> dict[Shape, dict[str, float]]:
        """Corrected seconds of every shape, by turn; the anchor's are the median over all groups."""
        measures: dict[Shape, dict[str, float]] = {}
        for group, factor in zip(self.groups, self.factors, strict=True):
            for timed in group.shapes:
                measures.setdefault(timed.shape, {})[group.turn] = timed.seconds / float(factor)
        for shape, seconds in self.anchors.items():
            measures.setdefault(shape, {}).setdefault("first", seconds)
        return measures

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Every shape that was measured, in the order of the file."""
        return tuple(self.measures)

    @cached_property
    def seconds(self) -> np.ndarray:
        """One figure for each of :attr:`shapes`: the median of its measures."""
        return np.array([np.median(list(turns.values())) for turns in self.measures.values()])

    @property
    def noise(self) -> float:
        """Distance between the quartiles of the rounds within a process, as a share: the median over shapes."""
        spreads = [timed.spread for group in self.groups for timed in group.shapes]
        return float(np.median(spreads)) if spreads else 0.0

    @cached_property
    def repetition(self) -> np.ndarray:
        """Relative differences between two processes on the same shape, for shapes that were repeated at random."""
        pairs = [
            (turns["first"], turns["repeat"]) for turns in self.measures.values() if {"first", "repeat"} <= {*turns}
        ]
        return np.array([abs(first / repeat - 1) for first, repeat in pairs])


@dataclass(frozen=True)
class Dataset:
    """Everything in a file.

    Attributes:
        machines: Description of each machine, by its digest (``core.measurement.machine``).
        groups: What was timed.
        tables: (machine, setting, latency table).
        spaces: Spaces that shapes were drawn from.
    """

    machines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    tables: tuple[tuple[str, Setting, LatencyTable], ...] = ()
    spaces: tuple[Space, ...] = ()

    def all_series(self) -> list[Series]:
        """Return one series for each setting and machine, in the order of the file."""
        series: dict[str, list[Group]] = {}
        for group in self.groups:
            series.setdefault(canonical_json([group.machine, group.setting.to_json()]), []).append(group)
        return [Series(groups[0].machine, groups[0].setting, tuple(groups)) for groups in series.values()]

    def of(self, setting: Setting, machine: str) -> Series:
        """Return the series of a setting on a machine; empty when nothing was timed there."""
        groups = [group for group in self.groups if (group.machine, group.setting) == (machine, setting)]
        return Series(machine, setting, tuple(groups))

    def series(self, **criteria: object) -> Series:
        """Select the only series that fits ``criteria``; of several machines this one, unless one is named.

        Args:
            **criteria: ``number_format``, ``seq_len``, ``per_token``, ``machine`` or a field of the target, by name.

        Raises:
            InputError: No series fits, or several do.
        """
        every = self.all_series()
        fits = [series for series in every if all(_fields(series)[name] == value for name, value in criteria.items())]
        if len(fits) > 1 and "machine" not in criteria:
            fits = [series for series in fits if series.machine == this_machine()] or fits
        if len(fits) != 1:
            wanted = ", ".join(f"{name} {value}" for name, value in criteria.items()) or "anything"
            available = "; ".join(map(_describe, every)) or "nothing"
            problem = "several series fit" if fits else "no series fits"
            raise InputError(f"{problem} {wanted}; the latency data hold: {available}")
        return fits[0]

    def table(self, series: Series) -> LatencyTable | None:
        """Return the latency table measured in the same setting on the same machine."""
        origin = (series.machine, series.setting)
        fits = [table for machine, setting, table in self.tables if (machine, setting) == origin]
        return fits[-1] if fits else None


def _fields(series: Series) -> dict[str, object]:
    setting = series.setting
    own = {"number_format": setting.number_format, "seq_len": setting.seq_len, "per_token": setting.per_token}
    return {"machine": series.machine, **asdict(setting.target), **own}


def _describe(series: Series) -> str:
    setting = series.setting
    runtime = f"{setting.target.runtime} {setting.form}, {setting.target.threads} threads"
    return f"{runtime}, batch {setting.target.batch}, {setting.seq_len} tokens on machine {series.machine}"


def _short(value: float) -> float:
    return float(f"{value:.6g}")


# --- the file -------------------------------------------------------------------------------------------------------


def read(path: str | Path) -> Dataset:
    """Read a whole file; a last line that was cut off by an interruption does not count.

    Args:
        path: File of latency data.

    Raises:
        InputError: There is no such file, it is another kind of file, or a line is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of latency data")
    lines = _text(path)
    _check_header(path, lines)
    machines: dict[str, Any] = {}
    groups, tables, spaces = [], [], []
    for number, line in enumerate(lines[1:], start=2):
        try:
            data = load_json(line)
            kind = data["kind"]
            if kind == "machine":
                machines[data["machine"]] = {**machines.get(data["machine"], {}), **data["about"]}
            elif kind == "group":
                groups.append(Group.from_json(data))
            elif kind == "table":
                table = LatencyTable.from_json(data["table"])
                tables.append((str(data["machine"]), Setting.from_json(data["setting"]), table))
            elif kind == "space":
                spaces.append(Space.from_json(data["space"]))
            else:
                raise ValueError(f"kind {shown(kind)}")
        except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            cause = f"{type(error).__name__}: {error}"
            raise InputError(f"{path} is damaged in line {number} ({cause}); remove that line") from None
    return Dataset(machines, tuple(groups), tuple(tables), tuple(spaces))


def write(data: Dataset, path: str | Path) -> None:
    """Write a file, completely or not at all."""
    with replacing(Path(path)) as draft:
        draft.write_text("".join(f"{line}\n" for line in _lines(data)), encoding="utf-8")


def append(data: Dataset, path: str | Path) -> None:
    """Append ``data`` to a file, which is created if there is none; it is on disk when this returns."""
    path = Path(path)
    lines = list(_lines(data))
    if path.is_file() and path.stat().st_size:
        _check_header(path, _text(path))
        lines = lines[1:]
    append_lines(path, lines)


def _lines(data: Dataset) -> Iterator[str]:
    def line(kind: str, **content: object) -> str:
        return canonical_json({"kind": kind, **content})

    yield canonical_json({"format": FORMAT, "version": VERSION})
    for digest, description in data.machines.items():
        yield line("machine", machine=digest, about=dict(description))
    for space in data.spaces:
        yield line("space", space=space.to_json())
    for digest, setting, table in data.tables:
        yield line("table", machine=digest, setting=setting.to_json(), table=table.to_json())
    for group in data.groups:
        yield line("group", **group.to_json())


def _text(path: Path) -> list[str]:
    """Read the complete lines."""
    try:
        return whole_lines(path)
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a file of latency data: it is not text") from None


def _check_header(path: Path, lines: Iterable[str]) -> None:
    first = next(iter(lines), "")
    try:
        header = load_json(first)
        kind, version = header["format"], header["version"]
    except (ValueError, KeyError, TypeError):
        kind, version = None, None
    if kind != FORMAT:
        raise InputError(f'{path} is not a file of latency data: it should begin with {{"format": "{FORMAT}"}}')
    if version != VERSION:
        raise InputError(f"{path} has version {version} of the format, this limbeck reads {VERSION}; update limbeck")
