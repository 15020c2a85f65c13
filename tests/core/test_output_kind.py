"""What every kind of output says about itself."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.decision import Decision
from limbeck.core.kinds import KINDS
from limbeck.core.output_kind import Output

LOGITS = {"tokens": np.array([[2.0, -1.0], [0.5, 1.5]]), "regression": np.array([1.5]), "rerank": np.array([1.5])}


def logits_of(kind):
    return LOGITS.get(kind, np.array([2.0, -1.0]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_answers_in_words_or_numbers(kind):
    output = KINDS[kind]
    assert isinstance(output, Output)
    answer = output.answer(logits_of(kind), ("no", "yes"), output.activation)
    assert "answer" in answer


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KINDS[kind].numeric and not KINDS[kind].vectors])
def test_a_temperature_changes_scores_and_no_answer(kind):
    output = KINDS[kind]
    plain = output.answer(logits_of(kind), ("no", "yes"), output.activation)
    flat = output.decide(logits_of(kind), ("no", "yes"), output.activation, Decision(temperature=50.0))
    assert flat["answer"] == plain["answer"]
