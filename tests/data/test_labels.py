"""Labels become numbers; rows without one are recognized as what they are."""

from __future__ import annotations

import pytest

from limbeck.data.labels import label_text, sort_labels
from limbeck.data.loading import load_task
from limbeck.errors import InputError

TRAIN = "text,label\ngood,1\nbad,0\nfine,1\npoor,0\n"


def folder(tmp_path, **files):
    for name, content in files.items():
        (tmp_path / f"{name}.csv").write_text(content)
    return str(tmp_path)


UNLABELED = {  # files, rows without a label, part of the message
    "nan": (
        {"train": TRAIN + "well,nan\n"},
        "line 6: .*column 'label' says 'nan'.*1 of 5 rows has no label",
    ),
    "empty": ({"train": TRAIN + "well,\n,1\n"}, "line 6: the label is empty"),
    "hidden": (
        {"train": TRAIN, "test": "text,label\na,-1\nb,-1\n"},
        "test.csv, line 2: .*says '-1', which means no label.*2 of 2 rows .*; leave this file out by naming",
    ),
    "some hidden": ({"train": TRAIN, "test": "text,label\na,1\nb,-1.0\n"}, "test.csv, line 3: .*1 of 2 rows"),
    "none at all": ({"train": "text,mood,label\n" + "a,x,\nb,y,\n"}, r"2 of 2 rows .*--task-set label=NAME"),
    "a hidden vector": (
        {"train": "text,a,b\n" + "one,1,0\ntwo,0,0\n" * 3, "test": "text,a,b\none,-1,-1\ntwo,1,0\n"},
        r"test.csv, line 2: .*columns 'a', 'b' have a value that is neither 0 nor 1",
    ),
}


@pytest.mark.parametrize("case", UNLABELED)
def test_rows_without_a_label_are_an_error_that_says_so(tmp_path, case):
    files, message = UNLABELED[case]
    with pytest.raises(InputError, match=message):
        load_task({"path": folder(tmp_path, **files), "on_empty": "drop"})


def test_they_can_be_left_out(tmp_path):
    path = folder(tmp_path, train=TRAIN + "well,nan\n", test="text,label\na,-1\nb,-1\n")
    task = load_task({"path": path, "on_unlabelled": "drop"})
    assert (task.label_names, "test" in task.splits) == (("0", "1"), False)
    assert "train: 1 row without a label dropped" in task.notes
    assert "test: 2 rows without a label dropped" in task.notes


def test_minus_one_is_a_class_where_training_has_it(tmp_path):
    path = folder(tmp_path, train=TRAIN + "so so,-1\n", test="text,label\na,-1\nb,1\n")
    task = load_task(path)
    assert (task.label_names, task.split("test").labels) == (("-1", "0", "1"), (0, 2))
    (tmp_path / "test.csv").unlink()
    assert load_task(folder(tmp_path, train=TRAIN.replace(",0", ",None"))).label_names == ("1", "None")


@pytest.mark.parametrize("kind", ["regression", "embedding", "rerank"])
@pytest.mark.parametrize("drop", ["error", "drop"])
def test_minus_one_is_a_number_among_others(tmp_path, kind, drop):
    train = [0.5, -0.9, 1, 0.1, -0.25, 0.75] if kind != "rerank" else [0, 2, 1, 0, 3, 1]
    row = "a{0},b{1},{2}\n".format
    rows = "".join(row(number // 2, number, score) for number, score in enumerate(train))
    test = "".join(row(number // 2, number, score) for number, score in enumerate((-1, 0.5, "-1.0", 1)))
    header = "text,pair,score\n"
    path = folder(tmp_path, train=header + rows, test=header + test)
    task = load_task({"path": path, "kind": kind, "on_unlabelled": drop})
    assert not any("without a label" in note for note in task.notes)
    labels = task.split("test").labels
    assert sorted(label[1] if kind == "rerank" else label for label in labels) == [-1, -1, 0.5, 1]
    hidden = folder(tmp_path, test=header + row(0, 0, -1) + row(1, 1, -1))
    task = load_task({"path": hidden, "kind": kind, "on_unlabelled": "drop"})
    assert "test" not in task.splits


def test_other_splits_may_spell_a_label_differently(tmp_path):
    path = folder(tmp_path, train="text,label\na,up\nb,down\n", test="text,label\nc,Up\nd,DOWN \n")
    task = load_task(path)
    assert (task.label_names, task.split("test").labels) == (("down", "up"), (1, 0))
    assert "the labels 'Up' are read as 'up'" in task.notes


def test_tags_may_be_spelled_differently(tmp_path):
    rows = ["Oslo\tB-LOC\nis\to\nin\to\n", "Rome\tb-loc\nis\tO\n", "Bern\tB-LOC\n\nBonn\tB-LOC\nis\to\n"]
    (tmp_path / "train.conll").write_text("\n".join(rows))
    task = load_task(str(tmp_path))
    assert task.label_names == ("O", "B-LOC")
    labels = {text: tags for part in task.splits.values() for text, tags in zip(part.texts, part.labels, strict=True)}
    assert (labels["Oslo", "is", "in"], labels["Rome", "is"]) == ((1, 0, 0), (1, 0))
    assert {"the labels 'b-loc' are read as 'B-LOC'", "the labels 'o' are read as 'O'"} <= {*task.notes}
    task = load_task({"path": str(tmp_path), "label_names": ["O", "o", "B-LOC", "b-loc"]})
    assert task.label_names == ("O", "o", "B-LOC", "b-loc")


def test_names_and_their_order():
    assert [label_text(cell) for cell in (2, 2.0, "2.0", None, " ")] == ["2", "2", "2", None, None]
    assert sort_labels({"10", "9"}) == ("9", "10")
