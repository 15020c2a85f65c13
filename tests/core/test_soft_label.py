"""Classes with the probabilities that a model gave."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from limbeck.core.soft_label import SoftLabel, distributions, has_probabilities
from limbeck.core.stored_labels import from_plain, to_plain
from limbeck.core.task import Split, Task
from limbeck.data.synthetic import toy_task

SOFT = SoftLabel(1, (0.1, 0.7, 0.2))


def test_it_is_the_index_to_whatever_reads_classes():
    labels = [SOFT, 0]
    assert np.asarray(labels).tolist() == [1, 0]
    assert torch.tensor(labels, dtype=torch.int64).tolist() == [1, 0]
    assert {SOFT: "x"}[1] == "x"
    assert json.dumps(labels) == "[1, 0]"
    assert has_probabilities(labels)
    assert not has_probabilities([0, 1])


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), lambda x: from_plain(to_plain(x))]
)
def test_copies_keep_the_probabilities(copied):
    again = copied(SOFT)
    assert again == SOFT
    assert again.probabilities == SOFT.probabilities


def test_distributions_sum_to_one():
    rows = distributions([SoftLabel(0, (0.333333, 0.333333, 0.333333)), SOFT, 2], 3)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(rows[1], SOFT.probabilities)
    assert rows[2].tolist() == [0, 0, 1]


def test_a_task_keeps_them_in_folders_under_other_names_and_in_its_fingerprint(tmp_path):
    task = toy_task(train=8, validation=8, test=8)
    rows = task.split("test")
    soft = Split(rows.texts, (SOFT, *rows.labels[1:]))
    answered = replace(task, splits={**task.splits, "test": soft})
    assert (
        answered.fingerprint
        != replace(task, splits={**task.splits, "test": Split(rows.texts, (1, *rows.labels[1:]))}).fingerprint
    )
    again = Task.from_folder(answered.to_folder(tmp_path / "task"))
    assert again.split("test").labels[0].probabilities == SOFT.probabilities
    renamed = answered.relabel(("c", "a", "b", "d"), [1, 2, 0]).split("test").labels[0]
    assert renamed == 2
    assert renamed.probabilities == (0.2, 0.1, 0.7, 0.0)
