"""The outcome of a run as text, as HTML for a notebook, and as a data frame."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.report.report import front_rows, front_table, headline
from limbeck.report.summary import RunSummary

if TYPE_CHECKING:
    import pandas

COLUMNS = 140
"""Width of the table as text, for notebooks and log files."""


def summary(summary: RunSummary, written: Mapping[str, Path]) -> str:
    """Return what the command line prints at the end of a run.

    Args:
        summary: The run.
        written: The paths that were written, by name.
    """
    from rich.console import Console

    console = Console(file=StringIO(), width=COLUMNS, color_system=None, force_jupyter=False)
    with console.capture() as captured:
        console.print(front_table(summary))
        console.print(headline(summary), soft_wrap=True, markup=False)
        for failure in summary.failures:
            console.print(f"failed: {failure['step']}: {failure['error']}", markup=False, soft_wrap=True)
        for gap in summary.gaps:
            console.print(f"incomplete: {gap}", markup=False, soft_wrap=True)
        for name, path in written.items():
            console.print(f"{name}: {path}", markup=False, soft_wrap=True)
    return captured.get().rstrip()


def summary_html(summary: RunSummary, written: Mapping[str, Path]) -> str:
    """Return the outcome as HTML for a notebook's cell.

    Args:
        summary: The run.
        written: The paths that were written, by name.
    """
    table = front_table(summary)
    heads = "".join(f"<th>{escape(str(column.header))}</th>" for column in table.columns)
    rows = []
    for cells, row in zip(zip(*(column.cells for column in table.columns), strict=True), table.rows, strict=True):
        style = " style='font-weight:bold'" if row.style == "bold green" else ""
        rows.append(f"<tr{style}>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>")
    lines = [headline(summary), *(f"failed: {failure['step']}: {failure['error']}" for failure in summary.failures)]
    lines += [f"incomplete: {gap}" for gap in summary.gaps]
    lines += [f"{name}: {path}" for name, path in written.items()]
    title, caption = escape(str(table.title)), escape(str(table.caption)).replace("\n", "<br>")
    below = "".join(f"<div>{escape(line)}</div>" for line in lines)
    return (
        f"<div>{title}</div><table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"<div style='font-size:85%'>{caption}</div>{below}"
    )


def front_frame(summary: RunSummary) -> pandas.DataFrame:
    """Return the measured candidates as a data frame, slowest first, with units in the column names."""
    import pandas

    return pandas.DataFrame(front_rows(summary))
