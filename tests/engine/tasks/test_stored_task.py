"""A task that came by value lies in the folder of its run."""

from __future__ import annotations

from limbeck.core.task import Task
from limbeck.data.synthetic import toy_task
from limbeck.engine.tasks.stored_task import keep_task


def test_a_task_is_kept_once_and_replaced_by_another(tmp_path):
    task = toy_task(train=9)
    folder = keep_task(task, tmp_path / "run")
    assert Task.from_folder(folder) == task
    before = (folder / "task.json").stat().st_ino
    assert keep_task(task, tmp_path / "run") == folder
    assert (folder / "task.json").stat().st_ino == before
    other = toy_task(train=12)
    assert Task.from_folder(keep_task(other, tmp_path / "run")) == other


def test_a_damaged_task_is_written_again(tmp_path):
    task = toy_task(train=9)
    folder = keep_task(task, tmp_path)
    (folder / "task.json").write_text("{")
    assert Task.from_folder(keep_task(task, tmp_path)) == task
