"""The probe that fits thresholds and a temperature, and what artefacts answer with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.candidate import Candidate, Reference
from limbeck.core.decision import Decision, DecisionGoal, rates
from limbeck.core.logits import activate
from limbeck.core.outputs import OutputSpec
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.step import RunContext, find, needs, problems_of
from limbeck.core.task import Split, Task
from limbeck.core.temperature import expected_calibration_error, fit_temperature
from limbeck.data.batching import encode
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.store.store import Store
from limbeck.engine.tasks.checked_task import checked_task
from limbeck.errors import RecipeError
from limbeck.measure.decision import DecisionProbe
from limbeck.recipe.recipe import parse
from limbeck.recipe.validation import read


class Noisy:
    """Gives each text of a task the logits of its label, with noise."""

    runtime = "torch"
    int8 = False

    def __init__(self, task, tokenizer, noise, shift=0.0):
        rng, self.by_ids = np.random.default_rng(0), {}
        for split in ("validation", "test"):
            encoded = encode(task, split, tokenizer)
            for ids, label in zip(encoded.input_ids, task.split(split).labels, strict=True):
                if task.kind == "regression":
                    row = np.array([label + noise * rng.normal() + shift])
                else:
                    present = np.isin(np.arange(task.num_labels), list(task.task_kind.classes_in(label)))
                    row = 2.0 * present - 1 + noise * rng.normal(size=task.num_labels)
                    row[0] += shift
                self.by_ids.setdefault(tuple(ids), row)

    def predict(self, batch):
        lengths = batch["attention_mask"].sum(1)
        rows = zip(batch["input_ids"].tolist(), lengths.tolist(), strict=True)
        return np.stack([self.by_ids[tuple(ids[:length])] for ids, length in rows])


@pytest.fixture(scope="module")
def pairs_of():
    """A model and one whose scores lie lower, by kind of the task."""

    def make(kind):
        task = toy_task(kind, train=8, validation=200, test=200)
        tokenizer = toy_tokenizer(task)
        return [Candidate(Noisy(task, tokenizer, 1.0, shift), tokenizer, task) for shift in (0.0, -1.0)]

    return make


def measure(candidates, **fields):
    probe = DecisionProbe.of(**fields)
    context = RestrictedContext(RunContext(reference=Reference("whole", 0)), probe.info)
    return {(index, fact.name, fact.split): fact for index, fact in probe.measure(candidates, context)}


GOALS = {"same-recall": "recall", "same-precision": "precision", "same-alarm-rate": "alarm_rate"}


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("score", ["probability", "max-softmax"])
def test_a_class_is_found_as_often_as_by_the_original(pairs_of, goal, score):
    candidates = pairs_of("classification")
    name = candidates[0].task.label_names[0]
    facts = measure(candidates, threshold=goal, positive=name, positive_score=score, split="test")
    whole = facts[0, "detection", "validation"].detail["usual"][GOALS[goal]]
    detail = facts[1, "detection", "validation"].detail
    assert abs(detail["usual"][GOALS[goal]] - whole) > 0.03
    assert detail["fitted"][GOALS[goal]] >= whole - (0.0 if goal != "same-alarm-rate" else 0.01)
    assert detail["fitted"][GOALS[goal]] <= whole + (0.1 if goal == "same-precision" else 0.02)
    assert facts[1, "threshold", "validation"].value == facts[1, "threshold", "validation"].detail["thresholds"][name]
    assert facts[1, "detection", "test"].n == 200


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_figures_are_those_of_the_answers_that_a_user_gets(pairs_of, kind):
    """The rates of a fact are those of what an artefact answers with the same decision."""
    candidates = pairs_of(kind)
    task, name = candidates[1].task, candidates[1].task.label_names[0]
    facts = measure(candidates, threshold="best-f1", positive=name, temperature=True, split="test")
    fitted = facts[1, "threshold", "validation"].detail
    decision = Decision(facts[1, "temperature", "validation"].value, fitted["thresholds"])
    assert fitted["temperature"] == decision.temperature != 1.0
    assert len(decision.thresholds) == (1 if kind == "classification" else task.num_labels)
    encoded = encode(task, "test", candidates[1].tokenizer)
    logits = np.stack([candidates[1].model.by_ids[tuple(ids)] for ids in encoded.input_ids])
    spec, rows = OutputSpec.for_task(kind, task.label_names), task.split("test").labels
    answers = [spec.decode(row, decision) for row in logits]
    alarms = np.array([name in row["answer"].split(", ") for row in answers])
    truth = np.array([0 in task.task_kind.classes_in(label) for label in rows])
    detail = facts[1, "detection", "test"].detail
    assert detail["fitted"] == rates(alarms, truth)
    labels = [task.task_kind.label_of(row, task.label_names) for row in answers]
    if kind == "classification":
        assert detail["quality"]["fitted"] == np.mean(
            [actual == other for actual, other in zip(labels, rows, strict=True)]
        )
        others = [actual == other for actual, other in zip(labels, rows, strict=True) if other != 0]
        assert detail["others"]["fitted"] == np.mean(others)
    assert (
        task.task_kind.decided(logits, task.label_names, decision)[:, ...]
        == np.array(
            labels
            if kind == "classification"
            else [[score >= decision.thresholds[key] for key, score in row["scores"].items()] for row in answers]
        )
    ).all()


def test_the_temperature_and_what_it_does(pairs_of):
    candidates = pairs_of("classification")
    facts = measure(candidates, temperature=True, split="test")
    task, activation = candidates[0].task, "softmax"
    logits, labels = {}, {}
    for split in ("validation", "test"):
        encoded = encode(task, split, candidates[0].tokenizer)
        logits[split] = np.stack([candidates[0].model.by_ids[tuple(ids)] for ids in encoded.input_ids])
        labels[split] = np.asarray(task.split(split).labels)
    temperature = fit_temperature(logits["validation"], labels["validation"], activation)
    assert facts[0, "temperature", "validation"].value == temperature
    error = facts[0, "calibration_error", "test"]
    assert error.value == expected_calibration_error(logits["test"], labels["test"], activation, temperature)
    assert error.detail == {
        "before": expected_calibration_error(logits["test"], labels["test"], activation),
        "bins": 15,
    }
    assert {name for _, name, _ in facts} == {"temperature", "calibration_error"}


def test_bands_of_numbers(pairs_of):
    candidates = pairs_of("regression")
    facts = measure(candidates, threshold="same-alarm-rate", bands=(0.0, 0.5))
    thresholds = facts[1, "threshold", "validation"].detail["thresholds"]
    assert list(thresholds) == ["0", "0.5"]
    assert thresholds["0"] == pytest.approx(-1.0, abs=0.2)  # its numbers are one lower
    spec = OutputSpec.for_task("regression", ())
    low, high = thresholds["0"], thresholds["0.5"]
    bands = [spec.decode([value], Decision(1.0, thresholds))["band"] for value in (low - 0.01, low, high)]
    assert bands == [None, 0.0, 0.5]


def test_a_positive_class_alone_is_shown_by_the_usual_rule(pairs_of):
    candidates = pairs_of("classification")
    name = candidates[0].task.label_names[1]
    facts = measure(candidates, positive=name)
    assert {fact for _, fact, _ in facts} == {"detection"}
    detail = facts[0, "detection", "validation"].detail
    assert detail["usual"] == detail["fitted"]


def test_the_threshold_of_the_original_is_the_goal_and_nobodys_usual_rule(pairs_of):
    candidates = pairs_of("classification")
    name = candidates[0].task.label_names[0]
    facts = measure(candidates, threshold="same-recall", positive=name, original_threshold=0.9)
    encoded = encode(candidates[0].task, "validation", candidates[0].tokenizer)
    logits = np.stack([candidates[0].model.by_ids[tuple(ids)] for ids in encoded.input_ids])
    alarms = activate(logits, "softmax")[:, 0] >= 0.9
    truth = np.asarray(candidates[0].task.split("validation").labels) == 0
    detail = facts[0, "detection", "validation"].detail
    assert detail["usual"] == rates(logits.argmax(-1) == 0, truth)
    assert detail["usual"] != rates(alarms, truth)
    assert detail["fitted"]["recall"] == rates(alarms, truth)["recall"]
    assert facts[0, "threshold", "validation"].detail["original_threshold"] == 0.9


def test_fields_that_mean_nothing_are_refused_before_any_work():
    def problems(**fields):
        return [str(problem) for problem in read(DecisionProbe, fields, "decision")[1]]

    assert problems(temperature=True) == []
    assert "give a goal" in problems()[0]
    assert "bands: has no effect without a threshold" in problems(temperature=True, bands=[1.0])[0]
    assert "bands: should differ" in problems(threshold="best-f1", bands=[1.0, 1.0])[0]
    assert "cannot be 'same recall'" in problems(threshold="same recall")[0]
    assert problems_of(find("decision").of(positive="spam")) == []
    assert needs(DecisionProbe.of(threshold="same-recall")) == {"teacher"}
    assert needs(DecisionProbe.of(threshold="best-f1", temperature=True)) == set()


@pytest.mark.parametrize(
    ("kind", "fields", "name", "message"),
    [
        ("classification", {"threshold": "best-f1"}, "positive", "is required with a threshold"),
        ("classification", {"threshold": "best-f1", "positive": "postive"}, "positive", "did you mean 'positive'"),
        ("classification", {"temperature": True, "bands": (1.0,)}, "bands", "the task has classes"),
        ("multilabel", {"threshold": "best-f1", "positive_score": "max-softmax"}, "positive_score", "own probability"),
        ("multilabel", {"positive": "x"}, "positive", "no label is called 'x'"),
        ("multilabel", {"threshold": "best-f1", "bands": (1.0,)}, "bands", "the task has labels"),
        ("regression", {"threshold": "best-f1"}, "bands", "is required"),
        ("regression", {"temperature": True}, "temperature", "no probabilities"),
        ("tokens", {"temperature": True}, "temperature", "has no meaning for tokens"),
        ("embedding", {"threshold": "best-f1"}, "threshold", "has no meaning for embedding"),
        ("tokens", {"positive": "B-PER"}, "positive", "has no meaning for tokens"),
        ("rerank", {"positive": "1"}, "positive", "has no meaning for rerank"),
        ("embedding", {"bands": (1.0,)}, "bands", "has no meaning for embedding"),
    ],
)
def test_fields_that_do_not_fit_the_task_are_named(kind, fields, name, message):
    task = replace(
        Task("toy", "classification", {"train": Split(("a",), (0,))}, ("negative", "positive"), "accuracy"),
    )
    if kind != "classification":
        task = toy_task(kind, train=8, validation=8, test=8)
    problems = DecisionProbe(goal=DecisionGoal(**fields)).task_problems(task)
    assert list(problems) == [name]
    assert message in problems[name]


def test_a_class_that_does_not_exist_is_named_before_any_work(tmp_path):
    task = toy_task(train=8, validation=8, test=8)
    data = {"model": "minilm-l6", "task": "toy", "steps": ["finetune", {"decision": {"positive": "hapy"}}]}
    with pytest.raises(
        RecipeError, match=r"steps\[1\]\.decision\.positive: no class is called 'hapy'; did you mean 'happy'"
    ):
        checked_task(parse(data), Store(tmp_path), task)
    data["steps"] = ["export", {"decision": {"positive": "happy", "threshold": "same-recall"}}]
    with pytest.raises(RecipeError, match="needs 'teacher'; put 'finetune'"):
        checked_task(parse(data), Store(tmp_path), task)


def test_the_class_that_matters_may_have_the_name_that_the_data_have_for_it(pairs_of):
    """The model's names replace those of the data after the recipe is checked."""
    candidates = pairs_of("classification")
    task = candidates[0].task
    names = [f"LABEL_{index}" for index in range(task.num_labels)]
    renamed = task.relabel(names, list(reversed(range(task.num_labels))))
    for label in (task.label_names[0], names[-1], names[-1].lower()):
        assert DecisionProbe(goal=DecisionGoal("best-f1", label)).task_problems(renamed) == {}
    turned = [replace(each, task=renamed) for each in candidates]
    facts = measure(turned, threshold="best-f1", positive=task.label_names[0])
    assert list(facts[0, "threshold", "validation"].detail["thresholds"]) == [names[-1]]


def test_bands_that_differ_little_have_names_of_their_own(pairs_of):
    facts = measure(pairs_of("regression"), threshold="best-f1", bands=(1_000_000.0, 1_000_001.0, 0.5))
    assert list(facts[0, "threshold", "validation"].detail["thresholds"]) == ["1e+06", "1000001.0", "0.5"]


def test_a_temperature_needs_true_labels():
    task = replace(toy_task(train=8, validation=8, test=8), answered_by="my-model")
    problems = DecisionProbe(goal=DecisionGoal(temperature=True)).task_problems(task)
    assert "a model's own answers" in problems["temperature"]
    assert DecisionProbe(goal=DecisionGoal("best-f1", task.label_names[0])).task_problems(task) == {}
