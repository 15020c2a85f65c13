"""A task under the names of the model that answers it, and the order of outputs judged on texts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from limbeck.data.loading import task_from_lists
from limbeck.data.synthetic import toy_tokenizer
from limbeck.errors import InputError
from limbeck.measure.label_order import OrderCheck, check_order, fit_task, judge_order, measure_order
from limbeck.model.checkpoints import save_model
from limbeck.model.classification_head import set_labels

WORDS = ["good", "bad", "fine", "dull", "great", "poor"]


def task_of(labels, count=60, **options):
    """Texts of one word each; the first label goes with the first word, and so on."""
    rows = [WORDS[index % len(labels)] for index in range(count)]
    names = [labels[index % len(labels)] for index in range(count)]
    return task_from_lists("words", train=(rows, names), validation=(rows[:30], names[:30]), **options)


class Reader:
    """A model that answers each text with the output of its first word."""

    int8 = False

    def __init__(self, outputs, tokenizer):
        self.outputs = {tokenizer.convert_tokens_to_ids(word): output for word, output in outputs.items()}
        self.width = len(outputs)

    def predict(self, batch):
        ids = np.asarray(batch["input_ids"])
        logits = np.zeros((len(ids), self.width))
        for row, text in enumerate(ids):
            logits[row, next(self.outputs[token] for token in text.tolist() if token in self.outputs)] = 5.0
        return logits


@pytest.fixture
def folder(tmp_path, make_model):
    """A function that saves a random model with given label names."""

    def save(names, task, kind="classification", **config):
        tokenizer = toy_tokenizer(task)
        model = make_model(labels=len(names), kind=kind, vocab_size=len(tokenizer), max_positions=128)
        set_labels(model, names, kind)
        save_model(model, tokenizer, tmp_path / "model")
        if config:
            path = tmp_path / "model" / "config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | config))
        return tmp_path / "model"

    return save


def never(task):
    raise AssertionError("the order is known")


@pytest.mark.parametrize("names", [("DOWN", "UP"), ("UP", "DOWN"), ("up", "flat", "down")])
def test_a_task_gets_the_names_and_the_order_of_the_model(folder, names):
    task = task_of(("down", "up"))
    fitted = fit_task(folder(names, task), task, measure=never)
    assert fitted.answers
    assert fitted.task.label_names == names
    before = [task.label_names[label] for label in task.split("train").labels]
    after = [fitted.task.label_names[label].lower() for label in fitted.task.split("train").labels]
    assert before == after
    assert "in its order" in fitted.notes[0]


def test_nothing_is_said_where_nothing_changes(folder):
    task = task_of(("down", "up"))
    fitted = fit_task(folder(("down", "up"), task), task, measure=never)
    assert fitted.task is task
    assert fitted.notes == ()


def test_a_metric_that_needs_an_order_keeps_it_and_that_is_said(folder):
    task = task_of(("down", "up"), metric="f1")
    fitted = fit_task(folder(("UP", "DOWN"), task), task)
    assert fitted.task.label_names == ("DOWN", "UP")
    assert fitted.task.split("train").labels == task.split("train").labels
    assert any("put into another order for the metric f1" in note for note in fitted.notes)


def test_a_head_for_something_else_leaves_the_task_alone(folder):
    task = task_of(("down", "up"))
    fitted = fit_task(folder(("cat", "dog", "cow"), task), task)
    assert (fitted.answers, fitted.task) == (False, task)
    assert "its labels are cat, dog, cow" in fitted.refusal


VERDICTS = {
    "fits": OrderCheck("fits", 0.9, 0.9, 0.5, (0, 1), 100),
    "unclear": OrderCheck("unclear", 0.5, 0.5, 0.5, (0, 1), 100),
    "wrong": OrderCheck("wrong", 0.1, 0.9, 0.5, (1, 0), 100),
}


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("trained_next", [False, True])
@pytest.mark.parametrize(("model", "data"), [(("LABEL_0", "LABEL_1"), ("down", "up")), (("DOWN", "UP"), (0, 1))])
def test_an_assumed_order_is_checked_and_reported(folder, verdict, trained_next, model, data):
    task = task_of(data)
    source = folder(model, task)

    def fit():
        return fit_task(source, task, trained_next=trained_next, measure=lambda given: VERDICTS[verdict])

    if verdict == "wrong" and not trained_next:
        swapped = ", ".join(str(name) for name in reversed(data))
        with pytest.raises(InputError, match=rf"90.0% of 100 texts instead of 10.0%.*label_names: \[{swapped}\]"):
            fit()
        return
    fitted = fit()
    assert fitted.answers == (verdict == "fits")
    assert fitted.notes
    if verdict == "fits" or not trained_next:
        assert fitted.task.label_names == (("down", "up") if data[0] == "down" else ("DOWN", "UP"))
    else:  # other outputs may have had the model's names
        assert fitted.task is task


def test_the_advice_of_the_error_is_followed(folder):
    task = task_of((0, 1), label_names=[1, 0])
    fitted = fit_task(folder(("UP", "DOWN"), task), task, measure=lambda given: VERDICTS["fits"])
    assert [fitted.task.label_names[label] for label in fitted.task.split("train").labels[:2]] == ["DOWN", "UP"]


@pytest.mark.parametrize(
    ("outputs", "verdict"), [((0, 1, 2), "fits"), ((1, 2, 0), "wrong"), ((2, 1, 0), "wrong"), ((0, 0, 0), "unclear")]
)
def test_the_best_order_is_found_on_texts(outputs, verdict):
    task = task_of(("a", "b", "c"))
    tokenizer = toy_tokenizer(task)
    order = check_order(Reader(dict(zip(WORDS, outputs, strict=False)), tokenizer), tokenizer, task)
    assert order.verdict == verdict
    if verdict == "wrong":
        assert order.outputs == outputs
        assert order.best == 1.0
    assert OrderCheck.from_json(json.loads(json.dumps(order.to_json()))) == order


def test_noise_is_no_evidence():
    rng = np.random.default_rng(0)
    for classes in (2, 3, 9):
        verdicts = []
        for _ in range(30):
            truths, guesses = rng.integers(0, classes, (2, 100))
            tables = np.zeros((100, classes, classes))
            tables[np.arange(100), truths, guesses] = 1
            constant = (truths == np.bincount(truths).argmax()).astype(float)
            verdicts.append(judge_order(tables, constant, np.ones(100)).verdict)
        assert "wrong" not in verdicts


def test_a_constant_answer_that_is_often_right_in_another_order_is_no_evidence():
    truths = np.array([0] * 80 + [1] * 20)
    tables = np.zeros((100, 2, 2))
    tables[np.arange(100), truths, 1] = 1  # always the rare label
    assert judge_order(tables, (truths == 0).astype(float), np.ones(100)).verdict == "unclear"


@pytest.mark.parametrize("kind", ["multilabel", "tokens"])
def test_other_kinds_are_judged_too(kind):
    labels = [["a"], ["b"], ["a", "b"], []] * 15 if kind == "multilabel" else [["O", "X"], ["X", "O"]] * 30
    texts = ["good bad"] * 60 if kind == "multilabel" else [["good", "bad"]] * 60
    task = task_from_lists("many", train=(texts, labels), validation=(texts, labels), kind=kind)
    truth = np.array(task.split("train").labels)

    class Oracle:
        int8 = False

        def predict(self, batch):
            rows = truth[np.asarray(batch["index"])]
            if kind == "multilabel":
                return (rows * 2.0 - 1)[:, ::-1]
            answers = np.zeros((*np.asarray(batch["input_ids"]).shape, 2))
            answers[:, 1:3] = np.eye(2)[1 - rows]
            return answers

    order = check_order(Oracle(), toy_tokenizer(task), task)
    assert (order.verdict, order.outputs) == ("wrong", (1, 0))


def test_a_model_of_few_positions_is_asked_with_as_many_tokens(folder, make_model, tmp_path):
    task = task_of(("a", "b"), max_length=512)
    assert measure_order(folder(("LABEL_0", "LABEL_1"), task), task).texts == 60
