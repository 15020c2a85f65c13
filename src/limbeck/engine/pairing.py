"""Choose the pairs of candidates that a combination is applied to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from limbeck.core.combination import Combination
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.run_log import RunLog


def choose_pairs(
    builder: CandidateBuilder, log: RunLog, front: Sequence[str], step: Combination, seed: int
) -> list[tuple[str, Combination]]:
    """Return what a combination is applied to: the key of a candidate, and the step with the key of its partner.

    Args:
        builder: Has the records, and opens candidates.
        log: Receives what the step says.
        front: Keys of the candidates to choose from.
        step: The combination.
        seed: Seed of everything random.
    """
    if not front:
        return []
    context = builder.context(front[0], replace(step, partner=""), seed, log.of(step.info.name, ""))
    with builder.store.machine.working():
        pairs = step.pairs([builder.stored(key) for key in front], context)
    return [(pair.key, replace(step, partner=pair.partner)) for pair in pairs]
