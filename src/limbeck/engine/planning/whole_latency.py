"""The latency of the whole model in INT8, as pruning predicts it: a goal above it cuts nothing."""

from __future__ import annotations

from limbeck.core.candidate import Candidate
from limbeck.core.target import Target
from limbeck.core.task import Task
from limbeck.cost_models.shape_cost import latency_cost
from limbeck.engine.costs import make_cost
from limbeck.engine.store.store import Store


def whole_latency(model: str, task: Task, target: Target, store: Store, profile: str | None = None) -> float:
    """Return the predicted latency of a model in INT8, in milliseconds.

    What is measured for it is kept in the store: pruning finds the same table.

    Args:
        model: Folder or hub name of the model, trained or not: only its shape counts.
        task: The task, whose texts have the lengths that count.
        target: Where the model will be served.
        store: Where measurements are kept.
        profile: File of latency data of another machine, which is used instead.
    """
    from limbeck.model.checkpoints import open_model

    opened, tokenizer = open_model(model, task=task, seed=0)
    measured = None if profile is not None else make_cost(Candidate(opened, tokenizer, task), None, target, store)
    return 1e3 * latency_cost(measured, target, "int8", profile=profile)(opened.shape).value
