"""What a caller in Python may give as a task."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pandas
import pytest

from limbeck.data.given import as_task, names_task
from limbeck.data.synthetic import toy_task
from limbeck.errors import InputError

TEXTS, LABELS = ["a fine day", "a bad day", "so good", "so poor"] * 6, ["up", "down", "up", "down"] * 6
NUMBERS = [int(label == "up") for label in LABELS]


def rows(task):
    return {
        (text, task.label_names[label])
        for split in task.splits.values()
        for text, label in zip(split.texts, split.labels, strict=True)
    }


def test_a_task_is_itself():
    task = toy_task(train=9)
    assert as_task(task) is task
    assert not names_task(task)


def test_a_path_and_options_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in zip(TEXTS, LABELS, strict=True)))
    for given in (path, str(path), {"path": str(path)}, {"train": str(path), "label_names": ["down", "up"]}):
        assert names_task(given)
        assert rows(as_task(given)) == set(zip(TEXTS, LABELS, strict=True))


FEATURES = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["down", "up"])})
DATASET = datasets.Dataset.from_dict({"text": TEXTS, "label": NUMBERS}, features=FEATURES)


@pytest.mark.parametrize(
    "given",
    [
        (TEXTS, LABELS),
        [TEXTS, np.array(LABELS)],
        {"train": (TEXTS, LABELS), "test": (TEXTS, LABELS), "max_length": 32},
        pandas.DataFrame({"text": TEXTS, "label": LABELS}),
        (pandas.Series(TEXTS), pandas.Series(LABELS)),
        DATASET,
        datasets.DatasetDict({"train": DATASET, "dev": DATASET}),
        {"train": DATASET, "metric": "accuracy"},
    ],
    ids=lambda given: type(given).__name__,
)
def test_rows_in_memory(given):
    task = as_task(given)
    assert not names_task(given)
    assert task.label_names == ("down", "up")
    assert "validation" in task.splits
    assert rows(task) == set(zip(TEXTS, LABELS, strict=True))


def test_arrays_of_a_row_are_vectors():
    vectors = [np.array([number, 1, 0]) for number in NUMBERS]
    task = as_task((TEXTS, vectors))
    assert task.kind == "multilabel"
    assert {label for split in task.splits.values() for label in split.labels} == {(0, 1, 0), (1, 1, 0)}


def test_options_stand_beside_rows():
    assert as_task({"train": (TEXTS, LABELS), "max_length": 32, "name": "days"}).max_length == 32
    assert as_task({"train": DATASET, "name": "days"}).name == "days"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "got int"),
        (DATASET.to_iterable_dataset(), "without streaming"),
        ({"train": (TEXTS, LABELS), "dev": (TEXTS, LABELS)}, "no split 'dev'"),
        ({"train": (TEXTS, LABELS), "test": DATASET}, "use one form for all"),
        ((TEXTS, LABELS[:3]), "different lengths"),
    ],
)
def test_anything_else_is_one_error(given, message):
    with pytest.raises(InputError, match=message):
        as_task(given)


@pytest.mark.parametrize(
    "given",
    [
        {"test": (TEXTS, ["up"] * len(TEXTS))},
        {"test": (TEXTS[:1], ["up"])},
        {"test": (TEXTS[:1], ["so it is"], [1.5]), "kind": "regression"},
        {"validation": pandas.DataFrame({"text": TEXTS[:2], "label": ["up", "up"]})},
        {"test": DATASET.select([0])},
        datasets.DatasetDict({"dev": DATASET.select([0, 2])}),
    ],
    ids=lambda given: type(given).__name__,
)
def test_rows_to_evaluate_on_need_neither_a_training_split_nor_two_labels(given):
    (split,) = as_task(given, evaluation=True).splits.values()
    value = next(value for key, value in given.items() if key != "kind")
    assert len(split) == len(value[0] if isinstance(value, tuple) else value)
    with pytest.raises(InputError, match=r"no (train split|split 'train')"):
        as_task(given)


def test_rows_to_evaluate_on_need_labels():
    hidden = datasets.Dataset.from_dict({"text": TEXTS[:2], "label": [-1, -1]})
    with pytest.raises(InputError, match="split with labels, only test"):
        as_task({"test": hidden}, evaluation=True)
