"""The model card of an artefact: front matter for the hub, measured figures, and how to run the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from limbeck.core.answer_changes import DRIFT, FLIPS
from limbeck.core.measurement import CASCADE, Measurement
from limbeck.core.speed_up import Ratio
from limbeck.model.layout import model_files
from limbeck.report.decisions import decision_figures
from limbeck.report.display_names import changed_parameters, reference_line, reference_words
from limbeck.report.early_exits import FITTED_IN, exits_of, share_words
from limbeck.report.entity_types import type_rows
from limbeck.report.formatting import milliseconds, quality, quality_interval, rate
from limbeck.report.html import page_environment
from limbeck.report.model_folder import onnx_file
from limbeck.report.prediction_flips import drift_words, percent
from limbeck.report.report import BESIDE, headline
from limbeck.report.serving_example import artefact_example, runtime_of
from limbeck.report.stored_vectors import stored_rows
from limbeck.report.summary import RunSummary
from limbeck.report.table import Row, rows
from limbeck.report.target_choices import target_choices
from limbeck.storage import yaml_text

TRANSFORMERS = "transformers"
OPENERS = {
    TRANSFORMERS: "transformers.{}.from_pretrained(folder, trust_remote_code=True)",
    "sentence-transformers": "sentence_transformers.SentenceTransformer(folder, trust_remote_code=True)",
}
"""Code that opens an artefact in torch, by the library that the hub shows it under."""


def card(summary: RunSummary, key: str, model_folder: Path) -> str:
    """Render the model card.

    Args:
        summary: The run, with its task.
        key: Key of the model.
        model_folder: Folder of the stored model.
    """
    from markupsafe import Markup

    table = rows(summary)
    row = next(row for row in table if row.key == key)
    reference = next((other for other in table if other.reference and other.key != key), None)
    exported = onnx_file(model_folder) is not None
    environment = page_environment().overlay(autoescape=False)
    environment.filters["cell"] = cell
    return environment.get_template("card.md.j2").render(
        front_matter=Markup(front_matter(summary, key, model_folder)),
        summary=summary,
        row=row,
        original=reference.name if reference is not None and reference_line(summary) else "the original in PyTorch",
        taught=taught_by(summary, key),
        headline=headline(summary) if key in summary.chosen[:1] else row.name,
        figures=figures(summary, row, reference),
        types={split: type_rows(row, reference, split) for split in row.quality},
        stored={split: stored_rows(row, split) for split in row.quality},
        targets=target_choices(summary, key),
        lineage=summary.lineage(key),
        changed_parameters=changed_parameters,
        example=artefact_example(summary, exported=exported, key=key).rstrip(),
        runtime=runtime_of(summary, exported=exported),
        library=_library(summary),
        opener=OPENERS[_library(summary)].format(summary.known_task.task_kind.auto_class),
        files=sorted(path.as_posix() for path in model_files(model_folder)),
    )


def taught_by(summary: RunSummary, key: str) -> str:
    """Name the teacher that the recipe gives to a model, with its quality; empty where the run has its own.

    Args:
        summary: The run.
        key: Key of the model.
    """
    teacher = summary.records.get(summary.teacher or "")
    if teacher is None or teacher.step != "teacher" or teacher.key == key:
        return ""
    facts = [fact for fact in teacher.facts if fact.name == "quality"]
    words = (
        f"{fact.split} {quality(fact.value, summary.metric)} {quality_interval(fact, summary.metric)}" for fact in facts
    )
    scores = f" ({summary.metric}: {', '.join(word.strip() for word in words)})" if facts else ""
    alone = ", which only gives answers" if teacher.shape is None else ""
    return f"Taught by {summary.source(teacher.key)}{alone}{scores}."


class Figure(NamedTuple):
    """One line of the card's table, formatted; '–' where there is nothing to show."""

    label: str
    value: str
    interval: str = "–"
    n: str = "–"
    original: str = "–"


def figures(summary: RunSummary, row: Row, reference: Row | None) -> list[Figure]:
    """Return the lines of the card's table.

    Args:
        summary: The run.
        row: The model's row.
        reference: The row of the model that figures are relative to, if that is another model.
    """
    lines = []
    for split in row.quality:
        lines += _quality_figures(summary, row, reference, split)
    for limit, probability in row.within.items() if reference is not None else ():
        if limit == "max_flips":
            bound = f"changes at most {summary.budget.max_flips:g} % of the answers"
        else:
            bound = f"loses at most {summary.budget.max_drop:g} points"
        lines.append(Figure(f"probability that it {bound}, {summary.split}", f"{probability:.2f}"))
    # without a reference the last column is empty
    before = reference or replace(row, p50=None, p90=None, p99=None, mean=None, size=None, parameters=None)
    means = [("mean", row.mean, before.mean)] if row.shows_mean else []
    latencies = (("p50", row.p50, before.p50), *means, ("p90", row.p90, before.p90), ("p99", row.p99, before.p99))
    for name, fact, other in latencies:
        if fact is not None:
            interval = f"[{milliseconds(fact.low)}, {milliseconds(fact.high)}]" if fact.low and fact.high else "–"
            original = f"{milliseconds(other.value)} ms" if other is not None else "–"
            lines.append(Figure(f"latency {name}", f"{milliseconds(fact.value)} ms", interval, _count(fact), original))
    if (texts := row.throughput) is not None:
        interval = f"[{rate(texts.low)}, {rate(texts.high)}]" if texts.low and texts.high else "–"
        original = f"{rate(before.throughput.value)}/s" if reference is not None and before.throughput else "–"
        label = f"texts per second, sorted by length ({texts.target})"
        lines.append(Figure(label, f"{rate(texts.value)}/s", interval, _count(texts), original))
    if (exits := exits_of(summary, row.key)) is not None:
        single = exits.name != CASCADE
        label = f"texts leave early, {exits.split}, in {FITTED_IN}" if single else f"texts answered, {exits.split}"
        lines.append(Figure(label, share_words(exits), n=_count(exits)))
    if row.p50 is not None and (gain := row.p50.detail.get("over_one_batch")):
        label = f"the same over one padded batch, by sorting and sub-batches of {row.p50.detail['sub_batch']}"
        lines.append(Figure(label, f"{gain:.2f}x"))
    for label, ratio in (
        (f"speed-up over {reference_words(summary)}", row.speedup),
        ("speed-up over its INT8", row.speedup_int8),
    ):
        if ratio is not None:
            lines.append(Figure(label, f"{ratio.value:.2f}x", _ratio_interval(ratio)))
    sizes = (("size", "MB", row.size, before.size), ("parameters", "M", row.parameters, before.parameters))
    for label, unit, fact, other in sizes:
        if fact is not None:
            original = f"{other.value / 1e6:.1f} {unit}" if other is not None else "–"
            lines.append(Figure(label, f"{fact.value / 1e6:.1f} {unit}", original=original))
    return lines


def _quality_figures(summary: RunSummary, row: Row, reference: Row | None, split: str) -> list[Figure]:
    fact, other = row.quality[split], reference.quality.get(split) if reference is not None else None
    original = quality(other.value, summary.metric) if other is not None else "–"
    interval = quality_interval(fact, summary.metric)
    value = quality(fact.value, summary.metric)
    lines = [Figure(f"{summary.metric}, {split}", value, interval, _count(fact), original)]
    constant = summary.baseline.quality.get(split) if summary.baseline is not None else None
    if summary.baseline is not None and constant is not None:
        lines.append(Figure(f"the same, {summary.baseline.answer}", quality(constant.value, summary.metric)))
    for name, label in BESIDE.items():
        error = record_fact(summary, row.key, name, split)
        other_error = record_fact(summary, reference.key if reference is not None else None, name, split)
        if error is not None:
            interval = f"[{error.low:.4g}, {error.high:.4g}]"
            original = "–" if other_error is None else f"{other_error.value:.4g}"
            lines.append(Figure(f"{label}, {split}", f"{error.value:.4g}", interval, _count(error), original))
    whole = summary.records[reference.key] if reference is not None else None
    decided = [Figure(*line) for line in decision_figures(summary.records[row.key], whole, split)]
    return lines + decided + _changed_figures(row, split)


def _changed_figures(row: Row, split: str) -> list[Figure]:
    """Return how answers differ from the reference's."""
    if row.reference:
        return []
    lines, flips, drift = [], row.changes.get((FLIPS, split)), row.changes.get((DRIFT, split))
    if flips is not None and flips.low is not None and flips.high is not None:
        value = f"{percent(flips.value)} ({flips.detail['lost']} now wrong, {flips.detail['won']} now right)"
        interval = f"[{percent(flips.low)}, {percent(flips.high)}]"
        lines.append(Figure(f"answers that changed, {split}", value, interval, _count(flips)))
    if drift is not None:
        lines.append(Figure(f"drift of the score, {split}", drift_words(drift), n=_count(drift)))
    return lines


def _count(fact: Measurement) -> str:
    return str(fact.n or "–")


def _ratio_interval(ratio: Ratio) -> str:
    return f"[{ratio.low:.2f}, {ratio.high:.2f}]" if ratio.low is not None and ratio.high is not None else "–"


def record_fact(summary: RunSummary, key: str | None, name: str, split: str) -> Measurement | None:
    """Return a measurement of a candidate.

    Args:
        summary: The run.
        key: Key of the candidate; None: there is no candidate.
        name: Name of the measurement.
        split: Split of the measurement.
    """
    record = summary.records.get(key or "")
    return record.fact(name, split) if record is not None else None


def cell(value: object) -> str:
    r"""Escape text so that it stays in one cell of a Markdown table and is not read as HTML.

    >>> cell("a|b <i>\nc")
    'a\\|b &lt;i&gt; c'
    """
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("|", "\\|").replace("`", "'")


def _library(summary: RunSummary) -> str:
    return "sentence-transformers" if summary.known_task.task_kind.vectors else TRANSFORMERS


def front_matter(summary: RunSummary, key: str, model_folder: Path) -> str:
    """Return the card's YAML front matter, as the hub reads it.

    Args:
        summary: The run, with its task.
        key: Key of the model.
        model_folder: Folder of the stored model.
    """
    record = summary.records[key]
    pipeline = summary.known_task.task_kind.pipeline
    file = onnx_file(model_folder)
    library = _library(summary)
    tags = ["limbeck", pipeline, *([library] if library != TRANSFORMERS else [])]
    tags += [*(["onnx"] if file else []), *(["int8"] if "int8" in record.traits else [])]
    fields: dict[str, object] = {
        "library_name": library,
        "tags": tags,
        "pipeline_tag": pipeline,
        "metrics": [summary.metric],
    }
    base, root = summary.source(key), summary.lineage(key)[0].parameters
    if base and base == (root.get("source") or root.get("model") or summary.model) and not Path(base).exists():
        fields["base_model"] = base  # a name on the hub; a local path would mean nothing to others
    return yaml_text.dump(fields).strip()
