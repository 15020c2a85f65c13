"""Options of every command that takes a task: the settings of its data."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from limbeck.core.kinds import Kind
from limbeck.errors import InputError

if TYPE_CHECKING:
    from limbeck.core.task import Task


@dataclass(frozen=True)
class TaskSettings:
    """Settings for reading the data of a task.

    Attributes:
        task_set: Set an option of the data: --task-set label=stars; may be given several times.
        metric: Metric of the task.
        kind: Kind of task.
        delimiter: Separator of fields in a CSV or TSV file.
    """

    task_set: Annotated[
        list[str] | None,
        Parameter(
            help="Set an option of the data, as in a task file: --task-set label=stars; may be given several times.",
            negative=(),
            consume_multiple=False,
        ),
    ] = None
    metric: Annotated[str | None, Parameter(help="Metric of the task, such as f1.")] = None
    kind: Annotated[Kind | None, Parameter(help="Kind of the task, if its labels do not show it.")] = None
    delimiter: Annotated[str | None, Parameter(help="Separator of fields in a CSV or TSV file.")] = None

    def changes(self) -> dict[str, Any]:
        """Return the options that were given; a shortcut takes precedence over --task-set."""
        from limbeck.data.task_file import settings

        return settings(self.task_set or ()) | {name: value for name, value in self._shortcuts() if value is not None}

    def _shortcuts(self) -> list[tuple[str, Any]]:
        return [("metric", self.metric), ("kind", self.kind), ("delimiter", self.delimiter)]

    def of(self, task: str | Mapping[str, Any]) -> str | dict[str, Any]:
        """Return the task with these options applied; unchanged if none were given."""
        from limbeck.data.task_file import with_settings

        return with_settings(task, self.changes())


@dataclass(frozen=True)
class TaskOptions(TaskSettings):
    """Task settings and the length of texts; techniques with a ``max_length`` of their own take only the settings.

    Attributes:
        max_length: Tokens after which a text is cut.
    """

    max_length: Annotated[int | None, Parameter(help="Tokens after which a text is cut.")] = None

    def _shortcuts(self) -> list[tuple[str, Any]]:
        return [("max_length", self.max_length), *super()._shortcuts()]


def task_or_texts(command: str, task: str | None, texts: Path | None) -> str | dict[str, str]:
    """Return which data a command reads, of which exactly one is given.

    Args:
        command: Name of the command in the error.
        task: What ``--task`` names.
        texts: A file of texts without labels.

    Raises:
        InputError: Both are given, or neither is.
    """
    if (task is None) == (texts is None):
        raise InputError(f"{command} needs --task or --texts, got {'neither' if task is None else 'both'}")
    return task if task is not None else {"texts": str(texts)}


def report_data(task: Task, model: str | None = None, splits: Sequence[str] | None = None) -> None:
    """Print a summary of the data that was read on standard error.

    Args:
        task: The task.
        model: Folder or name of the model, whose tokenizer shows how many texts are cut.
        splits: Splits to describe; all when not given.
    """
    from limbeck.engine.tasks.data_report import data_report

    print("\n".join(data_report(task, model, splits).lines()), file=sys.stderr)
