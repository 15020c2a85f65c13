"""Display names of candidates, made of their steps: 'pruned 2.0x · distilled · INT8'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.core.candidate import Record
from limbeck.core.field_groups import fields_of
from limbeck.core.measurement import CASCADE
from limbeck.core.step import registered
from limbeck.report.summary import RunSummary, once


def changed_parameters(record: Record) -> dict[str, Any]:
    """Return the parameters of a step that differ from its defaults."""
    if record.parent is None:
        return {}
    cls = registered(record.step)
    defaults = {f.name: f.default for f in fields_of(cls)} if cls is not None else {}
    empty: tuple[Any, ...] = (None, "", [], {})
    return {k: v for k, v in record.parameters.items() if v not in empty and v != defaults.get(k)}


def step_label(record: Record, parent: Record | None) -> str:
    """Describe what one step did in a few words.

    Examples: 'ONNX', 'INT8', 'static INT8', 'pruned 2x', 'searched to 0.9 ms', 'pruned to 4 layers', 'linearised to
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
    if after.depth == before.depth and after.tokens != before.tokens:
        read = [share for share, _ in after.token_shares]
        return f"{verb} to {sum(read) / len(read):.0%}".replace("%", " %")
    if after.depth == before.depth and after.attention != before.attention:
        return f"{verb} to {', '.join(dict.fromkeys(row.attention for row in after.layers))}"
    if record.parameters.get("speedup"):
        return f"{verb} {float(record.parameters['speedup']):.1f}x"
    if record.parameters.get("latency_ms") and not record.parameters.get("layers"):
        return f"{verb} to {float(record.parameters['latency_ms']):.3g} ms"
    if after.hidden < before.hidden and (after.head_dim, after.layers) == (before.head_dim, before.layers):
        return f"{verb} to {after.hidden} channels"
    if after.depth < before.depth and set(after.layers) <= set(before.layers):
        return f"{verb} to {after.depth} layer{'s' if after.depth != 1 else ''}"
    return f"{verb} to {after.weights / max(1, before.weights):.0%}".replace("%", " %")


@once
def names(summary: RunSummary) -> Mapping[str, str]:
    """Return a short name for every record, made of its steps; names of the table's rows are unique.

    A cascade has the names of both its models: 'pruned 4.0x · INT8 → teacher · INT8'.
    """
    cascades = {key: record for key, record in summary.records.items() if record.fact(CASCADE) is not None}
    single = _distinct(summary, {key: _name(summary, key) for key in summary.records if key not in cascades})
    sides = {key: (record.parameters.get("partner", ""), record.parent or "") for key, record in cascades.items()}
    double = {key: " → ".join(single.get(side, side) for side in both) for key, both in sides.items()}
    return single | _distinct(summary, double)


def _distinct(summary: RunSummary, names: Mapping[str, str]) -> dict[str, str]:
    """Return names, with what differs after those that several rows of the table would share."""
    groups: dict[str, list[str]] = {}
    for key in summary.candidates:
        if key in names:
            groups.setdefault(names[key], []).append(key)
    distinct = dict(names)
    for name, keys in groups.items():
        if len(keys) > 1:
            distinct |= {key: f"{name} · {suffix}" for key, suffix in _differences(summary, keys).items()}
    return distinct


def reference_words(summary: RunSummary) -> str:
    """Say what speed-ups are over: 'PyTorch' for a model of the run itself, else its teacher by name."""
    record = summary.records.get(summary.reference or "")
    if record is None or record.step != "teacher":
        return "PyTorch"
    return f"its {names(summary)[record.key].removesuffix(' (PyTorch)')} in PyTorch"


def reference_line(summary: RunSummary) -> str:
    """Say what figures are relative to where that is not the model which the run fine-tuned and imitates; else ''."""
    record = summary.records.get(summary.reference or "")
    if record is None or (record.key == summary.teacher and record.step != "teacher"):
        return ""
    line = f"Speed-ups and losses are over {names(summary)[record.key]}"
    return line if record.key == summary.teacher else f"{line}: the teacher only gives answers"


def _name(summary: RunSummary, key: str) -> str:
    chain = summary.lineage(key)
    keys = [record.key for record in chain]
    start = keys.index(summary.reference) if summary.reference in keys else 0
    lost = {"elastic"} - chain[-1].traits  # the step that made a super-network is implied by the slice taken from it
    stages = [i for i, record in enumerate(chain) if i > start and record.parameters.get("relative_to") == "teacher"]
    earlier_stages = range(stages[0], stages[-1]) if stages else ()
    suffix = {stages[-1]: f" in {len(stages)} stages"} if earlier_stages else {}
    steps = [
        step_label(record, chain[i - 1]) + suffix.get(i, "")
        for i, record in enumerate(chain)
        if i > start and i not in earlier_stages and not lost & (record.traits - chain[i - 1].traits)
    ]
    if any(step.endswith("INT8") for step in steps):  # an INT8 graph is an ONNX graph, too
        steps = [step for step in steps if step != "ONNX"]
    is_torch = "torch" in chain[-1].traits or not chain[-1].traits - {"elastic", "exits"}
    if chain[-1].step == "teacher":  # a model, or a file of scores, that the recipe names
        steps = [f"teacher {summary.source(key).rsplit('/', 1)[-1]}".strip()]
    elif summary.reference in keys and set(steps) <= {"ONNX", "INT8", "static INT8"}:
        whole = "teacher" if summary.reference == summary.teacher else _whole(summary, chain[: start + 1])
        steps = [whole, *steps]
    elif not steps:
        steps = [summary.source(key).rsplit("/", 1)[-1] or chain[-1].step]
    return " · ".join(steps) + (" (PyTorch)" if is_torch else "")


def _whole(summary: RunSummary, chain: Sequence[Record]) -> str:
    """Name the model that figures are relative to: by its last step, or as it came in."""
    if len(chain) > 1:
        return step_label(chain[-1], chain[-2])
    return summary.source(chain[0].key).rsplit("/", 1)[-1] or chain[0].step


def _differences(summary: RunSummary, keys: Sequence[str]) -> dict[str, str]:
    """Return suffixes for candidates of one name: the parameters that differ, or else a number."""
    settings = {}
    for key in keys:
        chain = enumerate(summary.lineage(key))
        settings[key] = {(i, r.step, name): _short(value) for i, r in chain for name, value in r.parameters.items()}
    parameters = list(dict.fromkeys(name for setting in settings.values() for name in setting))
    differing = [name for name in parameters if len({settings[key].get(name) for key in keys}) > 1]
    suffixes: dict[str, str] = {}
    for count in range(1, 4):  # as few as needed
        suffixes = {
            key: ", ".join(f"{name[2]} {settings[key][name]}" for name in differing[:count] if name in settings[key])
            for key in keys
        }
        if len(set(suffixes.values())) == len(keys) and all(suffixes.values()):
            return suffixes
    return {key: f"{suffixes[key]} #{number}".strip() for number, key in enumerate(keys, start=1)}


def _short(value: object) -> str:
    if value is None:
        return "not given"
    return f"{value:g}" if isinstance(value, float) else str(value)
