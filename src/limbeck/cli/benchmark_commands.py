"""The command that times a grid of architectures, and trains it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from limbeck.benchmark.options import Grid, Timing, Training
from limbeck.cli._app import MODELS, Json, Store, Track, app, console_of, opened_store, print_json, watching
from limbeck.cli.task_options import TaskOptions, report_data
from limbeck.errors import InputError

if TYPE_CHECKING:
    from limbeck.engine.result import Failure

LISTS = Parameter(consume_multiple=True, negative=())


@app.command(group=MODELS, default_parameter=LISTS)
def bench(
    *,
    grid: Annotated[Grid, Parameter(name="*")] = Grid(),  # noqa: B008 frozen
    timing: Annotated[Timing, Parameter(name="*")] = Timing(),  # noqa: B008 frozen
    training: Annotated[Training, Parameter(name="*")] = Training(),  # noqa: B008 frozen
    data: Annotated[TaskOptions, Parameter(name="*")] = TaskOptions(),  # noqa: B008 frozen
    lengths: tuple[int, ...] = (),
    id: str = "main",
    folder: Path | None = None,
    store: Store = None,
    track: Track = None,
    json: Json = False,
) -> int:
    """Time a grid of architectures, with random weights; with --train also their accuracy, alone and weight-shared.

    Layers and attention ratios given together are taken in pairs, the first with the first, unless --jointly. Every
    trial is a process of its own; all samples, a table and a page with pictures are written. Run again to go on after
    an interruption: what was timed or trained is not done again.

    Parameters
    ----------
    lengths
        Another name of --seq-len.
    id
        Name of the bench.
    folder
        Where it is written [default: runs/bench-ID].
    """
    from limbeck.benchmark import length_charts as bench_lengths
    from limbeck.benchmark import report as bench_report
    from limbeck.benchmark.plan import plan
    from limbeck.benchmark.run import TABLE, write_table
    from limbeck.benchmark.run import bench as work
    from limbeck.benchmark.training import school
    from limbeck.data.loading import load_task
    from limbeck.storage.destination import check_destination

    training.check()
    if lengths and timing.seq_len:
        raise InputError("--lengths is another name of --seq-len; give one of them")
    timing = replace(timing, seq_len=lengths or timing.seq_len)
    place = folder or Path("runs") / f"bench-{id}"
    check_destination(place, "--folder", within=True)
    if training.task is None and (changes := data.changes()):
        raise InputError(f"--task-set and its like are about a task, got {', '.join(changes)}; add --task")
    task = data.of(training.task) if training.task else None
    spec = plan(grid, timing, task)
    if task is not None:
        report_data(load_task(task))
    lessons = school(spec, grid.base, training, opened_store(store), task=task) if training.train else None
    rows = work(spec, place, _told)
    failed: list[Failure] = []
    if lessons is not None:
        with watching(json, track) as show:
            rows, failed = lessons.judge(rows, place / "training", show)
        write_table(rows, place / TABLE)
    page = place / "report.html"
    title = f"{grid.base} on {spec.told}"
    page.write_text(bench_report.report(rows, title, lessons.summary if lessons else ""), encoding="utf-8")
    if json:
        told: dict[str, Any] = {"rows": [row.to_json() for row in rows], "folder": str(place)}
        if paying := bench_lengths.break_evens(rows):
            told["break_even"] = [one._asdict() for one in paying]
        print_json(told | ({"failed": [failure.error for failure in failed]} if failed else {}))
        return 1 if failed else 0
    console_of().print(bench_report.table(rows))
    for found in bench_lengths.break_evens(rows):
        print(found)
    if lessons is not None:
        print(lessons.summary)
    for failure in failed:
        print(f"failed: {failure.path} {failure.step}: {failure.error}", file=sys.stderr)
    print(f"samples and table: {place}, pictures: {page}")
    return 1 if failed else 0


def _told(event: Mapping[str, Any]) -> None:
    """One line of progress."""
    print(f"{event['done'] + 1} of {event['total']}: {event['label']}, {event['format']}", file=sys.stderr)
