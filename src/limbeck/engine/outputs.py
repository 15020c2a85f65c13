"""What a finished run hands over: the report, the tables, and the chosen model as a folder that runs anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from limbeck.core.measurement import environment
from limbeck.core.task import Task
from limbeck.data.baseline import baseline
from limbeck.engine.result import RunResult
from limbeck.errors import LimbeckError, StoreError
from limbeck.recipe.parsing import leaves
from limbeck.recipe.recipe import placed_steps
from limbeck.report.artefact import check_out, write_artefact
from limbeck.report.evaluated_shapes import shapes_csv
from limbeck.report.html import report_html
from limbeck.report.report import front_csv
from limbeck.report.serving_example import artefact_example
from limbeck.report.summary import RunSummary
from limbeck.report.table import rows
from limbeck.storage.destination import check_destination, writing

ARTEFACT = "artefact"
"""Where in a run's folder the chosen model is written."""

SHAPES = "shapes.csv"
"""Every shape that the searches of a run evaluated."""


def summary_of(result: RunResult, task: Task | None) -> RunSummary:
    """Return the summary of a run that reports are written from."""
    replicas = [result.recipe.seed + number for number in range(max(1, result.recipe.replicas))]
    return RunSummary(
        records=result.records,
        measured=result.measured,
        chosen=result.chosen,
        teacher=result.teacher,
        recipe=result.recipe,
        environment=result.environment or environment(),
        failed=[asdict(failure) | {"parent": failure.key} for failure in result.failed],
        replicas=result.replicas,
        task=task,
        target=result.recipe.target,
        budget=result.recipe.budget,
        seeds=replicas,
        model=result.recipe.model,
        baseline=baseline(task) if isinstance(task, Task) else None,
        histories=histories(result),
        chooses=any(located.step.info.final for located in leaves(placed_steps(result.recipe))),
    )


def histories(result: RunResult) -> list[dict[str, Any]]:
    """Return what changed the task's rows on the way to any candidate: each entry once, as far as the store has it."""
    entries = [entry for key in result.records for entry in result.store.task_history(key)]
    return list({json.dumps(entry, sort_keys=True): entry for entry in entries}.values())


def check_destinations(out: Path | None, folder: Path | None = None) -> None:
    """Refuse folders for the artefact and for the run (which holds it without ``out``) before hours of work."""
    if folder is not None:
        check_destination(folder, "--folder", within=True)
        out = out or folder / ARTEFACT
    if out is not None:
        check_out(out)


def deliver(result: RunResult, task: Task | None, out: Path | None = None) -> dict[str, Path]:
    """Write the report, and the first chosen model with a copy of the report to ``out``.

    ``out`` is ``<run folder>/artefact`` unless given. Returns the paths written, by name.

    Args:
        result: The run.
        task: The task.
        out: Folder of the artefact; ``<run folder>/artefact`` unless given.
    """
    out = out or result.folder / ARTEFACT
    with nothing_lost(result, *result.chosen[:1]):
        written = write_report(result, task)
        if result.chosen:
            key = result.chosen[0]
            if not result.store.has(key):
                result.open(key)  # says what to do
            artefact = write_artefact(summary_of(result, task), key, result.store.objects / key, out)
            with writing(artefact):
                _write(artefact / "report.html", written["report"].read_text(encoding="utf-8"))
            written = {"artefact": artefact, **written}
    return written


@contextmanager
def nothing_lost(result: RunResult, *keys: str) -> Iterator[None]:
    """Add to an error of writing what is kept nonetheless, and how to have it written elsewhere."""
    try:
        yield
    except StoreError:
        raise
    except LimbeckError as error:
        ways = "free some space and run the same command again, which repeats no finished work"
        for key in keys:
            ways += f", or write it elsewhere: limbeck save {result.folder} {key} --to DIR"
        raise LimbeckError(f"{error}. The finished models are kept in the store {result.store.root}: {ways}") from error


def write_report(result: RunResult, task: Task | None) -> dict[str, Path]:
    """Write ``report.html``, ``front.csv`` and, after a search, ``shapes.csv`` into the run's folder.

    Needs no model, so the store may be gone.
    """
    summary = summary_of(result, task)
    chosen = result.store.objects / result.chosen[0] if result.chosen else None
    example = artefact_example(summary, chosen) if chosen is not None and chosen.is_dir() else ""
    with writing(result.folder, "--folder"):
        report = _write(result.folder / "report.html", report_html(summary, example=example))
        written = {"report": report, "front": _write(result.folder / "front.csv", front_csv(summary))}
        if shapes := shapes_csv(result.records.values()):
            written["shapes"] = _write(result.folder / SHAPES, shapes)
        return written


def budget_violations(result: RunResult, task: Task | None) -> list[str]:
    """Return the limits of the budget that the chosen candidate exceeds, in words; empty if it meets the budget."""
    summary = summary_of(result, task)
    return [problem for row in rows(summary) if row.chosen for problem in row.problems]


def _write(path: Path, text: str) -> Path:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path
