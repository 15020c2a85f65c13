"""Keep an in-memory task in the folder of its run, where the recipe, the report and a later run find it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.core.finite import load_json
from limbeck.storage.destination import whole_folder

if TYPE_CHECKING:
    from limbeck.core.task import Task

FOLDER = "task"
"""Where in a run's folder the task lies."""


def keep_task(task: Task, run_folder: Path) -> Path:
    """Write a task into a run's folder, unless it is there already; return its folder, which a recipe can name."""
    folder = run_folder / FOLDER
    if _fingerprint(folder) != task.fingerprint:
        with whole_folder(folder, "the task's folder") as draft:
            task.to_folder(draft)
    return folder


def _fingerprint(folder: Path) -> str | None:
    try:
        head = load_json((folder / "task.json").read_text(encoding="utf-8"))
        return str(head["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
