"""The outcome of a run as text, as HTML for a notebook, and as a data frame."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.report.report import front_rows, front_table, named_headline
from limbeck.report.summary import RunSummary

if TYPE_CHECKING:
    import pandas

COLUMNS = 140
"""Width of the table as text, for notebooks and log files."""


def summary(summary: RunSummary, written: Mapping[str, Path]) -> str:
    """Return what the command line prints at the end of a run: a table for each of its targets.

    Args:
        summary: The run.
        written: The paths that were written, by name.
    """
    from rich.console import Console

    console = Console(file=StringIO(), width=COLUMNS, color_system=None, force_jupyter=False)
    with console.capture() as captured:
        for each in summary.on_targets:
            console.print(front_table(each))
            console.print(named_headline(each), soft_wrap=True, markup=False)
        for failure in summary.failures:
            console.print(f"failed: {failure['step']}: {failure['error']}", markup=False, soft_wrap=True)
        for gap in summary.gaps:
            console.print(f"incomplete: {gap}", markup=False, soft_wrap=True)
        for name, path in written.items():
            console.print(f"{name}: {path}", markup=False, soft_wrap=True)
    return captured.get().rstrip()


def summary_html(summary: RunSummary, written: Mapping[str, Path]) -> str:
    """Return the outcome as HTML for a notebook's cell: a table for each target.

    Args:
        summary: The run.
        written: The paths that were written, by name.
    """
    lines = [f"failed: {failure['step']}: {failure['error']}" for failure in summary.failures]
    lines += [f"incomplete: {gap}" for gap in summary.gaps]
    lines += [f"{name}: {path}" for name, path in written.items()]
    return "".join(map(_table_html, summary.on_targets)) + "".join(f"<div>{escape(line)}</div>" for line in lines)


def _table_html(summary: RunSummary) -> str:
    """Return the table of a run on one target, with its headline below."""
    table = front_table(summary)
    heads = "".join(f"<th>{escape(str(column.header))}</th>" for column in table.columns)
    rows = []
    for cells, row in zip(zip(*(column.cells for column in table.columns), strict=True), table.rows, strict=True):
        style = " style='font-weight:bold'" if row.style == "bold green" else ""
        rows.append(f"<tr{style}>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>")
    title, caption = escape(str(table.title)), escape(str(table.caption)).replace("\n", "<br>")
    return (
        f"<div>{title}</div><table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"<div style='font-size:85%'>{caption}</div><div>{escape(named_headline(summary))}</div>"
    )


def front_frame(summary: RunSummary) -> pandas.DataFrame:
    """Return the measured candidates as a data frame, slowest first, with units in the column names.

    Where a run has several targets, ``target`` names that which a row is for.
    """
    import pandas

    rows = [
        ({"target": each.target_name} if each.target_name else {}) | row
        for each in summary.on_targets
        for row in front_rows(each)
    ]
    return pandas.DataFrame(rows)
