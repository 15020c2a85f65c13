"""What may be asked of the main job, and what is refused before anything is read."""

from __future__ import annotations

import pytest

from limbeck.core.decision import DecisionGoal
from limbeck.core.target import Budget
from limbeck.engine.planning.compress_request import CompressRequest
from limbeck.errors import InputError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "prunes"}, "strategy: there is no 'prunes'; did you mean 'prune'"),
        ({"effort": "fast"}, "effort: there is no 'fast'"),
        ({"effort": "one-shot", "strategy": "both"}, "effort 'one-shot' trains no super-network"),
        ({"effort": "one-shot", "teacher": "owner/large"}, "trains nothing that could learn from it"),
        ({"replicas": 0}, "replicas"),
        ({"max_minutes": 0.0}, "max_minutes"),
        ({"budget": Budget(latency_ms=-1.0)}, "latency_ms"),
        ({"decision": DecisionGoal(bands=(1.0,))}, "give a goal"),
        ({"decision": DecisionGoal(original_threshold=2.0)}, "should be in"),
    ],
)
def test_what_makes_no_sense_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        CompressRequest(**values).check()


def test_what_can_be_asked_is_accepted():
    CompressRequest().check()
    CompressRequest(Budget(latency_ms=2.0), "both", "thorough", replicas=3, max_minutes=30.0).check()
