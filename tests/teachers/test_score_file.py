from dataclasses import replace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from scipy.special import softmax

from limbeck.core.task import Split, Task
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task
from limbeck.errors import InputError
from limbeck.teachers.score_file import ScoreFile, gives_probabilities, is_score_file


def expected(teacher, split="train"):
    return predict(teacher.model, encode(teacher.task, split, teacher.tokenizer))


@pytest.mark.parametrize("field", ["logits", "probabilities"])
def test_a_file_answers_as_the_teacher_that_wrote_it(teacher, task, tmp_path, field, rows_of, write_jsonl):
    path = write_jsonl(tmp_path / "scores.jsonl", rows_of(teacher, field=field)[::-1])
    answers = ScoreFile(path, task).answer(task, "train")
    np.testing.assert_allclose(softmax(answers, 1), softmax(expected(teacher), 1), atol=1e-6)
    assert gives_probabilities(path) == (field == "probabilities")


@pytest.mark.parametrize(
    ("names", "form"),
    [
        (("probabilities", "score"), True),  # such as how sure an LLM is
        (("label", "score"), None),  # of a classifier, or numbers of a regression
        (("logits", "score"), False),
        (("logits", "probabilities"), False),
        (("label",), True),
    ],
)
def test_what_a_file_gives_is_foretold_as_it_is_read(teacher, task, tmp_path, rows_of, write_jsonl, names, form):
    given = {"logits": [1.0, 2.0, 3.0], "probabilities": [0.2, 0.3, 0.5], "label": task.label_names[0], "score": 0.9}
    rows = [{"text": row["text"], **{name: given[name] for name in names}} for row in rows_of(teacher)]
    path = write_jsonl(tmp_path / "scores.jsonl", rows)
    assert gives_probabilities(path) is form
    assert ScoreFile(path, task).probabilities is (form is not False)


def test_columns_by_label_lists_parquet_and_rows_by_number_say_the_same(teacher, task, tmp_path, rows_of, write_jsonl):
    rows = rows_of(teacher)
    by_column = [{"text": row["text"], **row["probabilities"]} for row in rows]
    by_list = [{"text": row["text"], "probabilities": list(row["probabilities"].values())} for row in rows]
    by_number = [{"split": "train", "row": i, "probabilities": row["probabilities"]} for i, row in enumerate(rows)]
    paths = [
        write_jsonl(tmp_path / f"{number}.jsonl", form)
        for number, form in enumerate((rows, by_column, by_list, by_number))
    ]
    for name, form in (("struct", rows), ("flat", by_column), ("list", by_list), ("number", by_number)):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(form), tmp_path / f"{name}.parquet")
        paths.append(tmp_path / f"{name}.parquet")
    first, *others = (ScoreFile(path, task).answer(task, "train") for path in paths)
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_a_label_alone_counts_as_certain(task, tmp_path, write_jsonl):
    names = [task.label_names[number % len(task.label_names)] for number in range(48)]
    rows = [{"text": text, "label": name} for text, name in zip(task.split("train").texts, names, strict=True)]
    unique = list({row["text"]: row for row in rows}.values())
    answers = ScoreFile(write_jsonl(tmp_path / "labels.jsonl", unique), task).answer(task, "train")
    assert np.isfinite(answers).all()
    wanted = {row["text"]: row["label"] for row in unique}
    assert [task.label_names[row.argmax()] for row in answers] == [wanted[text] for text in task.split("train").texts]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_labels_are_named_as_by_probabilities(tmp_path, write_jsonl, suffix):
    """A number stands for its digits, and case does not matter."""

    def answered(names, given):
        texts = tuple(f"text {number}" for number in range(len(given)))
        few = Task("t", "classification", {"train": Split(texts, (0,) * len(given))}, names, "accuracy")
        rows = [{"text": text, "label": label} for text, label in zip(texts, given, strict=True)]
        path = write_jsonl(tmp_path / "labels.jsonl", rows)
        if suffix == "parquet":
            path = tmp_path / "labels.parquet"
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return [names[row] for row in ScoreFile(path, few).answer(few, "train").argmax(1)]

    assert answered(("0", "1", "2"), [2, 0, 1]) == ["2", "0", "1"]
    assert answered(("0", "1", "2"), [2.0, 0.0, 1.0]) == ["2", "0", "1"]
    assert answered(("neg", "Pos"), ["POS", "neg"]) == ["Pos", "neg"]
    assert answered(("US", "us"), ["us", "US"]) == ["us", "US"]
    for names, given in ((("US", "us"), ["Us"]), (("neg", "pos"), [1]), (("0", "1"), [0.5])):
        with pytest.raises(InputError, match="the task has no label"):
            answered(names, given)


def test_numbers_pairs_and_several_labels(tmp_path, write_jsonl):
    pairs = Task("p", "regression", {"train": Split(("a", "a", "b"), (1.0, 2.0, 3.0), ("x", "y", "x"))}, (), "pearson")
    rows = [{"text": "b", "pair": "x", "score": 3}, {"text": "a", "pair": "y", "score": 2.5}]
    rows += [{"text": " a", "pair": "x", "score": 1}]
    assert ScoreFile(write_jsonl(tmp_path / "n.jsonl", rows), pairs).answer(pairs, "train").tolist() == [
        [1],
        [2.5],
        [3],
    ]
    several = Task("m", "multilabel", {"train": Split(("a",), ((1, 0),))}, ("x", "y"), "micro_f1")
    rows = [{"text": "a", "label": ["y"]}]
    answers = ScoreFile(write_jsonl(tmp_path / "m.jsonl", rows), several).answer(several, "train")
    assert (answers > 0).tolist() == [[False, True]]


def wrong(rows):
    """A broken copy of a file's rows, with what its error says."""
    first, second = rows[0], rows[1]
    scores = dict(first["probabilities"])
    name = min(scores)
    other = {label: float(label == name) for label in scores}
    return {
        "missing": (rows[2:], "has no scores for "),
        "doubled": ([*rows, {**first, "probabilities": other}], "the text of line 1 again, with other scores"),
        "NaN": (
            [{**first, "probabilities": {**scores, name: float("nan")}}, *rows[1:]],
            "label, got nan",
        ),
        "label": ([{**first, "probabilities": {**scores, "odd": 0.0}}, *rows[1:]], "choose from"),
        "no scores": ([{"text": row["text"]} for row in rows], "there are no scores in it"),
        "no text": (
            [{"words": row["text"], "probabilities": row["probabilities"]} for row in rows],
            "expected the field",
        ),
        "column": ([{"text": "a", name: 0.5}], "but none for "),
        "text": ([{**second, "text": 3}], "should be text"),
        "names": (
            [first, {**second, "probabilities": [0.2, 0.3, 0.5]}, *rows[2:]],
            "line 2: scores in lists, where others are by label name",
        ),
    }


@pytest.mark.parametrize(
    "case", ["missing", "doubled", "NaN", "label", "no scores", "no text", "column", "text", "names"]
)
def test_a_wrong_file_is_one_clear_error(teacher, task, tmp_path, case, rows_of, write_jsonl):
    rows = list({row["text"]: row for row in rows_of(teacher)}.values())
    broken, message = wrong(rows)[case]
    with pytest.raises(InputError) as error:
        ScoreFile(write_jsonl(tmp_path / "scores.jsonl", broken), task).answer(task, "train")
    assert message in str(error.value)
    assert "scores.jsonl" in str(error.value)


def test_wrong_row_numbers(teacher, task, tmp_path, rows_of, write_jsonl):
    rows = [{"split": "train", "row": i, "logits": row["probabilities"]} for i, row in enumerate(rows_of(teacher))]
    cases = (
        ([*rows, rows[0]], "row 0 of 'train' occurs twice"),
        ([*rows, {**rows[0], "row": 48}], "has row 48 of 'train', which has rows 0 to 47"),
        (rows[:-2], "has no scores for 2 of 48 rows of 'train', such as row 46"),
        ([{**rows[0], "split": "trian"}], "did you mean 'train'"),
        ([{**rows[0], "row": "0"}], "whole number"),
    )
    for broken, message in cases:
        with pytest.raises(InputError, match=message):
            ScoreFile(write_jsonl(tmp_path / "rows.jsonl", broken), task).answer(task, "train")
    assert "no rows for the split 'test'" in ScoreFile(write_jsonl(tmp_path / "r.jsonl", rows), task).lacks(
        task, "test"
    )


def test_a_text_beside_a_row_number_has_to_be_the_one_in_that_row(teacher, task, tmp_path, rows_of, write_jsonl):
    rows = [{"split": "train", "row": i, **row} for i, row in enumerate(rows_of(teacher))]
    ScoreFile(write_jsonl(tmp_path / "right.jsonl", rows), task).answer(task, "train")
    rows[4].pop("text")  # nothing to compare
    ScoreFile(write_jsonl(tmp_path / "some.jsonl", rows), task).answer(task, "train")
    shifted = [{**row, "row": (row["row"] + 1) % len(rows)} for row in rows]
    with pytest.raises(
        InputError, match=r"line 1: row 1 of 'train' is '.*', not '.*'; give 'text' in place of 'split'"
    ):
        ScoreFile(write_jsonl(tmp_path / "shifted.jsonl", shifted), task)
    pairs = Task("p", "regression", {"train": Split(("a", "a"), (1.0, 2.0), ("x", "y"))}, (), "pearson")
    rows = [{"split": "train", "row": row, "text": "a", "pair": "x", "score": 1} for row in range(2)]
    with pytest.raises(InputError, match="line 2: row 1"):
        ScoreFile(write_jsonl(tmp_path / "pairs.jsonl", rows), pairs)
    rows = [{key: row[key] for key in row if key != "pair"} for row in rows]
    ScoreFile(write_jsonl(tmp_path / "first.jsonl", rows), pairs).answer(pairs, "train")


def test_rows_of_a_whole_file_are_not_those_of_a_limited_task(teacher, task, tmp_path, rows_of, write_jsonl):
    """The limit chooses rows and counts them anew; texts still say which is which."""
    rows, few = rows_of(teacher), task.limit(train=10)
    numbered = [{"split": "train", "row": i, "probabilities": row["probabilities"]} for i, row in enumerate(rows)]
    file = ScoreFile(write_jsonl(tmp_path / "rows.jsonl", numbered), few)
    assert "give 'text' in place of 'split' and 'row'" in file.lacks(few, "train")
    assert not ScoreFile(write_jsonl(tmp_path / "texts.jsonl", rows), few).lacks(few, "train")


def test_texts_that_the_task_lacks_are_said_and_new_texts_are_refused(teacher, task, tmp_path, rows_of, write_jsonl):
    rows = [*rows_of(teacher), {"text": "of another task", "probabilities": rows_of(teacher)[0]["probabilities"]}]
    scores = ScoreFile(write_jsonl(tmp_path / "scores.jsonl", rows), task)
    assert scores.notes[0].startswith("1 of ")
    train = task.split("train")
    larger = replace(task, splits={"train": Split((*train.texts, "new"), (*train.labels, 0))})
    with pytest.raises(InputError, match="a file cannot answer new texts"):
        scores.answer(larger, "train")
    scored = ScoreFile(scores.path, task, lambda task, split: np.full((len(task.split(split)), task.num_labels), 9.0))
    answers = scored.answer(larger, "train")
    np.testing.assert_array_equal(answers[:-1], scores.answer(task, "train"))
    assert (answers[-1] == 9).all()


def test_which_names_are_files(tmp_path):
    assert is_score_file(tmp_path / "x.jsonl")
    assert is_score_file("answers.parquet")
    assert not is_score_file("owner/model")
    (tmp_path / "folder.jsonl").mkdir()
    assert not is_score_file(tmp_path / "folder.jsonl")


def words_task():
    return toy_task("tokens", train=12, validation=4, test=4)


def word_rows(task, field="logits", seed=0):
    """Random scores of every word of the training split, by text."""
    rng = np.random.default_rng(seed)
    rows = []
    for text in task.split("train").texts:
        scores = rng.normal(size=(len(text), 3))
        scores = softmax(scores, 1) if field == "probabilities" else scores
        rows.append({"words": list(text), field: [dict(zip(task.label_names, row, strict=True)) for row in scores]})
    return rows


@pytest.mark.parametrize("field", ["logits", "probabilities"])
def test_every_form_of_the_scores_of_words_says_the_same(tmp_path, field, write_jsonl):
    task = words_task()
    rows = word_rows(task, field)
    rows[0][field][1] = None  # a word that the teacher did not see
    rest = [{key: row[key] for key in row if key != "words"} for row in rows]
    forms = {
        "named": rows,
        "text": [{"text": " ".join(row["words"]), field: row[field]} for row in rows],
        "list": [
            {"words": row["words"], field: [word and [word[name] for name in task.label_names] for word in row[field]]}
            for row in rows
        ],
        "number": [{"split": "train", "row": index, **row} for index, row in enumerate(rest)],
    }
    answers = []
    for name, form in forms.items():
        answers.append(ScoreFile(write_jsonl(tmp_path / f"{name}.jsonl", form), task).answer(task, "train"))
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(form), tmp_path / f"{name}.parquet")
        answers.append(ScoreFile(tmp_path / f"{name}.parquet", task).answer(task, "train"))
    assert np.isnan(answers[0][0][1]).all()
    for other in answers:
        for left, right in zip(answers[0], other, strict=True):
            np.testing.assert_array_equal(left, right)
    for row, logits in zip(rows[1:], answers[0][1:], strict=True):
        wanted = np.array([[word[name] for name in task.label_names] for word in row[field]])
        np.testing.assert_allclose(softmax(logits, 1), wanted if field == "probabilities" else softmax(wanted, 1), 1e-5)


def test_labels_of_words_alone_count_as_certain(tmp_path, write_jsonl):
    task = words_task()
    train = task.split("train")
    rows = [
        {"words": list(text), "label": [task.label_names[tag] for tag in tags]}
        for text, tags in zip(train.texts, train.labels, strict=True)
    ]
    answers = ScoreFile(write_jsonl(tmp_path / "labels.jsonl", rows), task).answer(task, "train")
    assert [tuple(row.argmax(1).tolist()) for row in answers] == list(train.labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["probabilities"].pop(), "line 2: [0-9]+ words, but scores of"),
        (lambda row: row.update(probabilities={"O": 1.0}), "expected a list with the scores of each word"),
        (lambda row: row["probabilities"].append({"O": 1.0}), "words, but scores of"),
        (
            lambda row: row["probabilities"].__setitem__(0, {"O": 1.0, "odd": 0.0, "place": 0.0}),
            "line 2, word 1: .*odd",
        ),
        (
            lambda row: row["probabilities"].__setitem__(2, {"O": 0.9, "person": 0.0, "place": 0.0}),
            "word 3: the probabilities sum to 0.9",
        ),
        (lambda row: row["probabilities"].__setitem__(2, [1.0, 0.0, 0.0]), "line 2: scores in lists"),
        (lambda row: row.update(words=["a", 3]), "line 2: the text should be text"),
    ],
)
def test_wrong_scores_of_words_are_one_clear_error(tmp_path, write_jsonl, change, message):
    task = words_task()
    rows = word_rows(task, "probabilities")
    change(rows[1])
    with pytest.raises(InputError, match=message):
        ScoreFile(write_jsonl(tmp_path / "scores.jsonl", rows), task)


def test_rows_by_number_have_a_score_for_each_word_of_their_text(tmp_path, write_jsonl):
    task = words_task()
    rows = [{"split": "train", "row": i, "logits": row["logits"]} for i, row in enumerate(word_rows(task))]
    rows[3]["logits"] = rows[3]["logits"][1:]
    file = ScoreFile(write_jsonl(tmp_path / "scores.jsonl", rows), task)
    assert f"which has {len(task.split('train').texts[3])}" in file.lacks(task, "train")
    with pytest.raises(InputError, match="has scores for"):
        file.answer(task, "train")
