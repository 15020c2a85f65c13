"""Show the progress of a run: bars with the time left, messages, and experiment trackers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from limbeck.engine import notebook
from limbeck.engine.tracking import Tracking

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Event = Mapping[str, Any]


@contextmanager
def show_progress(*, quiet: bool = False, track: str | None = None) -> Iterator[Callable[[Event], None]]:
    """Return a listener for ``run(on_event=...)``.

    Progress goes to standard error, or into the notebook's cell, and nowhere when ``quiet``.
    """
    tracker = Tracking(track) if track else None
    try:
        with _screen(quiet) as show:

            def listen(event: Event) -> None:
                show(event)
                if tracker is not None:
                    tracker(event)

            yield listen
    finally:
        if tracker is not None:
            tracker.close()


@contextmanager
def listening(
    on_event: Callable[[dict[str, Any]], None] | None, progress: bool | None
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Return the listener of a run that is started from Python.

    Args:
        on_event: The caller's own listener.
        progress: Whether to show progress. None: on a terminal and in a notebook, unless ``on_event`` is given.
    """
    if progress is None:
        progress = on_event is None and (sys.stderr.isatty() or notebook.is_here())
    if on_event is not None and not progress:  # the caller's own listener shows what was read, too
        yield on_event
        return
    with show_progress(quiet=not progress) as show:

        def listen(event: dict[str, Any]) -> None:
            show(event)
            if on_event is not None:
                on_event(event)

        yield listen


@contextmanager
def _screen(quiet: bool) -> Iterator[Callable[[Event], None]]:
    if quiet:
        yield _data_alone()
        return
    if notebook.is_here():
        with notebook.progress() as draw:
            yield draw
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    ]
    progress = Progress(*columns, console=Console(stderr=True))
    try:
        yield _Screen(progress)
    finally:
        if progress.live.is_started:  # else it would print an empty line
            progress.stop()


def _data_alone() -> Callable[[Event], None]:
    """Return a listener that only shows the summary of the task's data, once."""
    shown: list[str] = []

    def show(event: Event) -> None:
        if event["kind"] == "data" and event["message"] not in shown:
            shown.append(event["message"])
            sys.stderr.write(event["message"] + "\n")

    return show


class _Screen:
    """Draws events: one bar for the recipe's steps, one for the training that runs."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.steps: TaskID | None = None
        self.inner: TaskID | None = None
        self.data = _data_alone()

    def __call__(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "data":  # before the bars
            self.data(event)
            return
        if self.steps is None:  # not before: an error in the recipe should stand alone
            self.progress.start()
            self.steps = self.progress.add_task("steps", total=None)
        if kind == "step_start":
            description = f"{event['step']}" + (f" x{event['candidates']}" if event["candidates"] > 1 else "")
            self.progress.update(
                self.steps, total=event["total"], completed=event["position"] - 1, description=description
            )
        elif kind == "step_end":
            self.progress.update(self.steps, completed=event["position"])
            self._close()
        elif kind == "candidate_end":
            self._close()
        elif kind == "progress" and "total" in event["numbers"]:
            self._train(event["numbers"])
        elif kind in ("log", "note", "store") and event["message"]:
            self.progress.console.print(
                f"{event.get('step') or kind}: {event['message']}", markup=False, soft_wrap=True
            )
        elif kind == "finished_model":
            self.progress.console.print(f"finished: {event['message']}", markup=False, soft_wrap=True)
        elif kind == "failed":
            self.progress.console.print(f"failed: {event['step']}: {event['error']}", style="red", markup=False)

    def _train(self, numbers: Mapping[str, float]) -> None:
        if self.inner is None:
            self.inner = self.progress.add_task("training")
        loss = f" loss {numbers['loss']:.3f}" if "loss" in numbers else ""
        self.progress.update(
            self.inner, total=numbers["total"], completed=numbers.get("step", 0), description=f"training{loss}"
        )

    def _close(self) -> None:
        if self.inner is not None:
            self.progress.remove_task(self.inner)
            self.inner = None
