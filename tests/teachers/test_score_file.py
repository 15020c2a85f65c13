from dataclasses import replace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from scipy.special import softmax

from limbeck.core.task import Split, Task
from limbeck.data.batching import encode, predict
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
    }


@pytest.mark.parametrize("case", ["missing", "doubled", "NaN", "label", "no scores", "no text", "column", "text"])
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


def test_texts_that_the_task_lacks_are_said_and_new_texts_are_refused(teacher, task, tmp_path, rows_of, write_jsonl):
    rows = [*rows_of(teacher), {"text": "of another task", "probabilities": rows_of(teacher)[0]["probabilities"]}]
    scores = ScoreFile(write_jsonl(tmp_path / "scores.jsonl", rows), task)
    assert scores.notes[0].startswith("1 of ")
    train = task.split("train")
    larger = replace(task, splits={"train": Split((*train.texts, "new"), (*train.labels, 0))})
    with pytest.raises(InputError, match="a file cannot answer new texts"):
        scores.answer(larger, "train")
    asked = ScoreFile(scores.path, task, lambda task, split: np.full((len(task.split(split)), task.num_labels), 9.0))
    answers = asked.answer(larger, "train")
    np.testing.assert_array_equal(answers[:-1], scores.answer(task, "train"))
    assert (answers[-1] == 9).all()


def test_which_names_are_files(tmp_path):
    assert is_score_file(tmp_path / "x.jsonl")
    assert is_score_file("answers.parquet")
    assert not is_score_file("owner/model")
    (tmp_path / "folder.jsonl").mkdir()
    assert not is_score_file(tmp_path / "folder.jsonl")
