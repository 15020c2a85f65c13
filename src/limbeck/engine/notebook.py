"""Show a run in a notebook cell: progress bars, with the important messages below them.

The output is plain HTML that the kernel replaces a few times a second, so it needs no widgets and stays in the saved
notebook.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from html import escape
from importlib import import_module
from typing import Any

LINES = 100
"""Most lines that are shown; all of them are in the ledger."""
PAUSE = 0.2
"""Seconds between two updates, so that a fast loop does not flood the browser."""


def is_here() -> bool:
    """Return whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return getattr(shell, "kernel", None) is not None


@contextmanager
def progress() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Return a listener that draws a run's events in the cell; nothing appears before the first event."""
    display = import_module("IPython.display")
    cell = Cell(lambda html: display.display(display.HTML(html), display_id=True), display.HTML)
    try:
        yield cell
    finally:
        cell.draw()


class Cell:
    """What the cell shows: the step of the recipe, the training in it, and the newest lines."""

    def __init__(self, show: Callable[[str], Any], wrap: Callable[[str], Any]) -> None:
        """Keep the ways to show HTML.

        Args:
            show: Displays the first HTML and returns a handle with ``update``.
            wrap: Converts HTML to what ``update`` accepts.
        """
        self._show, self._wrap = show, wrap
        self._handle: Any = None
        self._start, self._last_draw = time.monotonic(), 0.0
        self._step, self._done, self._total = "", 0, 0
        self._training: Mapping[str, float] | None = None
        self._lines: deque[str] = deque(maxlen=LINES)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take in one event of a run."""
        match event["kind"]:
            case "step_start":
                several = f" x{event['candidates']}" if event["candidates"] > 1 else ""
                self._step, self._done, self._total = f"{event['step']}{several}", event["position"] - 1, event["total"]
            case "step_end":
                self._done, self._training = event["position"], None
            case "candidate_end":
                self._training = None
            case "progress" if "total" in event["numbers"]:
                self._training = event["numbers"]
            case "log" | "note" | "store" if event["message"]:
                self._lines.append(escape(f"{event.get('step') or event['kind']}: {event['message']}"))
            case "failed":
                text = escape(f"failed: {event['step']}: {event['error']}")
                self._lines.append(f"<span style='color:#c00'>{text}</span>")
            case "finished":
                self._step, self._done = "finished", self._total
        if time.monotonic() - self._last_draw > PAUSE:
            self.draw(first=True)

    def draw(self, *, first: bool = False) -> None:
        """Show the current state; ``first`` allows the first output."""
        if self._handle is None:
            if first:
                self._handle = self._show(self.html)
        else:
            self._handle.update(self._wrap(self.html))
        self._last_draw = time.monotonic()

    @property
    def html(self) -> str:
        """The current state as HTML."""
        rows = [_bar(self._step, self._done, self._total, f"{time.monotonic() - self._start:.0f} s")]
        if self._training is not None:
            loss = f"loss {self._training['loss']:.3f}" if "loss" in self._training else ""
            rows.append(_bar("training", self._training.get("step", 0), self._training["total"], loss))
        lines = "<br>".join(self._lines)
        style = "max-height:12em;overflow:auto;font-size:85%;white-space:pre-wrap"
        return f"<table>{''.join(rows)}</table><div style='{style}'>{lines}</div>"


def _bar(name: str, done: float, total: float, beside: str) -> str:
    """Return one row: name, bar, count, remark."""
    left = "<td style='text-align:left'>"
    bar = f"<progress value='{done:g}' max='{max(total, 1):g}'></progress>"
    return f"<tr>{left}{escape(name)}</td><td>{bar}</td>{left}{done:g}/{total:g}</td>{left}{escape(beside)}</td></tr>"
