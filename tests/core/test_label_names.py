"""Label names, as config.json has them."""

from __future__ import annotations

import pytest

from limbeck.core.label_names import is_token_classifier, label_called, label_difference, read_labels, silent
from limbeck.errors import InputError

TEXT = ["BertForSequenceClassification"]


def named(*names, **config):
    return {"architectures": TEXT, "id2label": {str(index): name for index, name in enumerate(names)}, **config}


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"architectures": ["BertModel"]}, ()),
        ({"architectures": TEXT}, ("LABEL_0", "LABEL_1")),
        ({"architectures": TEXT, "num_labels": 1}, ("LABEL_0",)),
        ({"architectures": TEXT, "label2id": {"yes": 1, "no": 0}}, ("no", "yes")),
        (named("no", "yes"), ("no", "yes")),
        (named("no", "yes", label2id={"LABEL_0": 0, "LABEL_1": 1}), ("no", "yes")),
        (named("LABEL_0", "LABEL_1", label2id={"yes": 1, "no": 0}), ("no", "yes")),
        (named("no", "yes", label2id={"yes": "1", "no": "0"}), ("no", "yes")),
        ({"id2label": {1: "b", 0: "a"}}, ("a", "b")),
        ({"id2label": {"0": 1, "1": 2}}, ("1", "2")),
    ],
)
def test_label_names_in_the_order_of_the_outputs(config, labels):
    assert read_labels(config) == labels


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": {"1": "a", "2": "b"}}, "has the numbers 1, 2; the 2 outputs are numbered 0 to 1"),
        ({"id2label": {"0": "a", "2": "b"}}, "has the numbers 0, 2"),
        ({"id2label": ["a", "b"]}, "should map output numbers to names"),
        ({"id2label": "ab"}, "should map output numbers to names"),
        ({"id2label": {"a": 0, "b": 1}}, "has the key 'a'; keys are the numbers 0 to 1"),
        ({"id2label": {"0": "a", "1": "a"}}, "gives the name 'a' to 2 outputs"),
        ({"id2label": {"0": "a", "1": None}}, "names output 1 None"),
        ({"id2label": {"0": "a", "1": " "}}, "names output 1 ' '"),
        ({"id2label": {"0": "a", "1": ["b"]}}, "names output 1"),
        (
            named("a", "b", label2id={"a": 1, "b": 0}),
            "contradicts itself: label2id has 'a' as output 1, id2label has 'b'",
        ),
        (named("a", "b", label2id={"a": 0, "b": 2}), "'b' as output 2, id2label has no such output"),
        (named("a", "b", label2id=["a", "b"]), "label2id in config.json should map names"),
        ({"architectures": TEXT, "num_labels": "two"}, "num_labels 'two'"),
    ],
)
def test_unusable_label_names_are_one_error(config, message):
    with pytest.raises(InputError, match=message):
        read_labels(config, "folder")


def test_names_that_say_nothing():
    assert silent(["LABEL_0", "LABEL_1"])
    assert silent(["3", "4"])
    assert not silent(["LABEL_a"])
    assert not silent(["²"])


def test_token_classifiers_are_known_by_their_architecture():
    assert is_token_classifier({"architectures": ["BertForTokenClassification"]})
    assert not is_token_classifier({"architectures": ["BertForSequenceClassification"]})
    assert not is_token_classifier({"architectures": "BertForTokenClassification"})
    assert not is_token_classifier({})


MANY = [f"name {index}" for index in range(77)]


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (["no", "yes"], ["no", "yes"], ""),
        (["no", "yes"], ("LABEL_0", "LABEL_1"), ""),
        (["no", "yes"], ["yes", "no"], "have other labels: no, yes and yes, no"),
        (["LABEL_0", "LABEL_1"], ["LABEL_1", "LABEL_0"], "have other labels: LABEL_0, LABEL_1 and LABEL_1, LABEL_0"),
        (["no", "yes"], ["no", "yes", "maybe"], "have other labels (2 and 3): no, yes and no, yes, maybe"),
        (["no", "yes"], ["LABEL_0"], "have other labels (2 and 1): no, yes and LABEL_0"),
        (MANY, [*MANY[:75], MANY[76], MANY[75]], "have other labels: output 75 is name 75 and name 76"),
    ],
)
def test_how_the_labels_of_two_models_differ(first, second, reason):
    assert label_difference(first, second) == reason
    assert bool(label_difference(second, first)) == bool(reason)


def test_a_label_is_called_by_either_name_unless_that_could_be_two():
    labels, former = ("NEG", "POS", "Neg"), ("0", "1", "2")
    assert [label_called(name, labels, former) for name in ("POS", "1", "pos", "Neg")] == ["POS", "POS", "POS", "Neg"]
    assert label_called("neg", labels, former) == "neg"
