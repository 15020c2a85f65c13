"""Texts without labels in the place of the training split."""

import json
from dataclasses import replace

import pytest

from limbeck.data.synthetic import toy_task
from limbeck.data.unlabeled import check_texts, divided, with_texts_of
from limbeck.errors import InputError


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_are_texts_and_what_is_held_out_stays_out(tmp_path):
    task = toy_task(train=8, validation=4, test=4)
    shown = task.split("test").texts[0]
    path = write(tmp_path, "more.txt", f"so sunny\n\n  {shown.upper()} \nso  Sunny\nquite, gray\n")
    unlabeled = with_texts_of(task, path)
    assert unlabeled.split("train").texts == ("so sunny", "quite, gray")
    assert unlabeled.split("test") == task.split("test")
    assert unlabeled.notes[-1] == "more.txt: 2 texts without labels; 1 text of the validation or test split left out"


@pytest.mark.parametrize("columns", [(), ("text",), ("1",)])
def test_a_column_of_a_table(tmp_path, columns):
    task = toy_task(train=8)
    path = write(tmp_path, "more.csv", "id,text\n1,so sunny\n2,quite gray\n")
    assert with_texts_of(task, path, columns).split("train").texts == ("so sunny", "quite gray")
    lines = "".join(json.dumps({"score": 1, "Text": text}) + "\n" for text in ("so sunny", "quite gray"))
    path = write(tmp_path, "more.jsonl", lines)
    assert with_texts_of(task, path).split("train").texts == ("so sunny", "quite gray")


@pytest.mark.parametrize("kind", ["classification", "pairs", "multilabel", "regression", "tokens"])
def test_every_kind_of_task_gets_rows_of_its_form(tmp_path, kind):
    task = toy_task(kind, train=8)
    path = write(tmp_path, "more.txt", "so sunny\tquite gray\n" if kind == "pairs" else "so sunny\n")
    before, unlabeled = task.split("train"), with_texts_of(task, path).split("train")
    assert type(unlabeled.texts[0]) is type(before.texts[0])
    assert type(unlabeled.labels[0]) is type(before.labels[0])
    assert (unlabeled.pairs is None) == (before.pairs is None)
    if kind == "tokens":
        assert unlabeled.texts == (("so", "sunny"),)
        assert unlabeled.labels == ((0, 0),)
    if kind == "pairs":
        assert (unlabeled.texts, unlabeled.pairs) == (("so sunny",), ("quite gray",))


def test_words_have_the_label_of_words_that_a_model_does_not_see(tmp_path):
    """Where only some words have answers, the others must not count as entities that were missed."""
    task = replace(toy_task("tokens", train=8), metric="accuracy")
    order = [*task.label_names[1:], "O"]
    moved = task.relabel(order, [order.index(name) for name in task.label_names])
    path = write(tmp_path, "more.txt", "so sunny\n")
    assert with_texts_of(moved, path).split("train").labels == ((len(order) - 1,) * 2,)


def test_a_word_may_hold_a_space(tmp_path):
    rows = [["Anna", "lives in", "New York"], ["Anna", "lives", "in", "", "Oslo"]]
    path = write(tmp_path, "more.jsonl", "".join(json.dumps({"words": row}) + "\n" for row in rows))
    words = with_texts_of(toy_task("tokens", train=8), path).split("train")
    assert words.texts == (("Anna", "lives in", "New York"), ("Anna", "lives", "in", "Oslo"))
    assert words.labels == ((0, 0, 0), (0, 0, 0, 0))
    assert with_texts_of(toy_task(train=8), path).split("train").texts == (
        "Anna lives in New York",
        "Anna lives in Oslo",
    )


@pytest.mark.parametrize(
    ("kind", "name", "text", "columns", "message"),
    [
        ("classification", "more.csv", "a,b\n1,so sunny\n", (), "it is unclear which 1 column to read"),
        (
            "classification",
            "more.csv",
            "a,text\n1,so sunny\n",
            ("c",),
            "there is no column 'c'; choose from 'a', 'text'",
        ),
        (
            "pairs",
            "more.csv",
            "a,b\nx,so sunny\n",
            ("a",),
            r"2 text columns needed, got unlabelled_columns: \['a'\]",
        ),
        ("pairs", "more.txt", "\nso sunny\n", (), "line 2: .* two texts separated by a tab, got 'so sunny'"),
        ("classification", "more.txt", "\n", (), "no texts are left of 0 rows"),
        ("classification", "more.doc", "x", (), "no reader for '.doc' files"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, kind, name, text, columns, message):
    path = write(tmp_path, name, text)
    with pytest.raises(InputError, match=message):
        with_texts_of(toy_task(kind, train=8), path, columns)


def test_a_file_that_is_not_there_is_told_with_the_one_that_may_be_meant(tmp_path):
    write(tmp_path, "more.txt", "so sunny\n")
    for name in ("mor.txt", "more.csv"):
        with pytest.raises(InputError, match=r"did you mean 'more.txt'\?"):
            check_texts(tmp_path / name)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(InputError, match="line 1: byte 0xe9 at position 4 of the line is not UTF-8"):
        with_texts_of(toy_task(train=8), tmp_path / "latin.txt")


def test_labeled_rows_and_those_that_a_teacher_labels(tmp_path):
    task = replace(toy_task(train=8), history=({"before": 5, "after": 8},))
    labeled, unlabeled = divided(task, None)
    assert labeled.split("train").texts == task.split("train").texts[:5]
    assert unlabeled is task
    _, unlabeled = divided(task, write(tmp_path, "more.txt", "so sunny\n"))
    assert unlabeled.split("train").texts == ("so sunny",)
