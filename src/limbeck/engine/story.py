"""What a run found, told as values: a row for every measured candidate, with a name that says how it was made.

Nothing is measured here and nothing is drawn: ``report.py`` prints these values, ``picture.py`` places them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from limbeck.core.candidate import Record
from limbeck.core.facts import Measurement
from limbeck.core.pareto import beyond, front, hypervolume
from limbeck.core.shape import Shape
from limbeck.core.statistics import paired_ratio
from limbeck.core.step import REGISTRY
from limbeck.core.target import Budget, Target

Verdict = Literal["faster", "slower", "no measurable gain", "unproven"]

WORDS = {
    "finetune": "fine-tuned",
    "general_distill": "distilled on text",
    "meta_pseudo_labels": "taught by pseudo labels",
    "distill": "distilled",
    "student": "shrunk",
    "prune": "pruned",
    "reconstruct": "reconstructed",
    "augment": "augmented",
    "general_supernet": "made elastic on text",
    "supernet": "made elastic",
    "search": "searched",
}
"""How a step reads in the name of what it made; a step that is missing here goes by its own name."""

CORRELATIONS = frozenset({"matthews", "pearson", "spearman", "pearson_spearman"})
"""Metrics that are written as 0.873; all others are shares and written as 87.3 %."""


@dataclass(frozen=True)
class Story:
    """All that a report tells of one run.

    ``recipe`` prints itself as YAML; each of ``failed`` is a ``Failure``, or a mapping with its fields: the ``step``,
    the ``key`` of the candidate it was given, the ``error`` in one line, and the ``traceback``.
    """

    records: Mapping[str, Record]
    measured: Sequence[str]
    chosen: Sequence[str] = ()
    teacher: str | None = None
    recipe: Any = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    failed: Sequence[Any] = ()
    replicas: Mapping[str, Sequence[str]] = field(default_factory=dict)
    task: Any = None  # a data.task.Task, or anything with its name, metric, label_names, max_length and notes
    target: Target = field(default_factory=Target)
    budget: Budget = field(default_factory=Budget)
    seeds: Sequence[int] = ()
    model: str = ""
    histories: Sequence[Mapping[str, Any]] = ()  # what was done to rows of the task, each once (data.task.Task.history)

    @property
    def metric(self) -> str:
        """The metric's name; the task's unless a fact says it."""
        for key in self.measured:
            fact = self.records[key].fact("quality")
            if fact is not None and fact.detail.get("metric"):
                return str(fact.detail["metric"])
        return str(getattr(self.task, "metric", "") or "quality")

    @property
    def candidates(self) -> list[str]:
        """The measured keys that get a row; replicas with other seeds are told apart from them."""
        replicas = {key for keys in self.replicas.values() for key in keys} - set(self.chosen)
        return [key for key in dict.fromkeys(self.measured) if key not in replicas]

    @property
    def split(self) -> str:
        """The split that candidates are compared on: the one that all of them have, validation first.

        Choices are made on validation; what they cost is then read on test, which had no part in them.
        """
        found = [{fact.split for fact in self.records[key].facts if fact.name == "quality"} for key in self.candidates]
        shared = set.intersection(*found) if found else set()
        for split in ("validation", "test", *sorted(shared)):
            if split in shared:
                return split
        return max(("validation", "test"), key=lambda split: sum(split in splits for splits in found))

    @property
    def failures(self) -> list[dict[str, str]]:
        """What failed, as plain mappings."""
        wanted = ("step", "key", "error", "traceback")
        plain = [failure if isinstance(failure, Mapping) else vars(failure) for failure in self.failed]
        return [{name: str(failure.get(name) or "") for name in wanted} for failure in plain]

    def source(self, key: str) -> str:
        """The model that ``key`` descends from, without the folders of somebody's disk."""
        root = self.lineage(key)[0].parameters
        name = str(root.get("source") or root.get("model") or self.model).rstrip("/")
        on_disk = Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
        return Path(name).name if on_disk else name

    def lineage(self, key: str) -> list[Record]:
        """The records from the root down to ``key``."""
        chain: list[Record] = []
        at: str | None = key
        while at is not None and at in self.records:
            chain.append(self.records[at])
            at = self.records[at].parent
        return chain[::-1]


class Ratio(NamedTuple):
    """How many times faster, with its 95 % interval when there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.2f}x" + (f" [{self.low:.2f}, {self.high:.2f}]" if self.low is not None else "")


@dataclass(frozen=True)
class Row:
    """One measured candidate, in the words and numbers of a table."""

    key: str
    name: str
    quality: Mapping[str, Measurement]  # by split
    p50: Measurement | None
    p90: Measurement | None
    p99: Measurement | None
    size: Measurement | None
    parameters: Measurement | None
    speedup: Ratio | None  # over the teacher in PyTorch
    speedup_int8: Ratio | None  # over the teacher in INT8
    drop: float | None  # points of the metric below the teacher, on the story's split
    on_front: bool
    problems: tuple[str, ...]
    chosen: bool
    teacher: bool
    predicted: Measurement | None = None  # the latency that a search foretold of it

    @property
    def as_predicted(self) -> bool | None:
        """Whether the measured median lies within the interval of the predicted one; None where one is missing."""
        if self.p50 is None or self.predicted is None or self.predicted.low is None or self.predicted.high is None:
            return None
        return self.predicted.low <= self.p50.value <= self.predicted.high

    @property
    def meets_budget(self) -> bool:
        """Whether the limits that can be checked are kept."""
        return not self.problems


def speed_ratio(fact: Measurement, reference: Measurement) -> Ratio:
    """How many times faster ``fact`` is than ``reference`` (both ``latency_p50``).

    Facts of one session were timed in turns: then the ratio is taken round by round, and what slowed the machine
    for a moment slowed both. Otherwise the interval is the widest that the two intervals allow.
    """
    mine, theirs = fact.detail.get("rounds"), reference.detail.get("rounds")
    session = fact.detail.get("session")
    together = session is not None and session == reference.detail.get("session")
    if together and mine and theirs and len(mine) == len(theirs):
        return _paired(tuple(theirs), tuple(mine))
    value = reference.value / fact.value
    if fact.low is None or fact.high is None or reference.low is None or reference.high is None:
        return Ratio(value)
    return Ratio(value, reference.low / fact.high, reference.high / fact.low)


@lru_cache(maxsize=4096)
def _paired(theirs: tuple[float, ...], mine: tuple[float, ...]) -> Ratio:
    """The bootstrap takes milliseconds and every page, table and sentence asks for the same pairs."""
    return Ratio(*(float(part) for part in paired_ratio(theirs, mine)))


def is_faster(fact: Measurement, reference: Measurement) -> tuple[Verdict, float, float | None, float | None]:
    """Judge a claim of speed: 'faster' or 'slower' only where the whole interval says so.

    >>> slow = Measurement("latency_p50", 0.008, "s", low=0.0079, high=0.0081)
    >>> fast = Measurement("latency_p50", 0.004, "s", low=0.0039, high=0.0041)
    >>> is_faster(fast, slow)[:2]
    ('faster', 2.0)
    >>> is_faster(slow, slow)[0]
    'no measurable gain'
    """
    ratio = speed_ratio(fact, reference)
    if ratio.low is None or ratio.high is None:
        return "unproven", *ratio
    if ratio.low > 1.0:
        return "faster", *ratio
    return ("slower" if ratio.high < 1.0 else "no measurable gain"), *ratio


def weights(shape: Shape) -> int:
    """Weights of the layers' matrices: what a cut makes smaller.

    >>> weights(Shape.uniform(layers=1, hidden=8, heads=2, ffn=32))
    768
    """
    return sum(4 * shape.hidden * shape.head_dim * layer.heads + 2 * shape.hidden * layer.ffn for layer in shape.layers)


def told(record: Record) -> dict[str, Any]:
    """The parameters of a step that somebody set: those that differ from the step's defaults."""
    if record.parent is None:
        return {}
    known = {f.name: f.default for f in fields(REGISTRY[record.step])} if record.step in REGISTRY else {}
    nothing: tuple[Any, ...] = (None, "", [], {})
    return {k: v for k, v in record.parameters.items() if v not in nothing and v != known.get(k)}


def words(record: Record, parent: Record | None) -> str:
    """What one step did, in a word or two: 'ONNX', 'INT8', 'pruned 2x', 'searched to 0.9 ms', 'pruned to 4 layers'."""
    gained = record.traits - (parent.traits if parent is not None else frozenset())
    if "int8" in gained:
        return "INT8"
    if "onnx" in gained:
        return "ONNX"
    verb = WORDS.get(record.step, record.step)
    before, after = parent.shape if parent is not None else None, record.shape
    if before is None or after is None or before == after:
        return verb
    if record.parameters.get("speedup"):
        return f"{verb} {float(record.parameters['speedup']):.1f}x"
    if record.parameters.get("latency_ms") and not record.parameters.get("layers"):
        return f"{verb} to {float(record.parameters['latency_ms']):.3g} ms"
    if after.depth < before.depth and set(after.layers) <= set(before.layers):
        return f"{verb} to {after.depth} layer{'s' if after.depth != 1 else ''}"
    return f"{verb} to {weights(after) / max(1, weights(before)):.0%}".replace("%", " %")


def names(story: Story) -> dict[str, str]:
    """A short name for every record, from how it was made; names of rows differ from each other."""
    made = {key: _name(story, key) for key in story.records}
    groups: dict[str, list[str]] = {}
    for key in story.candidates:
        groups.setdefault(made[key], []).append(key)
    for name, keys in groups.items():
        if len(keys) > 1:
            made |= {key: f"{name} · {suffix}" for key, suffix in _differences(story, keys).items()}
    return made


def _name(story: Story, key: str) -> str:
    chain = story.lineage(key)
    keys = [record.key for record in chain]
    start = keys.index(story.teacher) if story.teacher in keys else 0
    passed = {"elastic"} - chain[-1].traits  # a slice tells of the super-network that it was taken out of
    steps = [
        words(record, chain[i - 1])
        for i, record in enumerate(chain)
        if i > start and not passed & (record.traits - chain[i - 1].traits)
    ]
    if "INT8" in steps:  # an INT8 graph is an ONNX graph; once is enough
        steps = [step for step in steps if step != "ONNX"]
    is_torch = not chain[-1].traits & {"onnx", "int8"}
    if story.teacher in keys and set(steps) <= {"ONNX", "INT8"}:
        steps = ["teacher", *steps]
    elif not steps:
        steps = [story.source(key).rsplit("/", 1)[-1] or chain[-1].step]
    return " · ".join(steps) + (" (PyTorch)" if is_torch else "")


def _differences(story: Story, keys: Sequence[str]) -> dict[str, str]:
    """Words that tell candidates of one name apart: the parameters that differ, or else a number."""
    settings = {}
    for key in keys:
        chain = enumerate(story.lineage(key))
        settings[key] = {(i, r.step, name): _short(value) for i, r in chain for name, value in r.parameters.items()}
    known = list(dict.fromkeys(name for setting in settings.values() for name in setting))
    telling = [name for name in known if len({settings[key].get(name) for key in keys}) > 1]
    made = {
        key: ", ".join(f"{name[2]} {settings[key][name]}" for name in telling[:3] if name in settings[key])
        for key in keys
    }
    if len(set(made.values())) == len(keys) and all(made.values()):
        return made
    return {key: f"{made[key]} #{number}".strip() for number, key in enumerate(keys, start=1)}


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def int8_reference(story: Story) -> str | None:
    """The measured candidate that is the teacher itself in INT8: nothing but the number format was changed."""
    found = []
    for key in story.candidates:
        chain = story.lineage(key)
        keys = [record.key for record in chain]
        if story.teacher not in keys or "int8" not in chain[-1].traits:
            continue
        start = keys.index(story.teacher)
        path = list(zip(chain[start:], chain[start + 1 :], strict=False))
        formats = {"onnx", "int8"}
        if all((child.traits - parent.traits) & formats and child.shape == parent.shape for parent, child in path):
            found.append((len(path), key))
    return min(found)[1] if found else None


def rows(story: Story) -> list[Row]:
    """A row for every measured candidate, slowest first."""
    named, teacher = names(story), story.records.get(story.teacher or "")
    int8 = story.records.get(int8_reference(story) or "")
    reference = teacher.fact("quality", story.split) if teacher is not None else None
    winners = _front(story)
    made = []
    for key in story.candidates:
        record = story.records[key]
        quality = {fact.split: fact for fact in record.facts if fact.name == "quality"}
        mine = quality.get(story.split)
        values = {name: fact.value for name in ("latency_p50", "size") if (fact := record.fact(name)) is not None}
        values |= {"quality": mine.value} if mine is not None else {}
        drop = (reference.value - mine.value) * 100 if mine is not None and reference is not None else None
        made.append(
            Row(
                key=key,
                name=named[key],
                quality=quality,
                p50=record.fact("latency_p50"),
                p90=record.fact("latency_p90"),
                p99=record.fact("latency_p99"),
                size=record.fact("size"),
                parameters=record.fact("parameters"),
                speedup=_over(record, teacher),
                speedup_int8=_over(record, int8),
                drop=drop,
                on_front=key in winners,
                problems=tuple(story.budget.violations(values, reference.value if reference is not None else None)),
                chosen=key in story.chosen,
                teacher=key == story.teacher,
                predicted=predicted(story, key),
            )
        )
    return sorted(made, key=lambda row: -(row.p50.value if row.p50 is not None else float("inf")))


def predicted(story: Story, key: str) -> Measurement | None:
    """The latency that was foretold of a candidate's shape, in its number format and on the story's target.

    A search foretells it of a slice that is to be trained, exported and quantized: it holds for what comes of the
    slice as long as the shape stays, and for the descendant that has the format. Not for another machine's latency.
    """
    record = story.records[key]
    served = ("onnx" in record.traits) == (story.target.runtime != "torch")
    wanted = "int8" if "int8" in record.traits else "float"
    for ancestor in reversed(story.lineage(key)):
        if ancestor.shape != record.shape:
            return None
        fact = ancestor.fact("latency_predicted")
        if fact is not None:
            holds = served and fact.detail.get("number_format") == wanted and not fact.detail.get("elsewhere")
            return fact if holds else None
    return None


def _over(record: Record, reference: Record | None) -> Ratio | None:
    """Speed-up over a reference; over itself there is nothing to say."""
    mine = record.fact("latency_p50")
    if mine is None or reference is None or record.key == reference.key:
        return None
    theirs = reference.fact("latency_p50")
    return speed_ratio(mine, theirs) if theirs is not None else None


class Volume(NamedTuple):
    """What a front dominates (units of the metric x seconds), and the reference point from which that is counted."""

    value: float
    quality: float
    latency: float


def volume(story: Story) -> Volume | None:
    """The hypervolume of the measured front: quality against median latency; None with fewer than two candidates."""
    points = list(_points(story).values())
    if len(points) < 2:
        return None
    latency, quality = beyond(points, ("min", "max"))
    return Volume(hypervolume(points, (latency, quality), ("min", "max")), quality, latency)


def _points(story: Story) -> dict[str, tuple[float, float]]:
    """Latency and quality of every candidate that has both."""
    points = {}
    for key in story.candidates:
        latency, quality = story.records[key].fact("latency_p50"), story.records[key].fact("quality", story.split)
        if latency is not None and quality is not None:
            points[key] = (latency.value, quality.value)
    return points


def _front(story: Story) -> set[str]:
    """Keys that no other candidate beats in both latency and quality."""
    points = _points(story)
    kept = front(list(points.values()), ("min", "max")) if points else ()
    return {key for key, stays in zip(points, kept, strict=True) if stays}
