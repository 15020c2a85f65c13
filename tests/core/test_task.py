"""The task value: fingerprint, limits, folders."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.judged_texts import Document, Example, Query, by_row
from limbeck.core.task import Split, Task, choose
from limbeck.data.loading import task_from_lists
from limbeck.data.synthetic import toy_task
from limbeck.errors import InputError

KINDS = ["classification", "pairs", "multilabel", "regression", "tokens"]


@pytest.fixture
def task():
    return toy_task(train=60, validation=20, test=20)


@pytest.mark.parametrize("kind", KINDS)
def test_folder_round_trip_is_exact(kind, tmp_path):
    task = replace(toy_task(kind, train=20, validation=5, test=5), notes=("train: 2 texts …",))
    back = Task.from_folder(task.to_folder(tmp_path / "task"))
    assert back == task
    assert back.notes == task.notes
    assert back.fingerprint == task.fingerprint
    assert back.splits == task.splits


def test_history_survives_and_is_no_part_of_the_value(task, tmp_path):
    entry = {"title": "More", "counts": {"new": 3}, "samples": [{"original": "a", "new": "b"}]}
    grown = replace(task, history=(entry,))
    assert grown == task
    assert hash(grown) == hash(task)
    assert grown.fingerprint == task.fingerprint
    assert grown.limit(train=5).history == (entry,)
    assert Task.from_folder(grown.to_folder(tmp_path / "new")).history == (entry,)
    folder = task.to_folder(tmp_path / "old")
    head = json.loads((folder / "task.json").read_text())
    del head["history"]  # as it was written before tasks had one
    (folder / "task.json").write_text(json.dumps(head))
    assert Task.from_folder(folder).history == ()


def test_whose_answers_the_labels_are_survives_and_is_no_part_of_the_value(task, tmp_path):
    answered = replace(task, answered_by="my-model")
    assert answered == task
    assert answered.fingerprint == task.fingerprint
    assert Task.from_folder(answered.to_folder(tmp_path / "task")).answered_by == "my-model"
    assert answered.limit(train=5).answered_by == "my-model"


def test_former_names_of_labels_survive(task, tmp_path):
    renamed = task.relabel([f"new {name}" for name in task.label_names], range(task.num_labels))
    assert Task.from_folder(renamed.to_folder(tmp_path / "task")).former_names == task.label_names


def test_folder_is_plain_and_deterministic(task, tmp_path):
    first, second = task.to_folder(tmp_path / "a"), task.to_folder(tmp_path / "b")
    names = sorted(each.name for each in first.iterdir())
    assert names == ["task.json", "test.jsonl", "train.jsonl", "validation.jsonl"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_strange_characters_survive_a_folder(tmp_path):
    texts = ["a\u2028b", 'tab\tquote"', "é 漢 🙂", "line\nbreak", "\x85 x \x00"]
    task = task_from_lists("odd", train=(texts, [0, 1, 0, 1, 0]), validation=(texts, [0, 1, 0, 1, 0]))
    assert Task.from_folder(task.to_folder(tmp_path)).split("train").texts == task.split("train").texts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "task.json").unlink(), "task.json is missing"),
        (lambda folder: (folder / "test.jsonl").unlink(), "test.jsonl is missing"),
        (lambda folder: (folder / "task.json").write_text("{"), "no readable task folder"),
        (lambda folder: (folder / "task.json").write_text("{}"), "'format'"),
        (lambda folder: (folder / "task.json").write_text('{"format": 99}'), "format 99"),
        (
            lambda folder: (folder / "test.jsonl").write_text('{"text": "new", "label": 0}\n'),
            "changed after they were written",
        ),
    ],
)
def test_a_damaged_folder_is_refused(task, tmp_path, change, message):
    change(task.to_folder(tmp_path))
    with pytest.raises(InputError, match=message):
        Task.from_folder(tmp_path)


def test_fingerprint_covers_all_that_changes_a_result(task):
    train = task.split("train")
    other_text = {**task.splits, "train": Split(("new", *train.texts[1:]), train.labels)}
    flipped = (1 - min(1, train.labels[0]), *train.labels[1:])
    changes = [
        {"metric": "macro_f1"},
        {"max_length": 31},
        {"label_names": ("a", "b", "c")},
        {"splits": other_text},
        {"splits": {**task.splits, "train": Split(train.texts, flipped)}},
        {"splits": {"train": train}},
        {"splits": {**task.splits, "train": Split(train.texts, train.labels, train.texts)}},
    ]
    prints = {replace(task, **change).fingerprint for change in changes}
    assert len(prints | {task.fingerprint}) == len(changes) + 1
    assert replace(task, notes=("something",), name="other").fingerprint == task.fingerprint
    assert replace(task, notes=("something",)) == task


def test_fingerprint_is_golden():
    assert toy_task(train=4, validation=2, test=2).fingerprint == "e5b03553ad6e6f4b"


def test_a_missing_split_names_those_there_are(task):
    with pytest.raises(InputError, match=r"no split 'tset'; did you mean 'test'\?"):
        task.split("tset")


@pytest.mark.parametrize(
    ("kind", "outputs", "problem"),
    [
        ("classification", 3, "single_label_classification"),
        ("multilabel", 2, "multi_label_classification"),
        ("regression", 1, "regression"),
        ("tokens", 3, "single_label_classification"),
    ],
)
def test_width_and_problem_type(kind, outputs, problem):
    task = toy_task(kind, train=4)
    assert (task.num_labels, task.problem_type) == (outputs, problem)


def test_task_can_be_hashed_and_pickled(task):
    assert pickle.loads(pickle.dumps(task)) == task
    assert len({task, replace(task, notes=("x",))}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_limit_keeps_order_and_is_deterministic(kind):
    task = toy_task(kind, train=50)
    small = task.limit(seed=1, train=12)
    assert small == task.limit(seed=1, train=12)
    assert small != task.limit(seed=2, train=12)
    rows, limited = task.split("train").to_rows(), small.split("train").to_rows()
    assert len(limited) == 12
    remaining = iter(rows)
    assert all(any(row == other for other in remaining) for row in limited)
    assert small.split("test") == task.split("test")
    assert small.notes == ("train: limited to 12 of 50 rows (seed 1)",)


def test_limit_keeps_the_share_of_every_class():
    labels = [0] * 700 + [1] * 290 + [2] * 10
    chosen = Counter(labels[row] for row in choose(labels, 100, 0, stratified=True))
    assert chosen == {0: 70, 1: 29, 2: 1}
    assert Counter(labels[row] for row in choose(labels, 3, 0, stratified=True)) == {0: 1, 1: 1, 2: 1}
    assert len(choose(labels, 2, 0, stratified=True)) == 2
    assert choose(labels, 5000, 0, stratified=True) == list(range(1000))


def test_a_smaller_limit_keeps_a_subset():
    labels = [row % 3 for row in range(300)]
    assert set(choose(labels, 30, 7, stratified=True)) < set(choose(labels, 90, 7, stratified=True))


def searching(documents=30, queries=10):
    """A search whose documents and queries are mixed."""
    labels = [Document(number) for number in range(documents)]
    labels += [Query(((number, 1.0), (number + 1, 2.0))) for number in range(queries)]
    labels = labels[::3] + labels[1::3] + labels[2::3]
    return Split(tuple(f"text {label}" for label in labels), tuple(labels))


def probing(learned=8, answered=30):
    labels = [Example(row % 2, True) for row in range(learned)]
    labels += [Example(int(row % 3 > 0), False) for row in range(answered)]
    return Split(tuple(map(str, range(len(labels)))), tuple(labels))


@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_limited_search_keeps_all_documents(count):
    split = searching()
    task = Task("s", "embedding", {"test": split}, (), "ndcg_at_10")
    small = task.limit(test=count).split("test")
    order = [split.texts.index(text) for text in small.texts]
    assert order == sorted(order)
    assert sum(isinstance(label, Document) for label in small.labels) == 30
    assert sum(isinstance(label, Query) for label in small.labels) == count
    assert set(small.texts) <= set(task.limit(test=count + 1).split("test").texts)
    # the queries that are left have the values that they have among all
    vectors = np.random.default_rng(0).normal(size=(40, 4))
    whole = dict(zip(queries_of(split), by_row("ndcg_at_10", vectors, split.labels), strict=True))
    values = by_row("ndcg_at_10", vectors[order], small.labels)
    assert values.tolist() == pytest.approx([whole[text] for text in queries_of(small)])


def queries_of(split):
    return [text for text, label in zip(split.texts, split.labels, strict=True) if isinstance(label, Query)]


def test_a_limited_probe_keeps_what_it_learns_from_and_the_share_of_every_class():
    task = Task("p", "embedding", {"test": probing()}, (), "probe_accuracy")
    small = task.limit(test=6).split("test")
    assert small.labels[:8] == task.split("test").labels[:8]
    assert sorted(label.label for label in small.labels[8:]) == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("split", [searching(), probing()])
def test_a_limit_beyond_the_queries_changes_nothing(split):
    task = Task("s", "embedding", {"test": split}, (), "ndcg_at_10")
    assert task.limit(test=30) == task
    assert task.limit(test=30).notes == ()


def test_limit_beyond_the_rows_changes_nothing(task):
    assert task.limit(train=10_000) == task
    assert task.limit(train=10_000).notes == ()


@pytest.mark.parametrize("rows", [{"trian": 5}, {"train": 0}, {"train": 2.5}, {"train": True}])
def test_bad_limits(task, rows):
    with pytest.raises(InputError, match="train"):
        task.limit(**rows)


def test_score_of_a_task():
    task = toy_task(train=4)
    assert task.score([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5]], [0, 2]) == 0.5


def test_pairs_may_all_have_the_same_score():
    alike = toy_task("embedding", train=4)
    same = replace(alike.split("train"), labels=(0.5,) * 4)
    assert alike.only_score is None
    assert replace(alike, splits={**alike.splits, "train": same}).only_score == 0.5
    vectors = replace(same, labels=((0.1, 0.2),) * 4, pairs=None)
    assert replace(alike, splits={"train": vectors}).only_score is None
    assert replace(alike, splits={"test": same}).only_score is None
    numbers = replace(same, pairs=None)
    assert replace(toy_task("regression", train=4), splits={"train": numbers}).only_score is None


def test_torch_is_not_imported():
    code = (
        "import sys, limbeck.data.loading, limbeck.data.synthetic; limbeck.data.loading.check_task('movie-reviews');"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'sklearn', 'scipy', 'pyarrow'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_json_head_is_readable(task, tmp_path):
    head = json.loads((task.to_folder(tmp_path) / "task.json").read_text())
    assert head["rows"] == {"train": 60, "validation": 20, "test": 20}
    assert head["fingerprint"] == task.fingerprint


def test_rows_made_by_augmentation_do_not_count_as_labeled():
    task = toy_task(train=8)
    assert task.labeled_rows == 8
    grown = replace(task, history=({"title": "other"}, {"before": 5, "after": 6}, {"before": 6, "after": 8}))
    assert grown.labeled_rows == 5
    assert grown.limit(train=7).labeled_rows == 7  # the split was changed since


def test_a_task_is_shown_in_a_line():
    task = toy_task(train=9, validation=3)
    shown = repr(task)
    assert len(shown) < 200
    assert "3 labels, 9 train, 3 validation" in shown
    assert repr(task.split("train")) == "Split(9 texts)"
