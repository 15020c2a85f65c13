"""Write the outputs of a finished run: the report, the tables, and the chosen model as a folder that runs anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from limbeck.engine.result import RunResult
from limbeck.errors import InputError, LimbeckError, StoreError
from limbeck.report.artefact import DESCRIPTION, check_out, write_artefact
from limbeck.report.charts import front_picture
from limbeck.report.evaluated_shapes import shapes_csv
from limbeck.report.html import front_svg, report_html
from limbeck.report.report import front_csv
from limbeck.report.serving_example import artefact_example
from limbeck.report.summary import RunSummary
from limbeck.report.table import rows
from limbeck.report.target_choices import targets_csv, targets_html
from limbeck.storage.atomic import replacing
from limbeck.storage.destination import check_destination, check_outside, writing
from limbeck.storage.digests import DigestMismatch

ARTEFACT = "artefact"
"""Where in a run's folder the chosen model is written."""

SHAPES = "shapes.csv"
"""Every shape that the searches of a run evaluated."""


def check_destinations(
    out: Path | None,
    folder: Path | None = None,
    inputs: Sequence[str | Path | None] = (),
    targets: Iterable[str] = ("",),
) -> None:
    """Refuse folders for the artefact and for the run (which holds it without ``out``) before hours of work.

    Args:
        out: Folder of the artefact.
        folder: Folder of the run.
        inputs: Models that are read; neither folder may be inside one.
        targets: Names of the targets, each with an artefact of its own in ``out``; '' for a single one.
    """
    if folder is not None:
        check_outside(folder, inputs, "--folder")
        check_destination(folder, "--folder", within=True)
        out = out or folder / ARTEFACT
    if out is None:
        return
    check_outside(out, inputs)
    several = [name for name in targets if name]
    if several and (out / DESCRIPTION).exists():
        names = ", ".join(several)
        raise InputError(f"--out {out} is an artefact for one target; name another folder for those of {names}")
    for name in several or [""]:
        check_out(out / name)


def deliver(result: RunResult, out: Path | None = None) -> dict[str, Path]:
    """Write the report, and the first chosen model with a copy of the report to ``out``.

    ``out`` is ``<run folder>/artefact`` unless given. Of several targets each has an artefact in it, under its name.
    Returns the paths written, by name.

    Args:
        result: The run.
        out: Folder of the artefact; ``<run folder>/artefact`` unless given.
    """
    out = out or result.folder / ARTEFACT
    with nothing_lost(result, *result.chosen[: max(1, len(result.targets))]):
        choosing = {name: each for name, each in result.each.items() if each.chosen}
        for each in choosing.values():
            each.stored(each.chosen[0])  # made again if it is gone, before the report mentions it
        written = write_report(result)
        artefacts = {}
        for name, each in choosing.items():
            artefact = _write_chosen(each, result.summaries[name], out / name)
            with writing(artefact):
                _write(artefact / "report.html", _page(result.summaries[name], texts=False))  # it may be published
            artefacts[f"artefact {name}".strip()] = artefact
    return {**artefacts, **written}


def _write_chosen(result: RunResult, summary: RunSummary, out: Path) -> Path:
    """Write the artefact of the first chosen model; once more if its files changed while they were copied.

    Args:
        result: The run, on one target.
        summary: The same for reports.
        out: Where to.
    """
    key = result.chosen[0]
    folder, digests = result.stored(key)
    try:
        return write_artefact(summary, key, folder, out, digests)
    except DigestMismatch as error:
        result.store.quarantine(key, str(error))
    folder, digests = result.stored(key)
    return write_artefact(summary, key, folder, out, digests)


@contextmanager
def nothing_lost(result: RunResult, *keys: str) -> Iterator[None]:
    """Add to a write error what was kept and how to write it elsewhere."""
    try:
        yield
    except StoreError:
        raise
    except LimbeckError as error:
        ways = "free some space and run the same command again, which repeats no finished work"
        for key in keys:
            ways += f", or write it elsewhere: limbeck save {result.folder} {key} --to DIR"
        raise LimbeckError(f"{error}. The finished models are kept in the store {result.store.root}: {ways}") from error


def write_report(result: RunResult) -> dict[str, Path]:
    """Write ``report.html``, ``front.csv``, ``front.svg`` and, after a search, ``shapes.csv`` into the run's folder.

    Of several targets, ``report.html`` and ``front.csv`` have all, and there is a ``report-NAME.html`` with
    ``front-NAME.svg`` for each. Needs no model, so the store may be gone.
    """
    folder = result.folder
    with writing(folder, "--folder"):
        written = {}
        if result.targets:
            first = result.first_summary
            written["report"] = _write(folder / "report.html", targets_html(first))
            written["front"] = _write(folder / "front.csv", targets_csv(first))
        for name, summary in result.summaries.items():
            layout = front_picture(summary, rows(summary))
            of, end = (f" {name}", f"-{name}") if name else ("", "")
            written[f"report{of}"] = _write(folder / f"report{end}.html", _page(summary, layout))
            if not name:
                written["front"] = _write(folder / "front.csv", front_csv(summary))
            if picture := front_svg(summary, layout):
                written[f"picture{of}"] = _write(folder / f"front{end}.svg", picture)
        if shapes := shapes_csv(result.records.values()):
            written["shapes"] = _write(folder / SHAPES, shapes)
        return written


def _page(summary: RunSummary, layout: Mapping[str, Any] | None = None, *, texts: bool = True) -> str:
    """Render the report; see ``report_html``."""
    chosen = [summary.records[key] for key in summary.chosen[:1]]
    example = artefact_example(summary, exported="onnx" in chosen[0].traits, key=chosen[0].key) if chosen else ""
    return report_html(summary, example=example, front=layout, texts=texts)


def budget_violations(result: RunResult) -> tuple[str, ...]:
    """Return the limits of the budget that the chosen candidate exceeds, in words; empty if it meets the budget.

    Of several targets, each limit comes after the name of its target.

    Args:
        result: The run.
    """
    return tuple(
        f"{name}: {problem}" if result.targets else problem
        for name, summary in result.summaries.items()
        for row in rows(summary)
        if row.chosen
        for problem in row.problems
    )


def _write(path: Path, text: str) -> Path:
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path
