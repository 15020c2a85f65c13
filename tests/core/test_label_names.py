"""Label names, as config.json has them."""

from __future__ import annotations

import pytest

from limbeck.core.label_names import is_token_classifier, read_labels, silent
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
