"""Choose candidates by their facts; a model that does no better than a constant answer is never chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from limbeck.core.candidate import Record
from limbeck.core.field_groups import parameters
from limbeck.core.step import Choice
from limbeck.core.task import Task
from limbeck.data.baseline import baseline
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.reference import reference
from limbeck.engine.run_log import RunLog
from limbeck.recipe.parsing import LocatedStep


def choose(builder: CandidateBuilder, log: RunLog, front: Sequence[str], placed: LocatedStep, seed: int) -> list[str]:
    """Apply a choice, and log what it kept.

    Args:
        builder: Has the records.
        log: Records the choice.
        front: Keys of the candidates to choose from; at least one.
        placed: The choice.
        seed: Seed of everything random.

    Returns:
        The keys that were chosen.
    """
    step = placed.step
    assert isinstance(step, Choice)
    compared = reference(builder, front) if "teacher" in step.info.reads else None
    context = builder.context(front[0], step, seed, log.of(step.info.name, ""), reference=compared)
    records = [builder.records[key] for key in front]
    chosen = step.choose(better_than_constant(builder.task, records) if step.info.final else records, context)
    for record in chosen:
        if record.notes != builder.records[record.key].notes:  # such as the limits that even the nearest one breaks
            builder.records[record.key] = replace(builder.records[record.key], notes=record.notes)
            log.rewrite(builder.records[record.key], builder.target)
            log.note(f"{step.info.name}{f' for {builder.target}' * bool(builder.target)}: {record.notes[-1]}")
    keys = [record.key for record in chosen]
    event: dict[str, Any] = {"step": step.info.name, "path": placed.path, "among": list(front), "kept": keys}
    event |= {"target": builder.target} if builder.target else {}
    log.ledger.append("choice", parameters=parameters(step), **event)
    log.emit({"kind": "choice", **event})
    return keys


def better_than_constant(task: Task, records: Sequence[Record]) -> Sequence[Record]:
    """Return the candidates that beat the best constant answer on validation; all of them if none does.

    A candidate below that is useless, however fast it is. One number decides: a test would leave out good candidates
    where there are few texts, and whether the teacher beats the constant answer was tested before.
    """
    if "validation" not in task.splits:
        return records
    constant = baseline(task).quality["validation"].value
    facts = [(record, record.fact("quality", "validation")) for record in records]
    return [record for record, fact in facts if fact is None or fact.value > constant] or records
