"""Options of every command that takes a task: settings of its data, and where these are said."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from limbeck.data.task import Task

Kind = Literal["classification", "multilabel", "regression", "tokens"]


@dataclass(frozen=True)
class TaskSettings:
    """How the data of a task is read.

    Attributes:
        task_set: Set an option of the data: --task-set label=stars; may be given several times.
        metric: Metric of the task.
        kind: Kind of task.
        delimiter: What parts the fields of a CSV or TSV file.
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
    kind: Annotated[Kind | None, Parameter(help="Kind of the task, where its labels do not show it.")] = None
    delimiter: Annotated[str | None, Parameter(help="What parts the fields of a CSV or TSV file.")] = None

    def changes(self) -> dict[str, Any]:
        """The options that were given; a shortcut wins over --task-set."""
        from limbeck.data.task_file import settings

        names = ("max_length", "metric", "kind", "delimiter")
        short = {name: value for name in names if (value := getattr(self, name, None)) is not None}
        return settings(self.task_set or ()) | short

    def of(self, task: str | Mapping[str, Any]) -> str | dict[str, Any]:
        """The task with these options; as it stands where none were given."""
        from limbeck.data.task_file import with_settings

        return with_settings(task, self.changes())


@dataclass(frozen=True)
class TaskOptions(TaskSettings):
    """The same, with the length of texts; a technique with a ``max_length`` of its own has only the former.

    Attributes:
        max_length: Most tokens of a text; what is longer is cut.
    """

    max_length: Annotated[int | None, Parameter(help="Most tokens of a text; what is longer is cut.")] = None


def report_data(task: Task, model: str | None = None, splits: Sequence[str] | None = None) -> None:
    """Print what was read on standard error."""
    from limbeck.engine.data_report import data_report

    print("\n".join(data_report(task, model, splits).lines()), file=sys.stderr)
