"""What a step is told of costs."""

from __future__ import annotations

import numpy as np

from limbeck.core.candidate import Candidate, Record
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.engine.costs import make_cost
from limbeck.engine.store import MACHINE


def test_a_table_covers_the_teacher_and_is_timed_alone(toys, tmp_path):
    store = toys.store(tmp_path / "store")
    store.prepare()
    candidate = Candidate(toys.ToyModel([1.0], ffn=4), "tokenizer", toys.ToyTask())
    wide, other = Shape.uniform(1, 4, 1, 8), Shape.uniform(1, 8, 1, 8)
    seen = []

    def factory(candidate, target, memo, whole):
        def measure():
            with store.lock(MACHINE, wait=False) as free:
                seen.append(free)
            return {"seconds": np.ones(1)}

        memo("table", measure)
        return whole

    for teacher, expected in ((None, candidate.model.shape), (wide, wide), (other, candidate.model.shape)):
        record = Record("t", None, "model", shape=teacher) if teacher else None
        assert make_cost(candidate, record, Target(), store, factory) == expected
    assert seen == [False]
