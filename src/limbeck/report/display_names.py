"""Names of candidates that say how they were made: 'pruned 2.0x · distilled · INT8'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from limbeck.core.candidate import Record
from limbeck.core.step import fields_of, registered
from limbeck.report.summary import RunSummary


def told(record: Record) -> dict[str, Any]:
    """The parameters of a step that somebody set: those that differ from the step's defaults."""
    if record.parent is None:
        return {}
    cls = registered(record.step)
    known = {f.name: f.default for f in fields_of(cls)} if cls is not None else {}
    nothing: tuple[Any, ...] = (None, "", [], {})
    return {k: v for k, v in record.parameters.items() if v not in nothing and v != known.get(k)}


def words(record: Record, parent: Record | None) -> str:
    """What one step did, in a word or two.

    As in 'ONNX', 'INT8', 'static INT8', 'pruned 2x', 'searched to 0.9 ms', 'pruned to 4 layers', 'linearised to
    linformer:256'.
    """
    gained = record.traits - (parent.traits if parent is not None else frozenset())
    if "int8" in gained:
        return "static INT8" if record.parameters.get("mode") == "static" else "INT8"
    if "onnx" in gained:
        return "ONNX"
    cls = registered(record.step)
    verb = (cls.info.label if cls is not None else "") or record.step
    before, after = parent.shape if parent is not None else None, record.shape
    if before is None or after is None or before == after:
        return verb
    if after.depth == before.depth and after.attention != before.attention:
        return f"{verb} to {', '.join(dict.fromkeys(row.attention for row in after.layers))}"
    if record.parameters.get("speedup"):
        return f"{verb} {float(record.parameters['speedup']):.1f}x"
    if record.parameters.get("latency_ms") and not record.parameters.get("layers"):
        return f"{verb} to {float(record.parameters['latency_ms']):.3g} ms"
    if after.depth < before.depth and set(after.layers) <= set(before.layers):
        return f"{verb} to {after.depth} layer{'s' if after.depth != 1 else ''}"
    return f"{verb} to {after.weights / max(1, before.weights):.0%}".replace("%", " %")


def names(summary: RunSummary) -> dict[str, str]:
    """A short name for every record, from how it was made; names of rows differ from each other."""
    made = {key: _name(summary, key) for key in summary.records}
    groups: dict[str, list[str]] = {}
    for key in summary.candidates:
        groups.setdefault(made[key], []).append(key)
    for name, keys in groups.items():
        if len(keys) > 1:
            made |= {key: f"{name} · {suffix}" for key, suffix in _differences(summary, keys).items()}
    return made


def _name(summary: RunSummary, key: str) -> str:
    chain = summary.lineage(key)
    keys = [record.key for record in chain]
    start = keys.index(summary.teacher) if summary.teacher in keys else 0
    passed = {"elastic"} - chain[-1].traits  # a slice tells of the super-network that it was taken out of
    stages = [i for i, record in enumerate(chain) if i > start and record.parameters.get("relative_to") == "teacher"]
    told_by_last = range(stages[0], stages[-1]) if stages else ()
    suffix = {stages[-1]: f" in {len(stages)} stages"} if told_by_last else {}
    steps = [
        words(record, chain[i - 1]) + suffix.get(i, "")
        for i, record in enumerate(chain)
        if i > start and i not in told_by_last and not passed & (record.traits - chain[i - 1].traits)
    ]
    if any(step.endswith("INT8") for step in steps):  # an INT8 graph is an ONNX graph; once is enough
        steps = [step for step in steps if step != "ONNX"]
    is_torch = not chain[-1].traits & {"onnx", "int8"}
    if summary.teacher in keys and set(steps) <= {"ONNX", "INT8", "static INT8"}:
        steps = ["teacher", *steps]
    elif not steps:
        steps = [summary.source(key).rsplit("/", 1)[-1] or chain[-1].step]
    return " · ".join(steps) + (" (PyTorch)" if is_torch else "")


def _differences(summary: RunSummary, keys: Sequence[str]) -> dict[str, str]:
    """Words that tell candidates of one name apart: the parameters that differ, or else a number."""
    settings = {}
    for key in keys:
        chain = enumerate(summary.lineage(key))
        settings[key] = {(i, r.step, name): _short(value) for i, r in chain for name, value in r.parameters.items()}
    known = list(dict.fromkeys(name for setting in settings.values() for name in setting))
    telling = [name for name in known if len({settings[key].get(name) for key in keys}) > 1]
    made: dict[str, str] = {}
    for count in range(1, 4):  # no more than it takes
        made = {
            key: ", ".join(f"{name[2]} {settings[key][name]}" for name in telling[:count] if name in settings[key])
            for key in keys
        }
        if len(set(made.values())) == len(keys) and all(made.values()):
            return made
    return {key: f"{made[key]} #{number}".strip() for number, key in enumerate(keys, start=1)}


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
