"""What all commands share: the application and its groups, common options, and how things are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from limbeck.core.finite import json_text
from limbeck.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from limbeck.engine.result import RunResult

app = App(
    name="limbeck",
    help="Make BERT-class encoders small and fast: prune, distil, quantize, and measure under a latency budget.",
    version=lambda: _version(),
)
RUNS = Group("Compress and run", sort_key=1)
MODELS = Group("Use and measure a model", sort_key=2)
STEPS = Group("One technique at a time", sort_key=3)

Store = Annotated[Path | None, Parameter(help="Where finished work is kept [default: ~/.cache/limbeck].")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object instead of tables.")]
Track = Annotated[
    str | None, Parameter(help="Send the numbers of training to a tracker of Accelerate: tensorboard, wandb, mlflow, …")
]
Runtime = Literal["torch", "onnxruntime", "openvino"]


def _version() -> str:
    from importlib.metadata import version

    return version("limbeck")


def console_of() -> Console:
    """Where tables are printed."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width; 80 columns would squeeze the table
        console.width = max(console.width, 140)
    return console


@contextmanager
def watching(quiet: bool, track: str | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A listener that draws progress on standard error and feeds a tracker."""
    from limbeck.engine.progress import show_progress

    with show_progress(quiet=quiet, track=track) as show:
        yield show


def opened_store(store: Path | None) -> Any:
    """The store at a path; None for the usual one."""
    from limbeck.engine.store import Store as Opened

    return Opened(store) if store else None


def refuse_fresh_head(model: Any, source: str) -> None:
    """An error for a model that cannot answer the task yet."""
    if getattr(model, "fresh_head", False):
        reason = f": {model.untrained}" if getattr(model, "untrained", "") else ""
        raise InputError(
            f"'{source}' has no trained head for this task{reason}; fine-tune it first, or use 'limbeck compress'"
        )


def print_json(value: Any) -> None:
    """One JSON value on standard output; NaN and infinity are null."""
    print(json_text(value, indent=2, default=str))


def finish(result: RunResult, written: Mapping[str, Path], unmet: Any, as_json: bool) -> int:
    """Print what came out; the exit status says whether all went well."""
    from limbeck.engine.outputs import summary_of
    from limbeck.report.report import front_table, headline, to_json

    summary = summary_of(result, result.task)
    paths = {name: str(path) for name, path in written.items()}
    if as_json:
        print_json(to_json(summary) | {"written": paths, "unmet": list(unmet)})
    else:
        console = console_of()
        console.print(front_table(summary))
        console.print(headline(summary), soft_wrap=True, style="bold red" if unmet else None)
        for failure in result.failed:
            told = f"failed: {failure.path} {failure.step}: {failure.error}"
            console.print(told, style="red", markup=False, soft_wrap=True)
        for name, path in paths.items():
            console.print(f"{name}: {path}", markup=False, soft_wrap=True)
    return 3 if unmet else 1 if result.failed else 0
