"""What kinds with a single number share."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.kinds import KINDS
from limbeck.core.single_number import SingleNumber

NUMBERS = sorted(name for name, kind in KINDS.items() if isinstance(kind, SingleNumber))


def test_scores_and_ratings_are_single_numbers():
    assert NUMBERS == ["regression", "rerank"]


@pytest.mark.parametrize("name", NUMBERS)
def test_the_logit_is_the_answer(name):
    kind = KINDS[name]
    logits = np.array([[0.5], [-1.25]], dtype=np.float32)
    assert kind.decode(logits).tolist() == [0.5, -1.25]
    assert kind.drift(logits, logits + np.float32(0.25), np.zeros(2)).tolist() == [0.25, 0.25]
    answer = kind.answer(logits[0], (), kind.activation)
    assert kind.label_of(answer, ()) == eval(kind.answer_code, {"logits": logits[0]}) == 0.5
    assert kind.answer_name(1 / 3, ()) == "0.3333"
    assert list(kind.classes_in(kind.label_of(answer, ()))) == []
