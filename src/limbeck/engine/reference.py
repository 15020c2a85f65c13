"""The model that figures of a run are relative to: speed-ups, losses of quality, and the budget's ``max_drop``.

It is the teacher if limbeck can open it. A teacher that only gives answers has no latency, no size and no PyTorch model
that a user could serve instead; then it is the run's own model before anything was removed from it.
"""

from __future__ import annotations

from collections.abc import Iterable

from limbeck.core.candidate import lineage
from limbeck.core.step import Step
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.root_record import untrained


def reference(builder: CandidateBuilder, keys: Iterable[str]) -> str | None:
    """Return the model that the figures of these candidates are relative to, preferably a measured one.

    Args:
        builder: Has the records.
        keys: Keys of the candidates, the most important first.
    """
    references = [key for key in (_reference(builder, key) for key in dict.fromkeys(keys)) if key is not None]
    measured = (key for key in references if any(not fact.is_prediction for fact in builder.records[key].facts))
    return next(measured, next(iter(references), None))


def measured_with(builder: CandidateBuilder, front: Iterable[str], step: Step) -> list[str]:
    """Return the models that a probe measures together with a front: the reference, and the teacher's answers.

    Args:
        builder: Has the records.
        front: Keys of the candidates; at least one.
        step: The probe.
    """
    keys = list(front)
    if not step.info.with_teacher:
        return []
    whole = reference(builder, keys)
    if not step.info.judges:
        return [whole] if whole else []
    if whole and untrained(builder.records[whole]):
        whole = None  # a random head has no quality
    return list(dict.fromkeys(key for key in (builder.teacher(keys[0], step), whole) if key))


def _reference(builder: CandidateBuilder, key: str) -> str | None:
    teacher = builder.teacher(key)
    if teacher is None or teacher != builder.given_key:
        return teacher
    chain = lineage(builder.records, key)
    steps = [(record.key, origin) for record in chain if (origin := builder.origins[record.key].step) is not None]
    tuned = [key for key, origin in steps if "teacher" in origin.info.gives]
    # texts whose labels are the teacher's vectors: those of the own model are no answers until it has learned them
    foreign = builder.task.task_kind.vectors and builder.task.answered_by is not None
    if not tuned and (foreign or untrained(chain[0])):
        tuned = [key for key, origin in steps if origin.info.trains]
    return tuned[0] if tuned else chain[0].key
