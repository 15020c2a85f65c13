"""Choose the pairs of candidates that a combination is applied to.

What was chosen is kept: a run that is begun again finds times that were measured later, beside what the combination
made, and by those it might choose other pairs. It is kept for these probes and the machine that they measured on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from limbeck.core.candidate import lineage_key
from limbeck.core.combination import Combination, Pair
from limbeck.core.field_groups import parameters
from limbeck.core.measurement import machine
from limbeck.core.step import Probe, Step
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.run_log import RunLog
from limbeck.recipe.parsing import leaves
from limbeck.recipe.recipe import placed_steps


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
    chosen = builder.store.facts.recall(name := _name(builder, front, step, seed), _read)
    if chosen is None:
        notes: list[str] = []
        context = builder.context(
            front[0], step.with_partner(""), seed, lambda message, **numbers: notes.append(message)
        )
        with builder.store.machine.working():
            pairs = step.pairs([builder.stored(key) for key in front], context)
        chosen = {"pairs": [list(pair) for pair in pairs], "notes": notes}
        builder.store.facts.remember(name, chosen)
    for note in [*chosen["notes"], *_of_the_first_target(builder, chosen["pairs"])]:
        log.step(step.info.name, "", note)
    return [(pair.key, step.with_partner(pair.partner)) for pair in (Pair(*keys) for keys in chosen["pairs"])]


def _of_the_first_target(builder: CandidateBuilder, pairs: Sequence[Any]) -> list[str]:
    """Return that what is made of the pairs of another target is fitted to answers on the first one."""
    first = next(iter(builder.recipe.settings))
    if not pairs or builder.target == first:
        return []
    return [
        f"for the target '{builder.target}' pairs are chosen; what is made of them is fitted on the target '{first}'"
    ]


def _name(builder: CandidateBuilder, front: Sequence[str], step: Combination, seed: int) -> str:
    """Return the name under which the pairs of these candidates are stored; it has those of the facts behind them."""
    leading = _steps_before(builder, step)
    probes = [builder.fact_name(front[0], probe, seed, ()) for probe in leading if isinstance(probe, Probe)]
    facts = {"machine": machine(), "measured": builder.recipe.at(builder.target).target.identity(), "probes": probes}
    reads = builder.reads(front[0], step, seed) | {"candidates": list(front), **facts}
    return "pairs-" + lineage_key(None, f"pairs {step.info.name}", step.info.version, parameters(step), reads)


def _steps_before(builder: CandidateBuilder, step: Combination) -> list[Step]:
    """Return the steps of the recipe that come before a combination, those in branches included."""
    steps = [located.step for located in leaves(placed_steps(builder.recipe))]
    return steps[: max((index for index, each in enumerate(steps) if each == step), default=len(steps))]


def _read(data: Any) -> dict[str, Any]:
    """Check what was stored; ``Any``, as it comes from JSON."""
    pairs, notes = data["pairs"], data["notes"]
    texts = [text for pair in pairs for text in pair] + notes
    if not all(len(pair) == 2 for pair in pairs) or not all(isinstance(text, str) for text in texts):
        raise ValueError("pairs should be two keys each, notes texts")
    return {"pairs": pairs, "notes": notes}
