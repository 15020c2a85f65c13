"""What outputs mean, for the configurations that people have."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.kinds import KINDS
from limbeck.core.outputs import (
    Match,
    OutputSpec,
    answer_code,
    match_labels,
)
from limbeck.errors import InputError

TEXT, TOKENS = ["BertForSequenceClassification"], ["RobertaForTokenClassification"]
SCORE = {"architectures": TEXT, "id2label": {"0": "LABEL_0"}}


def named(*names, **config):
    return {"architectures": TEXT, "id2label": {str(index): name for index, name in enumerate(names)}, **config}


@pytest.mark.parametrize(
    ("config", "kind", "activation"),
    [
        (SCORE, "score", "sigmoid"),
        (SCORE | {"problem_type": "single_label_classification"}, "score", "sigmoid"),
        (SCORE | {"problem_type": "regression"}, "regression", "identity"),
        (
            SCORE | {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            "score",
            "identity",
        ),
        (SCORE | {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "score", "identity"),
        (SCORE | {"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}, "score", "tanh"),
        (
            SCORE | {"problem_type": "regression", "sentence_transformers": {"activation_fn": "torch.nn.Sigmoid"}},
            "score",
            "sigmoid",
        ),
        (named("no", "yes"), "classification", "softmax"),
        (named("a", "b", problem_type="multi_label_classification"), "multilabel", "sigmoid"),
        (named("a", problem_type="multi_label_classification"), "multilabel", "sigmoid"),
        (named("O", "B", architectures=TOKENS), "tokens", "softmax"),
    ],
)
def test_the_configuration_decides(config, kind, activation):
    spec = OutputSpec.from_config(config)
    assert (spec.kind, spec.activation) == (kind, activation)
    assert spec.trained


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_type": "ranking"}, "problem_type 'ranking'; choose from multi_label"),
        ({"problem_type": ["regression"]}, r"problem_type \['regression'\]; choose from multi_label"),
        ({"sentence_transformers": {"activation_fn": "my.Own"}}, r"activation 'my.Own'; known are torch\.nn\.Sigmoid"),
    ],
)
def test_an_unknown_meaning_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        OutputSpec.from_config(SCORE | change)


@pytest.mark.parametrize(
    ("model", "task", "outputs", "names", "assumed"),
    [
        ("no yes", "no yes", (0, 1), "no yes", False),
        ("NO Yes", "yes no", (1, 0), "NO Yes", False),
        ("a A", "A a", (1, 0), "a A", False),
        ("neg neutral pos", "neg pos", (0, 2), "neg neutral pos", False),
        ("LABEL_0 LABEL_1", "no yes", (0, 1), "no yes", True),
        ("NEG POS", "0 1", (0, 1), "NEG POS", True),
        ("LABEL_0 LABEL_1", "0 1", (0, 1), "LABEL_0 LABEL_1", True),
        ("NEG POS", "1 0", (0, 1), "NEG POS", True),
        ("0 1", "0 1", (0, 1), "0 1", False),
    ],
)
def test_labels_of_a_task_among_the_outputs(model, task, outputs, names, assumed):
    match = match_labels(model.split(), task.split())
    assert (match.outputs, match.names, match.assumed) == (outputs, tuple(names.split()), assumed)


@pytest.mark.parametrize(
    ("model", "task"),
    [("a b", "c d"), ("a b", "a b c"), ("a b", "0 1 2"), ("LABEL_0 LABEL_1 LABEL_2", "0 1"), ("a b", "a c")],
)
def test_labels_that_do_not_match(model, task):
    match = match_labels(model.split(), task.split())
    assert not match
    assert "its labels are" in match.refusal


@pytest.mark.parametrize(
    ("config", "kind", "reason"),
    [
        (SCORE, "classification", "one output, a number"),
        (SCORE, "regression", "its output is a score .sigmoid of the logit."),
        (named("a", "b"), "regression", "2 classes, the task's labels are numbers"),
        (named("a", "b"), "tokens", "it answers whole texts"),
        (named("a", "b", architectures=TOKENS), "classification", "it answers words"),
        (named("a", "b", problem_type="multi_label_classification"), "classification", "its outputs are multilabel"),
        (named("a", "b", problem_type="single_label_classification"), "multilabel", "its outputs are classification"),
        ({"architectures": ["BertModel"]}, "classification", "no head"),
    ],
)
def test_a_head_of_another_kind_does_not_answer(config, kind, reason):
    import re

    assert re.search(reason, OutputSpec.from_config(config).match(kind, ("a", "b")).refusal)


def test_the_task_decides_what_the_configuration_leaves_open():
    assert OutputSpec.from_config(named("a", "b")).match("multilabel", ("b", "a")).outputs == (1, 0)
    assert not OutputSpec.from_config(named("a", "b", "c")).match("multilabel", ("b", "a"))
    identity = SCORE | {"sentence_transformers": {"activation_fn": "torch.nn.Identity"}}
    assert OutputSpec.from_config(identity).match("regression", ())


def test_a_head_with_missing_tensors_answers_nothing():
    spec = OutputSpec.from_config(named("a", "b"), missing=["pooler.dense.weight"])
    assert not spec.trained
    assert spec.match("classification", ("a", "b")).refusal == (
        "its weights lack 1 tensor of the head: pooler.dense.weight"
    )


def test_answers():
    classes = OutputSpec.for_task("classification", ("no", "yes"))
    assert classes.decode([1000.0, -1000.0]) == {"answer": "no", "scores": {"no": 1.0, "yes": 0.0}}
    several = OutputSpec.for_task("multilabel", ("a", "b", "c"))
    assert several.decode([2.0, -2.0, 1.0])["answer"] == "a, c"
    assert OutputSpec.for_task("regression", ()).decode([8000.25]) == {"answer": 8000.25, "scores": {}}
    assert OutputSpec.from_config(SCORE).decode([0.0])["answer"] == 0.5
    words = OutputSpec.for_task("tokens", ("O", "B"))
    assert words.decode([[1, 0], [0, 1]]) == {"answer": "O B", "labels": ["O", "B"]}
    with pytest.raises(InputError, match="1 NaN of 2"):
        classes.decode([0.0, float("nan")])


@pytest.mark.parametrize("kind", [*KINDS, "score"])
def test_code_answers_as_decode_does(kind):
    spec = OutputSpec.for_task(kind, ("a", "b") if kind not in ("score", "regression") else ())
    logits = np.array([[0.5, -1.0], [-1.0, 2.0]] if kind == "tokens" else [0.3, -0.2])
    code = answer_code(kind, "labels")
    seen = {"words": ["x", "y"], "seen": dict(enumerate(logits))} if kind == "tokens" else {}
    value = eval(code, {"numpy": np, "logits": logits, "labels": spec.labels, **seen})
    answer = spec.decode(logits)
    expected = (
        answer["labels"] if kind == "tokens" else [answer["answer"]] if kind == "multilabel" else answer["answer"]
    )
    assert value == (pytest.approx(expected) if kind in ("score", "regression") else expected)


def test_rows_of_one_class_are_matched_by_its_number():
    """A file of one class can be judged; no task that is trained on has only one."""
    assert match_labels(["NEGATIVE", "POSITIVE"], ["1"]) == Match((1,), ("NEGATIVE", "POSITIVE"), assumed=True)
    assert not match_labels(["NEGATIVE", "POSITIVE"], ["2"])
    assert not match_labels(["a", "b", "c"], ["0", "1"])
    assert match_labels(["0", "1", "2"], ["2", "0"]) == Match((2, 0), ("0", "1", "2"))
    assert match_labels(["LABEL_0", "LABEL_1", "LABEL_2"], ["LABEL_0", "LABEL_2"]).outputs == (0, 2)
    assert not match_labels(["0", "1", "2"], ["2", "3"])
    assert not match_labels(["0", "1", "2"], ["2", "0"], subset=False)
