import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from limbeck.core.model import AnswerSource
from limbeck.errors import InputError
from limbeck.model.checkpoints import save_model
from limbeck.teachers.function import FunctionTeacher
from limbeck.teachers.opening import check_answers, describe, name_problems, open_teacher

save_foreign = runpy.run_path(str(Path(__file__).with_name("test_transformers_model.py")))["save"]


def test_what_gives_answers_alone(teacher, task, tmp_path, rows_of, write_jsonl):
    save_model(teacher.model, teacher.tokenizer, tmp_path / "own")
    save_foreign(tmp_path / "foreign", "xlnet", task)
    scores = write_jsonl(tmp_path / "scores.jsonl", rows_of(teacher))
    assert describe(str(tmp_path / "own")) is None
    assert describe("owner/name", hub=False) is None
    foreign, file = describe(str(tmp_path / "foreign")), describe(str(scores))
    assert "'xlnet' is not supported" in foreign.reason
    assert (foreign.reads_new_texts, foreign.probabilities) == (True, False)
    assert (file.reads_new_texts, file.probabilities) == (False, True)
    for source in (tmp_path / "own", tmp_path / "foreign", scores):
        opened = open_teacher(str(source), task)
        assert isinstance(opened.model, AnswerSource) == (source != tmp_path / "own")


def test_names_are_looked_at_without_opening_models(make_model, teacher, task, tmp_path, rows_of, write_jsonl):
    save_model(teacher.model, teacher.tokenizer, tmp_path / "trained")
    scores = write_jsonl(tmp_path / "scores.jsonl", rows_of(teacher))
    assert name_problems([str(tmp_path / "trained"), str(scores), "owner/name"], "teachers") == []
    absent, missing = name_problems([str(tmp_path / "absent"), str(tmp_path / "scores.parquet")], "teachers")
    assert absent.startswith("teachers: ")
    assert "absent" in absent
    assert "there is no such file" in missing
    assert "scores.jsonl" in missing


def test_scores_in_another_order_than_assumed_are_refused(task, tmp_path, write_jsonl):
    """A list has no names, so it is compared with the labels."""
    rows, turned = [], []
    for text, label in dict(zip(task.split("train").texts, task.split("train").labels, strict=True)).items():
        values = [0.8 if column == label else 0.1 for column in range(3)]
        rows.append({"text": text, "probabilities": values})
        turned.append({"text": text, "probabilities": [values[1], values[2], values[0]]})
    open_teacher(str(write_jsonl(tmp_path / "right.jsonl", rows)), task)
    with pytest.raises(InputError, match="another fits far better"):
        open_teacher(str(write_jsonl(tmp_path / "wrong.jsonl", turned)), task)


def test_a_function_is_checked_like_a_file(task):
    labels = dict(zip(task.split("train").texts, task.split("train").labels, strict=True))
    labels |= dict(zip(task.split("validation").texts, task.split("validation").labels, strict=True))

    def turned(texts):
        return np.roll(softmax(np.eye(3)[[labels[text] for text in texts]] * 4, 1), 1, axis=1)

    with pytest.raises(InputError, match="another fits far better"):
        check_answers("turned", FunctionTeacher(turned, task), task)


def test_a_model_of_other_labels_is_refused(make_model, teacher, task, tmp_path):
    save_model(teacher.model, teacher.tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {"0": "red", "1": "green", "2": "blue"}
    config.pop("label2id", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="was not trained for the labels of this task"):
        open_teacher(str(tmp_path), task)
