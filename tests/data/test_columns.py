"""Tables are read as they are meant, and asked about where they can be read in two ways."""

from __future__ import annotations

import csv
import json
import random

import pytest

from limbeck.data.loading import load_task
from limbeck.data.summary import summarize
from limbeck.errors import InputError

WORDS = [
    "the",
    "plot",
    "was",
    "slow",
    "but",
    "nobody",
    "minded",
    "its",
    "long",
    "quiet",
    "ending",
    "with",
    "warm",
    "music",
]


def sentence(row):
    return " ".join(random.Random(row).choices(WORDS, k=8))


def load(folder, header, row, rows=24, **options):
    """The task of a CSV file with these rows."""
    path = folder / "mine.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow(header.split(","))
        writer.writerows(row(number) for number in range(rows))
    return load_task({"path": str(path), **options})


def roles(task):
    columns = task.columns
    return columns.text, columns.pair, columns.label, columns.unread, task.kind


READ = {  # header, row, (text, pair, label, unread, kind)
    "an id": ("id,remark,angry", lambda n: (f"x{n}", sentence(n), n % 2), ("remark", None, ("angry",), ("id",))),
    "pandas' index": (",text,label", lambda n: (n, sentence(n), "ab"[n % 2]), ("text", None, ("label",), ("",))),
    "numbered": (",0,1", lambda n: (n, sentence(n), "ab"[n % 2]), ("0", None, ("1",), ("",))),
    "row numbers": ("", lambda n: (n, sentence(n), "ab"[n % 2]), ("1", None, ("2",), ("0",))),
    "label first": ("", lambda n: (n % 2 + 1, sentence(n)), ("1", None, ("0",), ())),
    "label first, named": ("mood,remark", lambda n: ("ab"[n % 2], sentence(n)), ("remark", None, ("mood",), ())),
    "a lone label": ("text,intent_id", lambda n: (sentence(n), n % 3), ("text", None, ("intent_id",), ())),
    "other columns": (
        "text,date,author,label",
        lambda n: (sentence(n), f"2020-01-{n + 1:02}", f"Ann Lee{n}", "ab"[n % 2]),
        ("text", None, ("label",), ("date", "author")),
    ),
    "a question and a passage": (
        "question,passage,label",
        lambda n: (sentence(n), sentence(n + 50), n % 2),
        ("question", "passage", ("label",), ()),
    ),
    "a title": ("title,body,label", lambda n: (f"T {n}", sentence(n), n % 2), ("title", "body", ("label",), ())),
    "two texts without names": (
        "",
        lambda n: (n % 2, sentence(n), sentence(n + 50)),
        ("1", "2", ("0",), ()),
    ),
    "a question and its class": (
        "question,answer",
        lambda n: (sentence(n), ("yes", "no")[n % 2]),
        ("question", None, ("answer",), ()),
    ),
    "a class beside a column of 0 and 1": (
        "text,verified,category",
        lambda n: (sentence(n), n % 2, "abc"[n % 3]),
        ("text", None, ("category",), ("verified",)),
    ),
    "label, beside other columns of 0 and 1": (
        "text,verified,label",
        lambda n: (sentence(n), n % 3 // 2, n % 2),
        ("text", None, ("label",), ("verified",)),
    ),
    "both kinds of names": (
        "text,label,label_text",
        lambda n: (sentence(n), n % 2, "ab"[n % 2]),
        ("text", None, ("label",), ("label_text",)),
    ),
}


@pytest.mark.parametrize("case", READ)
def test_columns_are_found(tmp_path, case):
    header, row, expected = READ[case]
    assert roles(load(tmp_path, header, row)) == (*expected, "classification")


PAIRS = {"kind": "embedding", "text": "anchor", "pair": "positive"}


@pytest.mark.parametrize(
    ("header", "row", "options", "expected"),
    [
        ("anchor,positive", (), PAIRS, ("anchor", "positive", (), ())),
        ("anchor,positive,negative", (sentence(99),), PAIRS, ("anchor", "positive", (), ("negative",))),
        ("query,passage", (), {"kind": "embedding"}, ("query", "passage", (), ())),
        ("", (), {"kind": "embedding", "text": 0, "pair": 1}, ("0", "1", (), ())),
        ("anchor,positive,alike", (0.5,), PAIRS, ("anchor", "positive", ("alike",), ())),
    ],
)
def test_pairs_for_vectors_need_no_scores(tmp_path, header, row, options, expected):
    task = load(tmp_path, header, lambda n: (sentence(n), sentence(n + 50), *row), **options)
    assert roles(task) == (*expected, "embedding")
    score = 1.0 if not expected[2] else 0.5
    assert {label for split in task.splits.values() for label in split.labels} == {score}
    assert task.only_score == score
    assert any("no column has scores, so all pairs have 1" in note for note in task.notes) == (not expected[2])
    assert ("no scores" in summarize(task).lines()[1]) == (not expected[2])


@pytest.mark.parametrize("kind", ["regression", "classification", "rerank"])
def test_pairs_of_other_kinds_need_a_label(tmp_path, kind):
    with pytest.raises(InputError, match="text and label need a column each"):
        load(tmp_path, "anchor,positive", lambda n: (sentence(n), sentence(n + 50)), **{**PAIRS, "kind": kind})


def test_scores_that_are_no_numbers_are_still_refused(tmp_path):
    with pytest.raises(InputError, match="the label should be a finite number"):
        load(tmp_path, "anchor,positive,score", lambda n: (sentence(n), sentence(n + 50), "high"), **PAIRS)


def test_one_column_for_each_label(tmp_path):
    row = lambda n: (f"r{n}", sentence(n), n % 2, int(n % 3 == 0), 0)  # noqa: E731
    task = load(tmp_path, "id,text,rude,false_claim,spam", row)
    assert roles(task) == ("text", None, ("rude", "false_claim", "spam"), ("id",), "multilabel")
    assert task.label_names == ("rude", "false_claim", "spam")
    assert task.split("train").labels[:2] == ((0, 1, 0), (1, 0, 0))
    two = load(tmp_path, "id,text,rude,false_claim,spam", row, label=["spam", "rude"])
    assert (two.label_names, two.split("train").labels[1]) == (("spam", "rude"), (0, 1))
    task = load(tmp_path, "id,text,rude,false_claim,spam", row, label="rude")
    assert (task.kind, task.columns.unread) == ("classification", ("id", "false_claim", "spam"))


@pytest.mark.parametrize("names", [None, ["x", "y", "z"]])
def test_vectors_are_no_sets_of_names(tmp_path, names):
    rows = [{"text": sentence(n), "labels": [n % 2, 1, int(n % 3 == 0)]} for n in range(12)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task({"path": str(path), "label_names": names})
    assert (task.kind, task.label_names) == ("multilabel", tuple(names or "012"))
    assert task.split("train").labels[:2] == ((0, 1, 1), (1, 1, 0))
    with pytest.raises(InputError, match="a vector of 3 elements for 2 labels"):
        load_task({"path": str(path), "label_names": ["x", "y"]})
    path.write_text(path.read_text() + '{"text": "more", "labels": [1, 0]}\n')
    assert load_task(str(path)).label_names == ("0", "1")  # of several lengths: lists of names


def load_vectors(folder, vector, **options):
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps({"text": sentence(n), "labels": vector(n)}) + "\n" for n in range(12)))
    return load_task({"path": str(path), **options})


def test_digits_as_text_are_vectors_too(tmp_path):
    task = load_vectors(tmp_path, lambda n: [str(n % 2), "1", "0"])
    assert (task.kind, task.split("train").labels[:2]) == ("multilabel", ((0, 1, 0), (1, 1, 0)))


def test_a_vector_of_minus_one_is_a_row_without_a_label(tmp_path):
    hidden = lambda n: [-1, -1, -1] if n == 3 else [n % 2, 1, 0]  # noqa: E731
    with pytest.raises(InputError, match=r"line 4: the label is empty or missing.*1 of 12 rows has no label"):
        load_vectors(tmp_path, hidden)
    task = load_vectors(tmp_path, hidden, on_unlabelled="drop")
    assert (task.kind, task.label_names) == ("multilabel", ("0", "1", "2"))
    one_hot = lambda n: [-1, -1] if n == 3 else [n % 2, 1 - n % 2]  # noqa: E731
    with pytest.raises(InputError, match="every row has exactly one 1"):
        load_vectors(tmp_path, one_hot, on_unlabelled="drop")


@pytest.mark.parametrize("kind", [None, "multilabel", "classification"])
def test_fractions_are_no_labels(tmp_path, kind):
    with pytest.raises(InputError, match=r"line 6: the label should be a vector of 0 and 1, got \[0.5, 1.0\]"):
        load_vectors(tmp_path, lambda n: [0.5, 1.0] if n == 5 else [n % 2, 1], kind=kind)


@pytest.mark.parametrize("sign", [",", " ", "; "])
def test_vectors_without_brackets(tmp_path, sign):
    task = load(tmp_path, "text,labels", lambda n: (sentence(n), sign.join((str(n % 2), "1", "0"))))
    assert (task.kind, task.label_names) == ("multilabel", ("0", "1", "2"))
    assert task.split("train").labels[:2] == ((0, 1, 0), (1, 1, 0))
    numbers = load(tmp_path, "text,score", lambda n: (sentence(n), f"{n % 2},{n % 3 // 2}"))  # decimal commas
    assert numbers.kind == "regression"


def test_lists_that_are_text(tmp_path):
    task = load(tmp_path, "text,labels", lambda n: (sentence(n), [["a", "b"], ["b"], []][n % 3]))
    assert (task.kind, task.label_names) == ("multilabel", ("a", "b"))
    words = lambda n: ("['Oslo' 'sleeps']", '["B-LOC", "O"]')  # noqa: E731
    task = load(tmp_path, "tokens,ner_tags", words)
    assert (task.kind, task.split("train").texts[0]) == ("tokens", ("Oslo", "sleeps"))
    task = load(tmp_path, "text,labels", lambda n: (sentence(n), f"[{n % 2} {n % 3 // 2} 1]"))
    assert (task.kind, task.label_names) == ("multilabel", ("0", "1", "2"))
    task = load(tmp_path, "text,label", lambda n: (f"[{n}] {sentence(n)}", n % 2))
    assert task.kind == "classification"


AMBIGUOUS = {  # header, row, options, both readings
    "two texts": (
        "headline,lead,label",
        lambda n: (sentence(n), sentence(n + 50), n % 2),
        ["text: headline ", "text: lead ", "text: headline, pair: lead", "--task-set text=headline --task-set pair=l"],
    ),
    "two labels": (
        "text,stars,country",
        lambda n: (sentence(n), n % 5, "abc"[n % 3]),
        ["label: stars", "label: country", "the first row: country 'a'", "--task-set label=country"],
    ),
    "two named labels": (
        "text,category,sentiment",
        lambda n: (sentence(n), "xyz"[n % 3], "pq"[n % 2]),
        ["label: category", "label: sentiment"],
    ),
    "columns of 0 and 1 beside a class": (
        "text,rude,spam,topic",
        lambda n: (sentence(n), n % 2, n % 3 // 2, "abc"[n % 3]),
        ["label: [rude, spam]", "label: topic"],
    ),
    "columns of 0 and 1, one of them with a label's name": (
        "text,price,delivery,sentiment",
        lambda n: (sentence(n), n % 2, n % 3 // 2, n % 5 // 3),
        ["label: [price, delivery, sentiment]", "label: sentiment"],
    ),
    "columns of 0 and 1, two of them with a label's name": (
        "text,intent,score",
        lambda n: (sentence(n), n % 2, n % 3 // 2),
        ["label: [intent, score]", "label: intent", "label: score"],
    ),
    "exactly one of each": (
        "text,up,down",
        lambda n: (sentence(n), n % 2, 1 - n % 2),
        ["exactly one 1", "kind: classification", "kind: multilabel", "--task-set kind=multilabel"],
    ),
    "counted numbers": (
        "text,score",
        lambda n: (sentence(n), n),
        ["24 different whole numbers in 24 rows", "kind: regression", "kind: classification"],
    ),
    "joined labels": (
        "text,labels",
        lambda n: (sentence(n), ["a", "b", "a|b"][n % 3]),
        ['label_separator: "|"', "kind: classification"],
    ),
    "thousands or decimals": (
        "text,price",
        lambda n: (sentence(n), f"1,{100 + n}"),
        ["thousands or decimals, got '1,1"],
    ),
    "titles of two texts": (
        "title,body,text,label",
        lambda n: (sentence(n), sentence(n + 30), sentence(n + 60), n % 2),
        ["text: title, pair: text", "text: title, pair: body"],
    ),
    "no text": ("size,label", lambda n: (f"{n * 7 % 11}.5", "ab"[n % 2]), ["no column looks like texts", "text=NAME"]),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_two_readings_are_both_shown(tmp_path, case):
    header, row, parts = AMBIGUOUS[case]
    with pytest.raises(InputError) as caught:
        load(tmp_path, header, row)
    for part in ["mine.csv", *parts]:
        assert part in str(caught.value)


def test_the_options_shown_choose_the_reading(tmp_path):
    two = ("headline,lead,label", lambda n: (sentence(n), sentence(n + 50), n % 2))
    assert load(tmp_path, *two, text="lead").split("train").texts[0] == sentence(50)
    assert load(tmp_path, *two, text="headline", pair="lead").split("train").pairs[0] == sentence(50)
    one_hot = ("text,up,down", lambda n: (sentence(n), n % 2, 1 - n % 2))
    task = load(tmp_path, *one_hot, kind="classification")
    assert (task.label_names, task.split("train").labels[:2]) == (("up", "down"), (1, 0))
    assert load(tmp_path, *one_hot, kind="multilabel").split("train").labels[0] == (0, 1)
    counted = ("text,score", lambda n: (sentence(n), n))
    assert load(tmp_path, *counted, kind="regression").label_names == ()
    joined = ("text,labels", lambda n: (sentence(n), ["a", "b", "a|b"][n % 3]))
    assert load(tmp_path, *joined, label_separator="|").label_names == ("a", "b")
    assert load(tmp_path, *joined, kind="classification").label_names == ("a", "a|b", "b")


@pytest.mark.parametrize(
    ("value", "first"),
    [
        (lambda n: n * 3, 0.0),
        (lambda n: f"{n / 8:.3f}".replace(".", ","), 0.0),
        (lambda n: f"{n}.5%", 0.5),
        (lambda n: f"{n},{n % 10}99.5", 99.5),
    ],
)
def test_numbers_make_a_regression(tmp_path, value, first):
    task = load(tmp_path, "text,score", lambda n: (sentence(n), value(n)))
    assert (task.kind, task.split("train").labels[0]) == ("regression", first)


def test_whole_numbers_that_come_back_are_classes(tmp_path):
    task = load(tmp_path, "text,label", lambda n: (sentence(n), n % 15), rows=60)
    assert (task.kind, len(task.label_names)) == ("classification", 15)


SPELLINGS = [
    (["Up", "up", "down", "down "], ("down", "up")),
    (["TRUE", "true", "False", "False"], ("False", "true")),
    (["very good", "Very  good", "bad", "bad"], ("bad", "very good")),
]


@pytest.mark.parametrize(("cells", "names"), SPELLINGS)
def test_spellings_of_a_label_are_one(tmp_path, cells, names):
    task = load(tmp_path, "text,label", lambda n: (sentence(n), cells[n % 4]))
    assert len(task.label_names) == 2
    assert any("read as" in note for note in task.notes) == (len(set(map(str.strip, cells))) > 2)
    assert {name.casefold() for name in task.label_names} == {name.casefold() for name in names}


def test_names_that_are_given_stay_apart(tmp_path):
    cells = ("text,label", lambda n: (sentence(n), ["US", "us", "de"][n % 3]))
    assert load(tmp_path, *cells, label_names=["US", "us", "de"]).label_names == ("US", "us", "de")


def test_sentences_under_any_name(tmp_path):
    sentences = "# sent_id = 1\n1\tBerlin\tB-LOC\tO\n2\tsleeps\tO\tO\n\n1\tHere\tO\tO\n\n" * 3
    for name in ("a.tsv", "a.txt", "a.conll", "a.conllu"):
        (tmp_path / name).write_text(sentences)
        task = load_task(str(tmp_path / name))
        assert (task.kind, task.split("train").texts[0]) == ("tokens", ("Berlin", "sleeps"))
        assert task.label_names == ("O", "B-LOC")


def test_words_without_tags_can_be_a_table(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("good\tup\nbad\tdown\n\nfine\tup\npoor\tdown\n")
    assert load_task(str(path)).kind == "tokens"
    assert load_task({"path": str(path), "kind": "classification"}).label_names == ("down", "up")
