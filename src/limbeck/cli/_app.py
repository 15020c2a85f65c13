"""Shared by all commands: common options, and output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from limbeck.core.finite import json_text
from limbeck.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from limbeck.core.model import Runnable
    from limbeck.engine.result import RunResult
    from limbeck.engine.store.store import Store as OpenStore


Store = Annotated[Path | None, Parameter(help="Folder where finished work is kept [default: ~/.cache/limbeck].")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object instead of tables.")]
Track = Annotated[
    str | None, Parameter(help="Log training to a tracker supported by Accelerate: tensorboard, wandb, mlflow, …")
]
Runtime = Literal["torch", "onnxruntime", "openvino"]


def check_options(*groups: object) -> None:
    """Check the values of groups of options, as a recipe's fields are checked."""
    from limbeck.recipe.validation import check_values

    for options in groups:
        check_values(options, "--")


def make_console() -> Console:
    """Create the console that tables are printed on."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # files and pipes have no width; 80 columns would squeeze the tables
        console.width = max(console.width, 140)
    return console


def event_listener(quiet: bool, track: str | None) -> AbstractContextManager[Callable[[Mapping[str, Any]], None]]:
    """Return a context that yields a listener for events of a run, which shows progress and feeds a tracker."""
    from limbeck.engine.progress import show_progress

    return show_progress(quiet=quiet, track=track)


def open_store(path: Path | None) -> OpenStore | None:
    """Open the store at a path; None stands for the default store."""
    from limbeck.engine.store.store import Store as OpenStore

    return OpenStore(path) if path else None


def refuse_fresh_head(model: Runnable, source: str) -> None:
    """Refuse a model whose head is not trained for the task.

    Args:
        model: The opened model.
        source: Its name or path as the user gave it.

    Raises:
        InputError: The head is untrained.
    """
    if model.fresh_head:
        reason = f": {model.untrained}" if model.untrained else ""
        raise InputError(
            f"'{source}' has no trained head for this task{reason}; fine-tune it first, or use 'limbeck compress'"
        )


def print_json(value: object) -> None:
    """Print a JSON value on standard output, with null for NaN and infinity."""
    print(json_text(value, indent=2, default=str))


def finish(result: RunResult, written: Mapping[str, Path], as_json: bool) -> int:
    """Print the outcome of a run.

    Args:
        result: The finished run.
        written: Paths that were written, by name.
        as_json: Print JSON instead of tables.

    Returns:
        The exit status: 3 if the chosen model exceeds limits, or nothing could be chosen; 1 if steps failed; else 0.
    """
    from limbeck.engine.outputs import budget_violations
    from limbeck.report.report import front_table, named_headline, run_json

    violations = budget_violations(result)
    paths = {name: str(path) for name, path in written.items()}
    if as_json:
        print_json(
            run_json(result.summaries)
            | {"written": paths, "budget_violations": list(violations), "unmet": list(violations)}
        )
    else:
        console = make_console()
        for name, summary in result.summaries.items():
            style = "bold red" if budget_violations(result.each[name]) else None
            console.print(front_table(summary))
            console.print(named_headline(summary), soft_wrap=True, style=style)
        for failure in result.failed:
            message = f"failed: {failure.path} {failure.step}: {failure.error}"
            console.print(message, style="red", markup=False, soft_wrap=True)
        for gap in result.gaps:
            console.print(f"incomplete: {gap}", style="red", markup=False, soft_wrap=True)
        for name, path in paths.items():
            console.print(f"{name}: {path}", markup=False, soft_wrap=True)
    chosen = result.gaps or all(summary.chosen or not summary.chooses for summary in result.summaries.values())
    result.store.release()  # its models may be removed by gc now, even in the same process
    return 3 if violations or not chosen else 1 if result.failed else 0
