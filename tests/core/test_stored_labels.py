from __future__ import annotations

import json

import pytest

from limbeck.core.judged_texts import Document, Example, Query
from limbeck.core.soft_label import SoftLabel
from limbeck.core.stored_labels import from_plain, to_plain


@pytest.mark.parametrize(
    "label",
    [
        3,
        0.5,
        (1, 0, 1),
        SoftLabel(1, (0.25, 0.75)),
        Document(7),
        Query(((3, 1.0), (0, 2.0))),
        Query(()),
        Query(((3, 1.0),), 2),
        Example(2, True),
    ],
)
def test_a_label_survives_a_file(label):
    again = from_plain(json.loads(json.dumps(to_plain(label))))
    assert again == label
    assert type(again) is type(label)
    assert getattr(again, "probabilities", None) == getattr(label, "probabilities", None)
