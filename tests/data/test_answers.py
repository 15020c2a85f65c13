from dataclasses import replace

import numpy as np

from limbeck.core.task import Split
from limbeck.data import answers as module
from limbeck.data.answers import answers
from limbeck.data.synthetic import toy_task


class Counting:
    """A source whose answer to a text is its length, and which counts what it is asked."""

    identity, probabilities, order_assumed, notes = "counting", False, False, ()

    def __init__(self):
        self.requests = []

    def lacks(self, task, split):
        return ""

    def answer(self, task, split):
        self.requests += task.split(split).texts
        return np.array([[len(text), 0.0] for text in task.split(split).texts], dtype=np.float32)


def test_answers_are_kept_and_an_augmented_task_asks_for_its_new_texts_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    task, source, folders = toy_task(train=20), Counting(), []

    def keep(name, build):
        folder = tmp_path / name
        if not folder.exists():
            folder.mkdir()
            build(folder)
            folders.append(name)
        return folder

    first = answers(source, None, task, "train", keep=keep)
    again = answers(source, None, task, "train", keep=keep)
    np.testing.assert_array_equal(first, again)
    assert first[:, 0].tolist() == [len(text) for text in task.split("train").texts]
    assert len(source.requests) == 20
    rows = task.split("train")
    entry = {"title": "more", "before": 20, "after": 22}
    more = replace(
        task,
        splits={"train": Split((*rows.texts, "new", "newer"), (*rows.labels, 0, 0))},
        history=(entry,),
    )
    answers(source, None, more, "train", keep=keep)
    assert source.requests[20:] == ["new", "newer"]
    answers(source, None, task, "train")  # nowhere to keep them
    assert len(source.requests) == 42
