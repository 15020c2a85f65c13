"""Cells, labels and splits: bad ones are refused with their place, odd ones are counted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from limbeck.data.loading import load_task, task_from_lists
from limbeck.errors import InputError

TRAIN = "text,label\ngood,up\nbad,down\nfine,up\n"
LISTS = "tokens,ner_tags\n" + "\"['Oslo', 'sleeps']\",\"['B-LOC', 'O']\"\n" * 3


def folder(tmp_path, **files):
    """Write files such as train_csv='…' and return their folder."""
    for name, content in files.items():
        path = tmp_path / name.replace("_", ".")
        path.write_text(content, encoding="utf-8")
    return str(tmp_path)


BAD = {  # file contents, options, message
    "missing column": ({"train_csv": TRAIN}, {"text": "txet"}, "no column 'txet'; did you mean 'text'"),
    "missing column, no header": (
        {"train_tsv": "a b\tx\nc d\ty\n"},
        {"label": "7"},
        "no column '7'; choose from '0', '1'; it was read without header",
    ),
    "column missing in test": (
        {"train_csv": TRAIN, "test_csv": "text,lable\na,up\n"},
        {},
        r"test.csv: there is no column 'label'; did you mean 'lable'",
    ),
    "same column twice": ({"train_csv": TRAIN}, {"text": "label", "label": "label"}, "a column each"),
    "one column": (
        {"train_csv": "text;label\ngood;up\nbad;down\n"},
        {},
        "need a column each; the columns are '0'; .*delimiter: \";\"",
    ),
    "unknown label": (
        {"train_csv": TRAIN, "test_csv": "text,label\ngood,up\nbad,dwon\n"},
        {},
        "test.csv, line 3: unknown label 'dwon', not among those of train; did you mean 'down'",
    ),
    "label not among those given": (
        {"train_csv": TRAIN},
        {"label_names": ["up", "sideways"]},
        "train.csv, line 3: unknown label 'down', not among the labels given",
    ),
    "empty text": (
        {"train_csv": TRAIN + "  ,up\n"},
        {},
        "line 5: the text in column 'text' is empty.*'drop' or 'keep'",
    ),
    "several empty texts": ({"train_csv": TRAIN + ",up\n,up\n"}, {}, r"line 5: .*\(2 such rows in all\)"),
    "empty pair": (
        {"train_csv": "premise,hypothesis,label\na,b,x\nc,,y\n"},
        {},
        "line 3: the text in column 'hypothesis' is empty",
    ),
    "nan as a word": ({"train_csv": TRAIN + "nan,up\n"}, {}, "line 5: .*says 'nan', as if a value were missing"),
    "null": (
        {"train_jsonl": '{"text": "a", "label": 0}\n{"text": null, "label": 1}\n'},
        {},
        "line 2: the text in column 'text' is empty, got None",
    ),
    "field left out": (
        {"train_jsonl": '{"text": "a", "label": 0}\n{"label": 1}\n'},
        {},
        "line 2: the text in column 'text' is empty, got None",
    ),
    "nan": (
        {"train_jsonl": '{"text": "a", "label": 0}\n{"text": NaN, "label": 1}\n'},
        {},
        "line 2: the text in column 'text' .*got nan",
    ),
    "number as text": (
        {"train_jsonl": '{"text": "a", "label": 0}\n{"text": 12, "label": 1}\n'},
        {},
        "line 2: column 'text' should be text, got 12 of type int",
    ),
    "half a pair": (
        {"train_jsonl": '{"text": "\\ud83d", "label": 0}\n{"text": "b", "label": 1}\n'},
        {},
        "line 1: .*half of a UTF-16 pair",
    ),
    "empty label": ({"train_csv": TRAIN + "so so, \n"}, {}, "line 5: the label is empty"),
    "list as a label": (
        {"train_jsonl": '{"text": "a", "label": [0]}\n{"text": "b", "label": [1]}\n'},
        {"kind": "classification"},
        "line 1: a label should be a word or a number",
    ),
    "one class": ({"train_csv": "text,label\na,up\nb,up\n"}, {}, "train.csv: all 2 rows have the same label 'up'"),
    "one row": ({"train_csv": "text,label\na,up\n"}, {}, "a single row"),
    "one value": (
        {"train_csv": "text,label\na,1.5\nb,1.5\n"},
        {},
        "all 2 rows have the same label '1.5'",
    ),
    "word as a number": (
        {"train_csv": "text,label\na,1.5\nb,high\n"},
        {"kind": "regression"},
        "line 3: the label should be a finite number, got 'high'; for names set kind: classification",
    ),
    "infinite number": (
        {"train_jsonl": '{"text": "a", "label": 0.5}\n{"text": "b", "label": Infinity}\n'},
        {"kind": "regression"},
        "line 2: the label should be a finite number, got inf",
    ),
    "no train split": ({"test_csv": TRAIN, "dev_csv": TRAIN}, {}, "no train split .*choose from 'dev.csv', 'test.csv'"),
    "misspelt train split": ({"trian_csv": TRAIN}, {}, "no train split.*did you mean 'trian.csv'"),
    "two validation splits": (
        {"train_csv": TRAIN, "dev_csv": TRAIN, "valid_tsv": TRAIN},
        {},
        "which one is the validation split, dev.csv or valid.tsv",
    ),
    "several labels in a string": (
        {"train_csv": "text,label\na,x|y\nb,y\n"},
        {"kind": "multilabel"},
        "line 2: several labels need a list, or set label_separator; got 'x|y'",
    ),
    "no labels at all": (
        {"train_jsonl": '{"text": "a", "label": []}\n{"text": "b", "label": []}\n'},
        {},
        "no row has any label",
    ),
    "fewer tags than words": (
        {"train_jsonl": '{"tokens": ["a", "b"], "tags": ["O", "X"]}\n{"tokens": ["a", "b"], "tags": ["O"]}\n'},
        {},
        "line 2: 2 words but 1 tags",
    ),
    "no list of words": (
        {"train_jsonl": '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": {"a": 1}, "tags": ["O"]}\n'},
        {},
        "line 2: column 'tokens' should be a list of words",
    ),
    "empty word": (
        {"train_jsonl": '{"tokens": ["a", " "], "tags": ["O", "X"]}\n'},
        {},
        "line 1: word 2 of column 'tokens' is empty",
    ),
    "metric": ({"train_csv": TRAIN}, {"metric": "acuracy"}, "did you mean 'accuracy'"),
    "metric of another kind": ({"train_csv": TRAIN}, {"metric": "pearson"}, "does not fit a classification task"),
    "label named twice": ({"train_csv": TRAIN}, {"label_names": ["up", "down", "up"]}, "'up' should occur once"),
    "nothing left": (
        {"train_csv": TRAIN, "test_csv": "text,label\n,up\n"},
        {"on_empty": "drop"},
        "test.csv: no rows are left",
    ),
    "a list that is cut short": (
        {"train_csv": LISTS + "\"['In', 'Oslo', 'now']\",\"['O' ... 'O']\"\n"},
        {},
        r"train.csv, line 5: column 'ner_tags' has lists written as text.*got \"\['O' ... 'O'\]\"",
    ),
    "a list with an empty element": (
        {"train_csv": LISTS, "test_csv": LISTS + "\"['In', 'Oslo']\",\"['O', nan]\"\n"},
        {},
        r"test.csv, line 5: column 'ner_tags' has lists written as text.*got \"\['O', nan\]\"",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error(tmp_path, case):
    files, options, message = BAD[case]
    with pytest.raises(InputError, match=message):
        load_task({"path": folder(tmp_path, **files), **options})


def test_labels_of_any_type_become_the_same_names():
    texts = ["a", "b", "c", "d"]
    for labels in ([2, 10, 2, 10], [2.0, 10.0, 2.0, 10.0], ["2", " 10", "2.0", "10"], np.array([2, 10, 2, 10])):
        task = task_from_lists("x", train=(texts, labels), validation=(texts, labels))
        assert task.label_names == ("2", "10")
        assert task.split("train").labels == (0, 1, 0, 1)
    task = task_from_lists("x", train=(texts, [True, False, True, True]), validation=(texts, [True] * 4))
    assert task.label_names == ("false", "true")


def test_label_names_set_the_order_or_name_the_numbers():
    train = (["a", "b", "c"], ["up", "down", "up"])
    task = task_from_lists("x", train=train, validation=train, label_names=["up", "down", "level"])
    assert task.split("train").labels == (0, 1, 0)
    assert "train: no row has the label 'level'" in task.notes
    train = (["a", "b", "c"], [1, 0, 1])
    task = task_from_lists("x", train=train, validation=train, label_names=["no", "yes"])
    assert (task.label_names, task.split("train").labels) == (("no", "yes"), (1, 0, 1))


def test_oddities_are_counted_and_kept():
    task = task_from_lists(
        "x",
        train=(["a ", "a", "b", "b", "c"], ["up", "up", "up", "down", "down"]),
        validation=(["c", "d"], ["up", "down"]),
        test=(["a", "d", "e"], ["up", "up", "up"]),
    )
    assert [len(task.split(name)) for name in ("train", "validation", "test")] == [5, 2, 3]
    assert task.notes == (
        "train: white space around the text of 1 row removed",
        "train: 1 repeat of an earlier row (kept)",
        "train: 1 text with more than one label (kept)",
        "validation: 1 text also in train (kept)",
        "test: 1 text also in train (kept)",
        "test: 1 text also in validation (kept)",
    )


def test_empty_texts_can_be_dropped_or_kept():
    lists = {"train": (["a", "", "b", " "], [0, 1, 1, 0]), "validation": (["a"], [0])}
    dropped = task_from_lists("x", **lists, on_empty="drop")
    assert dropped.split("train").texts == ("a", "b")
    assert "train: 2 rows without text dropped" in dropped.notes
    assert task_from_lists("x", **lists, on_empty="keep").split("train").texts == ("a", "", "b", "")


def test_a_validation_split_is_carved_out_of_train():
    texts, labels = [f"text {row}" for row in range(41)], ["a"] * 30 + ["b"] * 10 + ["rare"]
    task = task_from_lists("x", train=(texts, labels))
    assert task == task_from_lists("x", train=(texts, labels))
    assert task != task_from_lists("x", train=(texts, labels), seed=1)
    train, validation = task.split("train"), task.split("validation")
    assert (len(train), len(validation)) == (37, 4)
    assert {*train.texts, *validation.texts} == set(texts)
    assert 2 in train.labels  # the only row of its class can be learned
    assert any("4 of the 41 rows of train were set aside for it (seed 0)" in note for note in task.notes)
    with pytest.raises(InputError, match="no split 'test'; choose from 'train', 'validation'"):
        task.split("test")
    assert any("no test split" in note for note in task.notes)


def test_pairs(tmp_path):
    rows = "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tyes\n1\tc\td\tno\n"
    task = load_task(folder(tmp_path, train_tsv=rows, dev_tsv=rows))
    assert task.split("train").texts == ("a", "c")
    assert task.split("train").pairs == ("b", "d")
    assert "'sentence1' and 'sentence2' are taken as pairs of texts" in task.notes
    lists = task_from_lists("x", train=(["a", "c"], ["b", "d"], ["yes", "no"]), validation=(["a"], ["b"], ["no"]))
    assert lists.split("train") == task.split("train")


def test_regression_is_recognized_and_can_be_asked_for():
    lists = {"train": (["a", "b", "c"], ["1", "2.5", "-3e-1"]), "validation": (["d"], [2])}
    task = task_from_lists("x", **lists)
    assert (task.kind, task.metric, task.label_names) == ("regression", "pearson_spearman", ())
    assert task.split("train").labels == (1.0, 2.5, -0.3)
    assert any("regression" in note for note in task.notes)
    whole = {"train": (["a", "b"], [1, 2]), "validation": (["d"], [2])}
    assert task_from_lists("x", **whole).kind == "classification"
    assert task_from_lists("x", **whole, kind="regression").split("train").labels == (1.0, 2.0)


def test_multilabel_from_lists_and_from_strings(tmp_path):
    rows = [{"text": "a", "label": ["x", "z"]}, {"text": "b", "label": []}, {"text": "c", "label": ["y"]}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    task = load_task(folder(tmp_path, train_jsonl=lines, dev_jsonl=lines))
    assert (task.kind, task.label_names, task.metric) == ("multilabel", ("x", "y", "z"), "micro_f1")
    assert task.split("train").labels == ((1, 0, 1), (0, 0, 0), (0, 1, 0))
    strings = "text,label\na,x| z\nb,\nc,y\n"
    other = tmp_path / "strings"
    other.mkdir()
    again = load_task({"path": folder(other, train_csv=strings, dev_csv=strings), "label_separator": "|"})
    assert again.fingerprint == task.fingerprint


def test_tokens_from_json_and_from_columns(tmp_path):
    lines = '{"tokens": ["Anna", "saw", "Oslo"], "ner_tags": ["B-PER", "O", "B-LOC"]}\n'
    task = load_task(folder(tmp_path, train_jsonl=lines * 2, dev_jsonl=lines))
    assert (task.kind, task.metric, task.label_names) == ("tokens", "entity_f1", ("O", "B-LOC", "B-PER"))
    assert task.split("train").texts[0] == ("Anna", "saw", "Oslo")
    assert task.split("train").labels[0] == (2, 0, 1)
    other = tmp_path / "columns"
    other.mkdir()
    sentence = "Anna\tB-PER\nsaw\tO\nOslo\tB-LOC\n"
    again = load_task({"path": folder(other, train_tsv=f"{sentence}\n{sentence}", dev_tsv=sentence), "kind": "tokens"})
    assert again.fingerprint == task.fingerprint
    (other / "dev.tsv").write_text("Anna\tB-PRE\n")
    with pytest.raises(InputError, match=r"dev.tsv, line 1: unknown label 'B-PRE'.*did you mean 'B-PER'"):
        load_task({"path": str(other), "kind": "tokens"})


def test_tags_without_outside_are_judged_by_accuracy():
    train = ([["a", "b"], ["c"]], [["N", "V"], ["N"]])
    assert task_from_lists("x", train=train, validation=train).metric == "accuracy"


@pytest.mark.parametrize("metric", ["mean_cosine", "neighbor_overlap", "ndcg_at_10", "probe_accuracy"])
def test_a_metric_that_does_not_read_scores_of_pairs_is_refused(metric):
    train = ([f"one {row}" for row in range(20)], [f"two {row}" for row in range(20)], [row / 4 for row in range(20)])
    message = f"'{metric}' does not fit labels that are scores of pairs; choose from 'pearson', .*, 'spearman'"
    with pytest.raises(InputError, match=message):
        task_from_lists("x", train=train, kind="embedding", metric=metric)


def test_scores_of_documents_without_a_relevant_one_are_compared_as_rankings():
    """So are a model's logits, which may all be negative."""
    rows = [(f"query {row // 12}", f"document {row}", -1.0 - row % 12) for row in range(96)]
    with pytest.raises(InputError, match=r"'ndcg_at_10' does not fit labels that are scores .*'overlap_at_10'"):
        task_from_lists("x", train=list(zip(*rows, strict=True)), kind="rerank")
    train = list(zip(*rows, strict=True))
    assert task_from_lists("x", train=train, kind="rerank", metric="overlap_at_10").metric == "overlap_at_10"
    few = [row for number, row in enumerate(rows) if number % 12 < 10]
    with pytest.raises(InputError, match="split validation: no query has more than 10 documents, so overlap_at_10"):
        task_from_lists("x", train=list(zip(*few, strict=True)), kind="rerank", metric="overlap_at_10")


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": (["a", "b"], [0, 1, 1])}, "different lengths: 'text' 2, 'label' 3"),
        ({"train": ("ab", [0, 1])}, "expected .texts, labels."),
        ({"train": (["a", "b"],)}, "got 1 parts"),
        ({"train": ([], [])}, "no rows"),
        ({"train": (["a", None], [0, 1])}, "x, train, row 2: .*got None"),
        ({"train": (["a", 3], [0, 1])}, "x, train, row 2: .*got 3 of type int"),
        ({"train": (["a", "b"], [0, 1]), "metrik": "accuracy"}, "did you mean 'metric'"),
        ({"train": (["a", "b"], [0, 1]), "kind": "regresion"}, "data option 'kind'"),
        ({"train": (["a", "b"], [0, 1]), "max_length": 1}, "max_length"),
    ],
)
def test_bad_lists(lists, message):
    with pytest.raises(InputError, match=message):
        task_from_lists("x", **lists)


def test_a_column_of_lists_that_is_not_read_may_have_other_cells(tmp_path):
    rows = [("good", "up", "['x']"), ("bad", "down", "['y']"), ("fine", "up", "none so far"), ("poor", "down", "['z']")]
    content = "text,label,found\n" + "".join(f'{text},{label},"{found}"\n' for text, label, found in rows)
    assert load_task(folder(tmp_path, train_csv=content)).kind == "classification"
