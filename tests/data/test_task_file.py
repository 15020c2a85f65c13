"""Task files and settings: options of the data, kept as text until they are checked by their types."""

from __future__ import annotations

import pytest

from limbeck.data.loading import check_task, load_task
from limbeck.data.task_file import read_task_file, settings, with_settings
from limbeck.errors import InputError

ROWS = "note;mood\ngood film;no\nbad film;yes\nfine film;no\npoor film;yes\n"


@pytest.fixture
def file(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.csv").write_text(ROWS)
    path = tmp_path / "data" / "task.yaml"
    path.write_text('path: notes.csv\ndelimiter: ";"\nlabel_names: [no, yes]\nlimit: {train: 3}\nmax_length: 32\n')
    return path


def test_a_task_file_is_read_beside_its_data(file):
    task = load_task(str(file))
    assert (task.name, task.label_names, task.max_length) == ("notes", ("no", "yes"), 32)
    assert load_task("data/task.yaml", base=file.parent.parent) == task
    changed = load_task({"path": str(file), "max_length": 64, "limit": {"validation": 1}})
    assert (changed.max_length, len(changed.split("train"))) == (64, len(task.split("train")))
    check_task(str(file))
    other = file.with_name("other.yml")
    other.write_text("path: task.yaml\nname: again\n")
    assert load_task(other).name == "again"


def test_named_tasks_stay_names(tmp_path):
    path = tmp_path / "few.yaml"
    path.write_text("path: movie-reviews\nlimit: {train: 20, validation: 10, test: 10}\n")
    assert load_task(path).label_names == ("negative", "positive")


WRONG = {
    "- a\n": "a task file is a mapping",
    "": "a task file is a mapping",
    "path: x.csv\npath: y.csv\n": "line 2, column 1: the key 'path' appears twice",
    "path: [x.csv\n": "line 2, column 1",
    "steps: []\n": "this is a recipe",
    "path: notes.csv\nlable: mood\n": "no option 'lable'; did you mean 'label'",
    "path: notes.csv\nmax_length: long\n": "data option 'max_length'",
    "path: notes.csv\ndelimiter: ab\n": "data option 'delimiter': should be one character",
    "path: none.csv\n": "no such file",
    "a: &a [*a]\n": "anchors and aliases",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_task_file_is_one_error(file, text):
    file.write_text(text)
    with pytest.raises(InputError, match=WRONG[text]):
        check_task(str(file))


def test_missing_and_unreadable_files(file):
    with pytest.raises(InputError, match="there is no such task file"):
        check_task(str(file.with_name("none.yaml")))
    file.write_bytes(b"path: caf\xe9.csv\n")
    with pytest.raises(InputError, match="not UTF-8"):
        read_task_file(file)


def test_settings():
    options = settings(
        ["label=[a, b]", "label_separator=|", 'delimiter="\t"', "limit.train=5", "limit.test=6", "pair=null"]
    )
    limits = {"train": "5", "test": "6"}
    assert options == {"label": ["a", "b"], "label_separator": "|", "delimiter": "\t", "limit": limits, "pair": None}
    for wrong, message in (
        ("label", "key=value"),
        ("lable=x", "did you mean 'label'"),
        ("label=[x", "--task-set label"),
    ):
        with pytest.raises(InputError, match=message):
            settings([wrong])
    assert with_settings("x.csv", {}) == "x.csv"
    assert with_settings("x.csv", {"kind": "tokens"}) == {"path": "x.csv", "kind": "tokens"}
    assert with_settings({"train": "x.csv", "seed": 1}, {"seed": 2}) == {"train": "x.csv", "seed": 2}
