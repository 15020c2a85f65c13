"""What was read, in words and as data."""

from __future__ import annotations

import json

from limbeck.data.loading import load_task, task_from_lists
from limbeck.data.summary import SAMPLE, summarize
from limbeck.data.synthetic import toy_task


def count(texts, pairs):
    """Words of a text and its pair, and two more."""
    rows = zip(texts, pairs or ("",) * len(texts), strict=True)
    return [2 + len(text.split() if isinstance(text, str) else text) + len(pair.split()) for text, pair in rows]


def test_columns_classes_and_what_is_not_read(tmp_path):
    rows = "".join(f"{n},text number {n} of these,{'abc'[min(n % 7, 2)]},x{n}\n" for n in range(28))
    (tmp_path / "a.csv").write_text("id,text,label,source\n" + rows)
    lines = summarize(load_task(str(tmp_path / "a.csv"))).lines()
    assert lines[0] == "data: a"
    assert lines[1] == (
        "  text: 'text', label: 'label', not read: 'id', 'source'; classification (3 classes), metric accuracy"
    )
    assert lines[2].startswith("  rows: 25 train, 3 validation")
    assert lines[3].startswith("  rows in train: 'c' ")
    assert any("there is no validation split" in line for line in lines)


def test_texts_that_are_cut():
    texts = ["one two three four", "one", "one two three four five six seven"]
    task = task_from_lists("x", train=(texts, [0, 1, 0]), validation=(texts, [0, 1, 0]), max_length=5)
    (train, _) = summarize(task, count).truncation
    assert (train.cut, train.counted, train.tokens, train.lost) == (2, 3, 18, 5)
    text = "\n".join(summarize(task, count, ["validation"]).lines())
    assert "longer than 5 tokens and cut: validation: 2 of 3 texts (66.7 %), 27.8 % of their tokens" in text
    many = task_from_lists("x", train=(["a b"] * 5000, [0, 1] * 2500), validation=(texts, [0, 1, 0]))
    summary = summarize(many, count).truncation[0]
    assert summary.counted <= SAMPLE
    assert f"none of a sample of {summary.counted:,} texts" in str(summary)


def test_every_kind_of_task():
    for kind, part in (
        ("classification", "classes"),
        ("pairs", "pair: 'pair'"),
        ("multilabel", "labels)"),
        ("regression", "on average"),
        ("tokens", "words in train"),
    ):
        task = toy_task(kind)
        summary = summarize(task, count)
        json.dumps(summary.to_json())
        columns = summary if task.columns else None
        assert (part in "\n".join(summary.lines())) or columns is None or kind == "pairs"
