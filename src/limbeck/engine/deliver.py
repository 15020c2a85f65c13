"""What a finished run hands over: the report, the tables, and the chosen model as a folder that runs anywhere."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from limbeck.core.facts import environment
from limbeck.engine.artefact import artefact_example, check_out, write_artefact
from limbeck.engine.report import front_csv, report_html, rows
from limbeck.engine.result import RunResult
from limbeck.engine.story import Story


def story_of(result: RunResult, task: Any) -> Story:
    """The run as the report tells it."""
    replicas = [result.recipe.seed + number for number in range(max(1, result.recipe.replicas))]
    return Story(
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
    )


def check_place(out: Path | None) -> None:
    """Refuse a folder for the artefact before hours of work, not after."""
    if out is not None:
        check_out(out)


def deliver(result: RunResult, task: Any, out: Path | None = None) -> dict[str, Path]:
    """Write ``report.html`` and ``front.csv`` into the run's folder and the first chosen model to ``out``.

    ``out`` is ``<run folder>/artefact`` unless given. Returns the paths written, by name.
    """
    story = story_of(result, task)
    written: dict[str, Path] = {}
    example = ""
    if result.chosen:
        key = result.chosen[0]
        candidate = result.open(key)
        assert candidate.folder is not None
        written["artefact"] = write_artefact(story, key, candidate.folder, out or result.folder / "artefact")
        example = artefact_example(story, candidate.folder)
    written["report"] = _write(result.folder / "report.html", report_html(story, example=example))
    written["front"] = _write(result.folder / "front.csv", front_csv(story))
    if "artefact" in written:
        written["artefact_report"] = _write(written["artefact"] / "report.html", report_html(story, example=example))
    return written


def unmet(result: RunResult, task: Any) -> list[str]:
    """What the chosen candidate breaks of the budget, in words; empty when it meets it or there is no budget."""
    story = story_of(result, task)
    return [problem for row in rows(story) if row.chosen for problem in row.problems]


def _write(path: Path, text: str) -> Path:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return path
