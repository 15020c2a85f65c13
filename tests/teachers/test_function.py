import json
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from scipy.special import softmax

from limbeck.core.task import Split, Task
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import PEOPLE, PLACES, toy_task
from limbeck.errors import InputError
from limbeck.teachers.function import FunctionTeacher, write_scores
from limbeck.teachers.score_file import ScoreFile


@pytest.fixture
def logits_of(teacher):
    """A function from texts to the teacher's logits, which counts the texts it was asked for."""
    task = teacher.task
    requested = []

    def answer(texts):
        requested.extend(texts)
        rows = Task("few", task.kind, {"train": Split(tuple(texts), (0,) * len(texts))}, task.label_names, task.metric)
        return predict(teacher.model, encode(rows, "train", teacher.tokenizer))

    answer.requests = requested
    return answer


def expected(teacher, split="train"):
    return predict(teacher.model, encode(teacher.task, split, teacher.tokenizer))


def test_every_text_is_asked_for_once(teacher, task, logits_of):
    function = FunctionTeacher(logits_of, task)
    assert not function.probabilities
    for _ in range(3):
        np.testing.assert_allclose(function.answer(task, "train"), expected(teacher), atol=1e-5)
    assert sorted(logits_of.requests) == sorted(set(task.split("train").texts))


class PolarsFrame:
    """What a data frame of polars is asked for; its to_dict takes other arguments than that of pandas."""

    def __init__(self, rows):
        self.columns, self._rows = list(rows[0]), rows

    def to_dicts(self):
        return self._rows

    def to_dict(self, *, as_series=True):
        return {name: [row[name] for row in self._rows] for name in self.columns}


NAMED_FORMS = ("mapping", "mapping of scalars", "mapping of tensors", "frame", "frame of polars")
FORMS = ("array", "list", "tuple", "tensor", "list of arrays", "list of tensors", "list of scalars", "unnamed frame")


@pytest.mark.parametrize("form", [*FORMS, *NAMED_FORMS])
def test_probabilities_in_any_form(teacher, task, logits_of, form):
    def answer(texts):
        values = softmax(logits_of(texts).astype(float), 1)
        named = [dict(zip(task.label_names, row, strict=True)) for row in values.tolist()]
        return {
            "array": values,
            "list": values.tolist(),
            "tuple": tuple(map(tuple, values.tolist())),
            "tensor": torch.tensor(values),
            "list of arrays": list(values),
            "list of tensors": list(torch.tensor(values)),
            "list of scalars": [list(row.astype(np.float32)) for row in values],
            "unnamed frame": pandas.DataFrame(values),
            "mapping": named,
            "mapping of scalars": [{name: np.float32(score) for name, score in row.items()} for row in named],
            "mapping of tensors": [{name: torch.tensor(score) for name, score in row.items()} for row in named],
            "frame": pandas.DataFrame(named)[list(reversed(task.label_names))],
            "frame of polars": PolarsFrame(named),
        }[form]

    function = FunctionTeacher(answer, task)
    assert function.probabilities
    assert function.order_assumed == (form in FORMS)
    np.testing.assert_allclose(softmax(function.answer(task, "train"), 1), softmax(expected(teacher), 1), atol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda texts: 1 / 0, "failed on "),
        (lambda texts: [[0.1, 0.2, 0.7]], "expected a row of scores for each of "),
        (lambda texts: [[0.5, 0.5] for _ in texts], "expected 3 scores"),
        (lambda texts: [[0.5, 0.5, float("inf")] for _ in texts], "label, got inf"),
        (lambda texts: None, "got NoneType"),
        (lambda texts: [{"odd": 1.0} for _ in texts], "the task has"),
        (lambda texts: [{"odd": 1.0}, *[[1.0, 0.0, 0.0] for _ in texts[1:]]], "scores in lists, where others are"),
    ],
)
def test_a_function_that_does_not_score_is_one_clear_error(task, function, message):
    with pytest.raises(InputError, match=message):
        FunctionTeacher(function, task)


def test_its_answers_are_written_and_an_interrupted_file_is_continued(teacher, task, logits_of, tmp_path):
    path = tmp_path / "teacher.jsonl"
    write_scores(FunctionTeacher(logits_of, task), task, path)
    lines = path.read_text().splitlines(keepends=True)
    assert len(logits_of.requests) == len(set().union(*(split.texts for split in task.splits.values())))
    for split in task.splits:
        np.testing.assert_allclose(ScoreFile(path, task).answer(task, split), expected(teacher, split), atol=1e-5)
    path.write_text("".join(lines[:60]) + lines[60][:20])  # killed in the middle of a line
    logits_of.requests.clear()
    write_scores(FunctionTeacher(logits_of, task, path), task, path)
    assert len(logits_of.requests) == len(lines) - 60
    assert path.read_text().startswith("".join(lines[:60]))
    for split in task.splits:
        np.testing.assert_allclose(ScoreFile(path, task).answer(task, split), expected(teacher, split), atol=1e-5)


def test_answers_to_further_texts_are_kept_beside(teacher, task, logits_of, tmp_path):
    """As of augmentation, whose texts are no part of the task: a later run does not ask for them again."""
    path, further = tmp_path / "teacher.jsonl", tmp_path / "further.jsonl"
    function = FunctionTeacher(logits_of, task)
    write_scores(function, task, path)
    function.keep_in(further)
    content = path.read_bytes()
    rows = Split(("sunny day", "gloomy day") * 2, (0,) * 4)
    more = Task(task.name, task.kind, {"train": rows}, task.label_names, task.metric)
    answers = function.answer(more, "train")
    assert path.read_bytes() == content, "by which the teacher is known"
    assert len(further.read_text().splitlines()) == 2
    asked = len(logits_of.requests)
    again = FunctionTeacher(logits_of, task, path)
    again.keep_in(further)
    np.testing.assert_allclose(again.answer(more, "train"), answers, atol=1e-5)
    assert len(logits_of.requests) == asked


def test_earlier_answers_are_reused_whatever_the_function_says_now_and_only_new_texts_are_asked(task, tmp_path):
    """An LLM answers differently each time, and its texts may move: nothing is dropped, and nothing asked twice."""
    path, requested, messages = tmp_path / "teacher.jsonl", [], []

    def asked(index):
        def answer(texts):
            requested.extend(texts)
            return [{name: float(name == task.label_names[index]) for name in task.label_names} for _ in texts]

        return answer

    write_scores(FunctionTeacher(asked(0), task, path), task, path)
    written, texts = path.read_text(), len(requested)
    assert set(json.loads(written.splitlines()[0])) == {"text", "probabilities"}
    requested.clear()
    train = task.split("train")
    new = tuple(f"a new text {number}" for number in range(40))
    rows = Split((*new, *train.texts), (*(0,) * len(new), *train.labels))
    larger = replace(task, splits={**task.splits, "train": rows})
    again = FunctionTeacher(asked(1), larger, path, messages.append)
    write_scores(again, larger, path)
    assert sorted(requested) == sorted(new)
    assert path.read_text().startswith(written)
    assert again.answer(larger, "train").argmax(1).tolist() == [1] * len(new) + [0] * len(train)
    (message,) = messages
    assert f"answers of an earlier run are reused from {path} for {texts} of {texts + 40} texts" in message
    requested.clear()
    write_scores(FunctionTeacher(asked(1), larger, path), larger, path)
    assert not requested


@pytest.mark.parametrize("now", ["logits", "probabilities"])
def test_a_function_that_turned_from_logits_to_probabilities_or_back_is_refused(task, tmp_path, now):
    row = {"logits": [3.0, -1.0, 0.0], "probabilities": [0.9, 0.1, 0.0]}
    path, before = tmp_path / "teacher.jsonl", {"logits": "probabilities", "probabilities": "logits"}[now]
    write_scores(FunctionTeacher(lambda texts: [row[before]] * len(texts), task), task, path)
    FunctionTeacher(lambda texts: [row[now]] * len(texts), task, path)  # is not asked
    new = replace(task, splits={"train": Split(("a new text",), (0,))})
    with pytest.raises(InputError, match=rf"gives {now}, .*teacher\.jsonl holds {before}; .*delete or rename it"):
        FunctionTeacher(lambda texts: [row[now]] * len(texts), new, path)
    again = FunctionTeacher(lambda texts: [row[before]] * len(texts), new, path)
    assert again.probabilities == (before == "probabilities")


@pytest.mark.parametrize(
    "content",
    [
        '{"text": "a", "probabilities": {"cat": 0.1, "dog": 0.9}}\n',
        "not JSON\n",
        '{"split": "train", "row": 0, "probabilities": [0.2, 0.3, 0.5]}\n',
    ],
)
def test_a_file_of_earlier_answers_that_cannot_be_used_is_one_clear_error_and_stays(task, tmp_path, content):
    path, requested = tmp_path / "teacher.jsonl", []
    path.write_text(content)
    with pytest.raises(InputError, match=r"teacher\.jsonl.*delete or rename it"):
        FunctionTeacher(requested.extend, task, path)
    assert path.read_text() == content
    assert not requested


def test_words_are_lists_and_their_answers_are_written(tmp_path):
    task = toy_task("tokens", train=40, validation=4, test=4)
    requested = []

    def tag(texts):
        requested.extend(texts)
        return [[None if word == "film" else scores(word) for word in text] for text in texts]

    def scores(word):
        city, person = float(word in PLACES), float(word in PEOPLE)
        return {"place": city, "person": person, "O": 1 - city - person}

    teacher = FunctionTeacher(tag, task)
    assert teacher.probabilities
    assert not teacher.order_assumed
    answers = teacher.answer(task, "train")
    assert all(isinstance(text, list) for text in requested)
    for text, labels, rows in zip(task.split("train").texts, task.split("train").labels, answers, strict=True):
        assert [word == "film" for word in text] == np.isnan(rows).all(1).tolist()
        assert all(row.argmax() == label for row, label in zip(rows, labels, strict=True) if not np.isnan(row).any())
    path = tmp_path / "teacher.jsonl"
    write_scores(teacher, task, path)
    requested.clear()
    FunctionTeacher(tag, task, path).answer(task, "train")
    assert not requested
    for row, again in zip(answers, ScoreFile(path, task).answer(task, "train"), strict=True):
        np.testing.assert_allclose(again, row, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda texts: [[[1.0, 0.0, 0.0]] for _ in texts], "words, but scores of 1"),
        (lambda texts: [[1.0, 0.0, 0.0] for _ in texts], "expected a score for each label|words, but scores of"),
        (lambda texts: [0.5 for _ in texts], "expected a list with the scores of each word"),
        (lambda texts: [[[0.5, 0.5]] * len(text) for text in texts], "word 1: expected 3 scores"),
    ],
)
def test_a_function_that_does_not_score_words_is_one_clear_error(function, message):
    with pytest.raises(InputError, match=message):
        FunctionTeacher(function, toy_task("tokens", train=6))


@pytest.mark.parametrize("third", [0.33, 0.34])
def test_one_rounded_row_does_not_turn_probabilities_into_logits(task, third):
    texts = list(dict.fromkeys(task.split("train").texts))
    rows = {text: [0.9, 0.05, 0.05] for text in texts} | {texts[3]: [third] * 3}
    function = FunctionTeacher(lambda asked: [rows[text] for text in asked], task)
    assert function.probabilities
    answers = dict(zip(task.split("train").texts, softmax(function.answer(task, "train"), 1), strict=True))
    np.testing.assert_allclose(answers[texts[0]], [0.9, 0.05, 0.05], atol=1e-6)
    np.testing.assert_allclose(answers[texts[3]], [1 / 3] * 3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_gradients_are_accepted(task, dtype):
    logits = torch.tensor([2.5, -1.0, 0.5], dtype=dtype, requires_grad=True)
    function = FunctionTeacher(lambda texts: logits.repeat(len(texts), 1), task)
    assert function.answer(task, "train")[0].tolist() == logits.tolist()


def test_scores_from_0_to_1_that_do_not_sum_to_1_name_their_text(task):
    texts = list(dict.fromkeys(task.split("train").texts))
    with pytest.raises(InputError, match=f"'{texts[2]}': the probabilities sum to 1.3, not to 1; if these are logits"):
        FunctionTeacher(lambda asked: [[0.9, 0.4, 0.0] if text == texts[2] else [1, 0, 0] for text in asked], task)
    late = FunctionTeacher(lambda asked: [[3, -1, 0] if text == "a new text" else [1, 0, 0] for text in asked], task)
    with pytest.raises(InputError, match="3 is not a probability"):
        late.ask(["a new text"])


def test_texts_without_any_score_do_not_decide_what_the_others_are(tmp_path):
    task = toy_task("tokens", train=80, validation=4, test=4)
    first = set(list(dict.fromkeys(task.split("train").texts))[:40])

    def tag(texts):
        return [[None if tuple(text) in first else [0.8, 0.1, 0.1] for _ in text] for text in texts]

    function = FunctionTeacher(tag, task)
    assert function.probabilities
    write_scores(function, task, tmp_path / "teacher.jsonl")
    answers = function.answer(task, "train")
    for row, again in zip(answers, ScoreFile(tmp_path / "teacher.jsonl", task).answer(task, "train"), strict=True):
        np.testing.assert_allclose(again, row, atol=1e-5)
    with pytest.raises(InputError, match="gives no score for any word"):
        FunctionTeacher(lambda texts: [[None] * len(text) for text in texts], task)


def test_pairs_are_tuples():
    task = Task("p", "regression", {"train": Split(("a", "b"), (1.0, 2.0), ("x", "y"))}, (), "pearson")
    function = FunctionTeacher(lambda pairs: [len(first + second) for first, second in pairs], task)
    assert function.answer(task, "train").tolist() == [[2.0], [2.0]]
