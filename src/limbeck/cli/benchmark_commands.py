"""Command that times a grid of architectures, and trains it on request."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from limbeck.benchmark.options import Grid, Timing, Training
from limbeck.cli._app import (
    Json,
    Store,
    Track,
    check_options,
    event_listener,
    make_console,
    open_store,
    print_json,
)
from limbeck.cli.machines import Machines
from limbeck.cli.task_options import TaskOptions, report_data
from limbeck.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from limbeck.benchmark.run import Row, Timer
    from limbeck.core.task import Task
    from limbeck.distributed.config import ExecutorConfig
    from limbeck.engine.result import Failure
    from limbeck.engine.store.store import Store as OpenStore
    from limbeck.measure.trial import Trial


def bench(
    *,
    grid: Annotated[Grid, Parameter(name="*")] = Grid(),  # noqa: B008 frozen
    timing: Annotated[Timing, Parameter(name="*")] = Timing(),  # noqa: B008 frozen
    training: Annotated[Training, Parameter(name="*")] = Training(),  # noqa: B008 frozen
    data: Annotated[TaskOptions, Parameter(name="*")] = TaskOptions(),  # noqa: B008 frozen
    lengths: tuple[int, ...] = (),
    id: str = "main",
    folder: Path | None = None,
    machines: Annotated[Machines, Parameter(name="*")] = Machines(),  # noqa: B008 frozen
    store: Store = None,
    track: Track = None,
    json: Json = False,
) -> int:
    """Time a grid of architectures with random weights; with --train also measure their accuracy.

    Layers and attention ratios given together are paired in order, unless --jointly is given. Every trial runs in its
    own process. Writes all samples, a table and a page with charts; the same command resumes after an interruption.

    Args:
        grid: The architectures.
        timing: How they are timed.
        training: How they are trained.
        data: Settings of the task's data.
        lengths: Another name for --seq-len.
        id: Name of the benchmark.
        folder: Folder to write to [default: runs/bench-ID].
        machines: Where models are trained and answer; latency is measured here, one architecture after the other.
        store: Folder of finished work.
        track: Tracker of the numbers of training.
        json: Print JSON.
    """
    from limbeck.benchmark import run as bench_run
    from limbeck.benchmark.plan import plan
    from limbeck.benchmark.training import make_training
    from limbeck.engine.store.store import Store as FolderStore
    from limbeck.recipe.limits import name_problem
    from limbeck.storage.destination import check_destination

    _check(grid, timing, training, track)
    if problem := name_problem(id):
        raise InputError(f"--id: {problem}")
    executor = _executor(machines, training)
    timing = _with_lengths(timing, lengths)
    folder = folder or Path("runs") / f"bench-{id}"
    check_destination(folder, "--folder", within=True)
    task = _task_of(training, data)
    loaded = _load(task, grid.base) if task is not None else None
    spec = plan(grid, timing, loaded)
    own = open_store(store) or FolderStore()
    wanted = (spec, grid.base, training, own)
    trainings = make_training(*wanted, task=task, loaded=loaded) if training.train else None
    rows = bench_run.bench(spec, folder, _print_progress, _timer(own))
    failed: list[Failure] = []
    if trainings is not None:
        with event_listener(json, track) as show:
            rows, failed = trainings.evaluate(rows, folder / "training", show, executor)
        bench_run.write_table(rows, folder / bench_run.TABLE)
    title, summary = f"{grid.base} on {spec.target_text}", trainings.summary if trainings else ""
    _present(rows, failed, folder, (title, summary), json)
    return 1 if failed else 0


def _present(rows: Sequence[Row], failed: Sequence[Failure], folder: Path, words: tuple[str, str], json: bool) -> None:
    """Write the page with a title and a summary, and print the figures."""
    from limbeck.benchmark import report as bench_report
    from limbeck.report.shareable import without_paths

    title, summary = without_paths(words)  # as the report of a run: the page may be shared
    page = folder / "report.html"
    page.write_text(bench_report.report(rows, title, summary), encoding="utf-8")
    if json:
        _print_json(rows, failed, folder)
    else:
        _print_tables(rows, failed, summary)
        print(f"samples and table: {folder}, charts: {page}")


def _check(grid: Grid, timing: Timing, training: Training, track: str | None) -> None:
    """Refuse options that cannot be used, and a tracker that is missing or has nothing to track."""
    from limbeck.engine.tracking import check_tracker

    check_options(grid, timing, training)
    training.check()
    if track is None:
        return
    if training.train is None:
        raise InputError("--track applies to training; add --train individual, shared or both")
    check_tracker(track)


def _executor(machines: Machines, training: Training) -> ExecutorConfig:
    """Return where models are trained; refuse workers that would have nothing to do."""
    if machines != Machines() and training.train is None:
        raise InputError(
            "--executor, --workers and --settings apply to training, and latency is measured here; add --train "
            "individual, shared or both"
        )
    return machines.config()


def _timer(store: OpenStore) -> Timer:
    """Return what times a trial while nothing that uses the store works on this machine."""
    from limbeck.measure import trial as trials

    def timed(trial: Trial) -> np.ndarray:
        with store.machine.alone():
            return trials.time_trial(trial)

    return timed


def _with_lengths(timing: Timing, lengths: tuple[int, ...]) -> Timing:
    if lengths and timing.seq_len:
        raise InputError("--lengths is another name for --seq-len; give one of them")
    return replace(timing, seq_len=lengths or timing.seq_len)


def _task_of(training: Training, data: TaskOptions) -> str | dict[str, Any] | None:
    if training.task is None and (changes := data.changes()):
        raise InputError(f"--task-set and the other options of a task need one, got {', '.join(changes)}; add --task")
    return data.of(training.task) if training.task else None


def _load(task: str | Mapping[str, Any], base: str) -> Task:
    """Load a task and print what was read, and how many of its texts the base model cuts."""
    from limbeck.engine.tasks.loading import load_task

    loaded = load_task(task)
    report_data(loaded, base)
    return loaded


def _print_json(rows: Sequence[Row], failed: Sequence[Failure], folder: Path) -> None:
    from limbeck.benchmark.length_charts import break_evens

    results: dict[str, Any] = {"rows": [row.to_json() for row in rows], "folder": str(folder)}
    if lengths := break_evens(rows):
        results["break_even"] = [length._asdict() for length in lengths]
    print_json(results | ({"failed": [failure.error for failure in failed]} if failed else {}))


def _print_tables(rows: Sequence[Row], failed: Sequence[Failure], summary: str) -> None:
    from limbeck.benchmark.length_charts import break_evens
    from limbeck.benchmark.report import table

    make_console().print(table(rows))
    for break_even in break_evens(rows):
        print(break_even)
    if summary:
        print(summary)
    for failure in failed:
        print(f"failed: {failure.path} {failure.step}: {failure.error}", file=sys.stderr)


def _print_progress(event: Mapping[str, Any]) -> None:
    """Print one line of progress on standard error."""
    print(f"{event['done'] + 1} of {event['total']}: {event['label']}, {event['format']}", file=sys.stderr)
