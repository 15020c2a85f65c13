"""The cost of a model's shapes by quantity: operations, parameters and bytes by formula, or latency."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from limbeck.core import analytic_cost
from limbeck.core.analytic_cost import NumberFormat
from limbeck.core.cost import Cost, FunctionCost, RepeatedCost, TargetCost, WidthCost
from limbeck.core.measurement import Measurement, machine
from limbeck.core.token_schedule import geometric
from limbeck.errors import InputError
from limbeck.measure import samples

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.target import Target
    from limbeck.model.pruning.config import PruningConfig

Quantity = Literal["macs", "parameters", "size"]


def counted_cost(quantity: Quantity, candidate: Candidate, number_format: NumberFormat = "float") -> Cost:
    """Return a cost that is counted from the shape alone.

    Args:
        quantity: Multiply-accumulates of a text of typical length, parameters, or bytes of the weights.
        candidate: The model whose slices are priced, and the task whose texts it reads.
        number_format: Format of the weights, for their size.

    Returns:
        The cost, in MAC, 1 or B.
    """
    model, labels = candidate.model, candidate.task.num_labels
    style, pooler = model.encoder.style, model.pooler is not None
    if quantity == "size":
        return FunctionCost(
            lambda shape: Measurement("size", analytic_cost.bytes(shape, style, number_format, labels, pooler), "B")
        )
    if quantity == "parameters":
        return FunctionCost(
            lambda shape: Measurement("parameters", analytic_cost.parameters(shape, style, labels, pooler), "1")
        )
    tokens, kind = samples.typical_length(candidate), candidate.task.task_kind
    count = partial(analytic_cost.macs, all_tokens=kind.per_token or kind.vectors)
    return FunctionCost(lambda shape: Measurement("macs", count(shape, tokens, style, labels, pooler), "MAC"))


def cost_of(
    quantity: Quantity | Literal["latency"],
    candidate: Candidate,
    measured: TargetCost | None,
    target: Target,
    number_format: NumberFormat,
    *,
    profile: str | None = None,
    log: Callable[..., None] = lambda message: None,
) -> Cost:
    """Return the cost that a goal or a bound is stated in.

    Args:
        quantity: What is counted.
        candidate: The model whose slices are priced.
        measured: As for :func:`latency_cost`.
        target: As for :func:`latency_cost`.
        number_format: Format that serves.
        profile: As for :func:`latency_cost`.
        log: As for :func:`latency_cost`.
    """
    if quantity == "latency":
        return latency_cost(measured, target, number_format, profile=profile, log=log)
    return counted_cost(quantity, candidate, number_format)


def pruning_cost(
    config: PruningConfig,
    candidate: Candidate,
    measured: TargetCost | None,
    target: Target,
    log: Callable[..., None] = lambda message: None,
) -> Cost:
    """Return the cost that a goal of pruning is stated in; of latencies, for widths and tokens before and after a cut.

    Args:
        config: The goal.
        candidate: The model whose slices are priced.
        measured: As for :func:`latency_cost`.
        target: As for :func:`latency_cost`.
        log: As for :func:`latency_cost`.
    """
    number_format, profile = config.number_format, config.profile
    widths = config.hidden is not None or config.relative_to == "teacher"
    if config.quantity != "latency" or profile is not None or measured is None:
        return cost_of(config.quantity, candidate, measured, target, number_format, profile=profile, log=log)
    costs = measured
    if config.tokens is not None:
        fewest = geometric(candidate.model.shape, config.strictest)  # a table knows all that lies in between, too
        costs = costs.of_schedule(fewest)
    if not widths and config.tokens is None:
        return costs.for_format(number_format)
    # made when it is asked for, as the model may be refused before
    return WidthCost(lambda hidden: costs.of_width(hidden).for_format(number_format))


def latency_cost(
    measured: TargetCost | None,
    target: Target,
    number_format: NumberFormat,
    *,
    profile: str | None = None,
    log: Callable[..., None] = lambda message: None,
) -> Cost:
    """Return the latency of shapes on the target.

    Args:
        measured: Latencies measured on this machine; None where there are none.
        target: Device, runtime, threads and batch that count.
        number_format: Format that serves.
        profile: File of latency data, which is used instead of ``measured``.
        log: Called with one line about the fit to the file.

    Returns:
        The cost, in seconds.

    Raises:
        InputError: There are no latencies, or no series of the file fits the target.
    """
    if profile is not None:
        from limbeck.cost_models.predictor_file import open_predictor

        call, calls = target.of_sub_batch()
        predictor = open_predictor(profile, call, number_format, log)
        return predictor if calls == 1 else RepeatedCost(predictor, calls, str(target))
    if measured is None:
        raise InputError("no model of latency for this target; use cost: macs")
    return measured.for_format(number_format)


def predicted_latency(latency: Measurement, number_format: NumberFormat, *, elsewhere: bool) -> Measurement:
    """Return a latency by a cost model as the prediction that a later measurement is compared with.

    Args:
        latency: Latency of a shape.
        number_format: Format that it is for.
        elsewhere: Whether the model stands for another machine or length of texts; it is then not compared.
    """
    detail = {"number_format": number_format, **latency.detail} | ({"elsewhere": True} if elsewhere else {})
    return replace(latency, name="latency_predicted", detail=detail)


def is_elsewhere(cost: Cost, candidate: Candidate, target: Target) -> bool:
    """Return whether a predictor was learned on another machine, or with texts of another length than the task's.

    Args:
        cost: Latency of shapes.
        candidate: Gives the texts whose typical length counts.
        target: Gives the batch, and the length if it is fixed.
    """
    from limbeck.cost_models.latency_predictor import Predictor

    if isinstance(cost, RepeatedCost):
        cost, target = cost.cost, target.of_sub_batch()[0]
    if not isinstance(cost, Predictor):
        return False
    here = (machine(), target.seq_len or samples.typical_length(candidate, target.batch))
    return (cost.machine, cost.setting.seq_len) != here
