"""Orders of pieces: some pieces of a step on one stored candidate, as plain data that another process can carry out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.core.measurement import machine
from limbeck.core.pieces import NOTHING, Piece, Result
from limbeck.core.step import discard
from limbeck.distributed.workers import Log, Values
from limbeck.engine.store.transfer import KEPT_PREFIX, pack
from limbeck.engine.target_runs import measured_at
from limbeck.engine.workers.orders import OTHER_KIND, Setting, failure, needs_other_machine, open_order


def piece_order(order: Values, pieces: Sequence[Piece], shared: Mapping[str, Any] = NOTHING) -> Values:
    """Return the order to carry out pieces.

    Args:
        order: The order of their step on its candidate.
        pieces: The pieces.
        shared: What all of them read.
    """
    plain = {name: value for name, value in order.items() if name != "results"}
    return {**plain, "pieces": list(pieces), "shared": dict(shared), "machine": machine()}


def work_on(payload: Values, report: Log) -> Values:
    """Carry out an order of pieces; those of a probe for each of its ``targets``.

    Args:
        payload: The order.
        report: Receives messages of the store.

    Returns:
        ``results``: those of the pieces, in order; or ``error`` with the name of its class and its message; or
        ``elsewhere``, why the results of this machine might be others.
    """
    try:
        return _worked_on(payload, report)
    except Exception as error:  # the step, which is then carried out as a whole, will meet it again
        return failure(payload, error)


def _worked_on(payload: Values, report: Log) -> Values:
    if payload["machine"] != machine():
        return needs_other_machine(OTHER_KIND)
    opened = open_order(payload, report)
    if not isinstance(opened, Setting):
        return opened
    builder, step, key = opened.builder, opened.step, payload["key"]
    candidate = builder.open(key)
    results: list[Result] = []
    with builder.store.machine.working():
        for target in payload.get("targets", [""]):
            context = measured_at(builder, target).context(key, step, payload["seed"], discard)
            results += map(dict, step.work_on(payload["pieces"], payload["shared"], candidate, context))
    if opened.shared:
        return {"results": results}
    names = [piece["keeps"] for piece in payload["pieces"] if "keeps" in piece]
    names += [name for result in results for name in result.get("kept", ())]
    return {
        "results": results,
        "objects": {name: pack(builder.store, name) for name in map(KEPT_PREFIX.__add__, names)},
    }
