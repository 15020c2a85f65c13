from __future__ import annotations

from dataclasses import replace

import pytest

from limbeck.augmentation.label_filter import LabelFilter
from limbeck.augmentation.pipeline import AugmentationPipeline, format_label, rows_of
from limbeck.augmentation.transforms import NGram, Substitute, text_key
from limbeck.core.task import Split, Task
from limbeck.data.synthetic import toy_task

KINDS = ("classification", "pairs", "multilabel", "regression", "tokens")


def pipeline(task, scratch, rule=None, **options):
    scratch.mkdir(exist_ok=True)
    settings = {"count": 4, "seed": 0, "chunk_rows": 5, **options}
    return AugmentationPipeline(task, lambda: (rule or NGram(), lambda rows: rows), scratch=scratch, **settings)


def rows_with_labels(split):
    return list(zip(split.texts, split.pairs or split.texts, split.labels, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_originals_stay_and_new_rows_have_their_labels(kind, tmp_path):
    task = toy_task(kind, train=12, validation=8, test=8)
    grown = pipeline(task, tmp_path / "a").run(title="More")
    train, old = grown.split("train"), task.split("train")
    assert rows_with_labels(train)[:12] == rows_with_labels(old)
    assert len(train) > 24
    assert {name: grown.split(name) for name in ("validation", "test")} == {
        name: task.split(name) for name in ("validation", "test")
    }
    assert set(train.labels) <= set(old.labels)
    keys = [text_key(row.text, row.pair) for row in rows_of(train)][12:]
    assert len(keys) == len(set(keys))
    if kind == "tokens":
        assert all(len(text) == len(label) for text, label in zip(train.texts, train.labels, strict=True))
    assert grown.fingerprint != task.fingerprint
    grown.to_folder(tmp_path / "task")
    assert Task.from_folder(tmp_path / "task") == grown
    assert Task.from_folder(tmp_path / "task").history == grown.history


@pytest.mark.parametrize("changes", [{"chunk_rows": 1}, {"chunk_rows": 50}, {"workers": 2}])
def test_chunks_and_processes_change_nothing(changes, tmp_path):
    task = toy_task(train=12)
    expected = pipeline(task, tmp_path / "a").run()
    augmented = pipeline(task, tmp_path / "b", **changes).run()
    assert augmented == expected
    assert augmented.history == expected.history
    assert pipeline(task, tmp_path / "c", seed=1).run() != expected


class Killed(Exception):
    pass


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    task, expected = toy_task(train=23), pipeline(toy_task(train=23), tmp_path / "whole").run()
    progress = []

    def dies(message, **numbers):
        progress.append(numbers)
        if numbers.get("step") == 3:
            raise Killed

    with pytest.raises(Killed):
        pipeline(task, tmp_path / "part", log=dies).run()
    assert len(list((tmp_path / "part").iterdir())) == 3
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "part").iterdir()}
    lines = []
    resumed = pipeline(task, tmp_path / "part", log=lambda message, **numbers: lines.append(message)).run()
    assert resumed == expected
    assert resumed.history == expected.history
    assert lines[0] == "resumed: 3 of 5 chunks were drawn already"
    assert all((tmp_path / "part" / name).stat().st_mtime_ns == time for name, time in times.items())
    nothing_left = replace(pipeline(task, tmp_path / "part"), prepare=lambda: pytest.fail("prepared for nothing"))
    assert nothing_left.run() == expected


def test_texts_of_validation_and_test_never_come_out(tmp_path):
    """The only change possible gives the validation text (in other case), or the first text of test."""
    train = Split(("a good film", "a bad film", "an old film"), (1, 0, 0))
    held_out = {"validation": Split(("A  nice film",), (1,)), "test": Split(("a sad film", "an old film"), (0, 0))}
    task = Task("t", "classification", {"train": train, **held_out}, ("n", "p"), "accuracy")
    candidates = {"good": ("nice",), "bad": ("sad", "poor"), "old": ("new",)}

    def noted(rows):
        return [row._replace(notes=([candidates.get(word, ()) for word in row.text.split()],)) for row in rows]

    augmented = replace(pipeline(task, tmp_path, count=30), prepare=lambda: (Substitute(0.5), noted)).run()
    assert set(augmented.split("train").texts) == {*train.texts, "a poor film"}  # "an old film" is not multiplied
    (entry,) = augmented.history
    counts = entry["counts"]
    assert counts["left out, for they stand in validation or test"] >= 2
    assert counts["originals kept but not rewritten, for they stand in validation or test"] == 1
    assert counts["new texts kept"] == 1
    sums = ["duplicates left out", "left out, for they stand in validation or test", "new texts kept"]
    assert counts["samples drawn"] == 60 == sum(counts[name] for name in sums)


class Objects(LabelFilter):
    """Objects to every second row."""

    def review(self, task, rows):
        self.counts["read"] += len(rows)
        return [((label + 1) % 3, (label + index % 2) % 3) for index, label in enumerate(rows.labels)]


@pytest.mark.parametrize("guard", ["off", "drop", "relabel"])
def test_the_guard(guard, tmp_path):
    task = toy_task(train=10)
    free = pipeline(task, tmp_path / "free").run().split("train")
    label_filter = Objects(lambda: None, guard=guard)
    grown = pipeline(task, tmp_path / guard, label_filter=label_filter).run()
    augmented, counts = grown.split("train"), grown.history[0]["counts"]
    if guard == "drop":
        assert set(rows_with_labels(augmented)) < set(rows_with_labels(free))
        assert counts["dropped by the guard"] == len(free) - len(augmented) == counts["labels the teacher objected to"]
    else:
        assert augmented.texts == free.texts
        changed = sum(a != b for a, b in zip(augmented.labels, free.labels, strict=True))
        assert changed == counts["relabelled by the guard"] == (guard == "relabel") * label_filter.counts["flipped"]
    again = Objects(lambda: None, guard=guard)
    assert pipeline(task, tmp_path / guard, label_filter=again).run() == grown
    assert again.counts["read"] == 0  # its reviews were kept


def test_a_second_augmentation_works_on_the_originals(tmp_path):
    task = toy_task(train=10)
    once = pipeline(task, tmp_path / "a").run()
    twice = pipeline(once, tmp_path / "b", seed=5).run()
    assert task.labeled_rows == once.labeled_rows == twice.labeled_rows == 10
    assert twice.split("train").texts[: len(once.split("train"))] == once.split("train").texts
    assert [entry["counts"]["original texts"] for entry in twice.history] == [10, 10]
    same = pipeline(once, tmp_path / "c").run()
    assert same == once  # the same samples again: nothing is new, and the history says why
    assert same.labeled_rows == 10
    assert [entry["counts"]["new texts kept"] for entry in same.history] == [len(once.split("train")) - 10, 0]
    cut = once.limit(train=7)
    assert cut.history == once.history
    assert cut.labeled_rows == 7


def test_what_is_shown(tmp_path):
    task = toy_task("pairs", train=30)
    (entry,) = pipeline(task, tmp_path).run(title="More texts", summary="so").history
    assert list(entry)[:2] == ["title", "summary"]
    assert (entry["before"], entry["after"]) == (30, entry["counts"]["training texts now"])
    assert len(entry["samples"]) == 8
    sample = entry["samples"][0]
    assert sample["original"] == " / ".join((task.split("train").texts[0], task.split("train").pairs[0]))
    assert sample["label"] in ("sad", "happy")
    assert format_label(toy_task("regression", train=2), -0.5) == "-0.5"
    assert format_label(toy_task("multilabel", train=2), (1, 1)) == "sad, happy"
