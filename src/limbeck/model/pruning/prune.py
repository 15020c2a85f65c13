"""Structured pruning of a model in memory: score the parts, let a goal choose the shape, cut, and repair what stays.

Works on limbeck's encoder, without recipe or store; ``techniques/prune.py`` and ``limbeck.prune`` call it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, TypeVar

from limbeck.errors import InputError
from limbeck.model.pruning import optimal_brain_surgeon
from limbeck.model.pruning.alternatives import AnswerComparison, Chooser, alternatives
from limbeck.model.pruning.goals import CostGoal
from limbeck.model.pruning.hidden_width import narrow_hidden
from limbeck.model.pruning.importance import CRITERIA
from limbeck.model.pruning.reconstruction import Grams, collect, put, repaired
from limbeck.model.pruning.slicing import Cut, RemovalOrder, RemovalOrders, Scores, set_shape, slice_to
from limbeck.model.pruning.subnetwork import forget_slices

if TYPE_CHECKING:
    from torch import Tensor

    from limbeck.core.cost import Cost
    from limbeck.core.shape import Shape
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.pruning.config import PruningConfig
    from limbeck.model.pruning.goals import Goal

M = TypeVar("M", bound="LimbeckForSequenceClassification")
Criterion = Literal["fisher", "taylor", "magnitude", "obs", "ziplm"]


def prune(
    model: M,
    batches: Callable[[], Sequence[dict[str, Tensor]]],
    config: PruningConfig,
    cost: Cost,
    *,
    teacher: Shape | None = None,
    ancestor: bool = False,
    criterion: Criterion = "obs",
    reconstruct: bool = True,
    seed: int = 0,
    keep_orders: Callable[[M, Callable[[], RemovalOrders]], RemovalOrders] = lambda model, build: build(),
    held_out: Callable[[], Sequence[dict[str, Tensor]]] = tuple,
    log: Callable[[str], None] = lambda message: None,
) -> M:
    """Cut layers, channels of the hidden states, heads and neurons of a model, and repair what stays.

    Layers go first, then channels, then tokens; heads and neurons are chosen in what is left.

    Args:
        model: The model, an encoder with its head; it is used up.
        batches: Returns calibration texts, labeled where the criterion reads labels; not called where none are needed.
        config: The goal.
        cost: Cost of shapes, of the goal's quantity.
        teacher: Shape of the model's teacher, for a goal that is relative to it.
        ancestor: Whether the model was made from the teacher, and may be narrower for that reason.
        criterion: How parts are scored.
        reconstruct: Repair what is left by least squares on the texts.
        seed: Decides what the criterion draws.
        keep_orders: Returns the order in which parts of a model go, from a cache or by calling what it gets.
        held_out: Returns texts that are not among the others, by which a width or a schedule is chosen.
        log: Called with a message for each option that is tried, where there is something to choose.

    Returns:
        The smaller model: the same one, unless its hidden states have fewer channels, or there was something to choose.

    Raises:
        InputError: The model has nothing to cut, or no shape meets the goal.
    """
    before: Shape = model.shape
    if not before.depth:
        raise InputError("the model has no layers, so there is nothing to prune")
    alternatives(model, config)  # refuses what cannot be, before any work
    goal, texts = config.goal(cost, before, teacher, ancestor=ancestor), cache(batches)
    comparison = AnswerComparison.of(model, held_out()) if config.chooses else None
    if config.layers is not None:
        layers = config.evenly(before.depth) or important_layers(model, texts(), config.layers, criterion)
        slice_to(model, Cut.whole_layers(before, layers))
        config = replace(config, layers=None)

    def carry_out(model: M, config: PruningConfig) -> M:
        if isinstance(config.hidden, int):
            model = narrow_hidden(model, texts, config.hidden, reconstruct=reconstruct, seed=seed)
        if (shape := config.scheduled(model.shape)) != model.shape:
            set_shape(model, shape)
            forget_slices(model.config)
        if config.narrows:
            orders = partial(keep_orders, model)
            narrow(model, texts(), goal, criterion=criterion, reconstruct=reconstruct, seed=seed, keep_orders=orders)
        return model

    if comparison is None:
        return carry_out(model, config)
    assert isinstance(goal, CostGoal), "a choice needs a goal for the cost"
    return Chooser(model, goal, carry_out, comparison, log).chosen(config)


def narrow(
    model: LimbeckForSequenceClassification,
    batches: Sequence[dict[str, Tensor]],
    goal: Goal,
    *,
    criterion: Criterion = "obs",
    reconstruct: bool = True,
    seed: int = 0,
    keep_orders: Callable[[Callable[[], RemovalOrders]], RemovalOrders] = lambda build: build(),
) -> None:
    """Take heads and neurons out of the layers of a model, in place, and repair what stays.

    Args:
        model: The model, an encoder with its head.
        batches: Calibration texts, labeled where the criterion reads labels.
        goal: Chooses the shape.
        criterion: How parts are scored.
        reconstruct: Repair the output projections by least squares on the texts.
        seed: Decides what the criterion draws.
        keep_orders: Returns the order in which parts go, from a cache or by calling what it gets.

    Raises:
        InputError: No shape meets the goal; the model is then as it was.
    """
    grams = cache(lambda: collect(model, batches))  # not every criterion needs them
    orders = keep_orders(lambda: removal_orders(model, batches, grams, criterion, seed))
    cut = Cut.best(orders, goal(orders, model.shape))
    repair = repaired(model, cut, grams()) if reconstruct else {}
    slice_to(model, cut)
    put(model, repair)


def removal_orders(
    model: LimbeckForSequenceClassification,
    batches: Sequence[dict[str, Tensor]],
    grams: Callable[[], Grams],
    criterion: Criterion,
    seed: int = 0,
) -> RemovalOrders:
    """Return the order in which heads and neurons are removed, and what is lost on the way.

    Args:
        model: The model to score.
        batches: Calibration texts.
        grams: Returns the second moments of layer inputs.
        criterion: How parts are scored.
        seed: Decides what the criterion draws.
    """
    if criterion == "obs":
        return optimal_brain_surgeon.second_order(model, batches, grams(), seed)
    if criterion == "ziplm":
        return optimal_brain_surgeon.layer_wise(model, grams())
    return scores(model, batches, criterion).orders


def scores(
    model: LimbeckForSequenceClassification, batches: Sequence[dict[str, Tensor]], criterion: Criterion
) -> Scores:
    """Score every head, neuron and layer by itself; by Fisher's scores where the criterion ranks them together.

    Args:
        model: The model to score.
        batches: Calibration texts.
        criterion: How parts are scored.
    """
    return CRITERIA.get(criterion, CRITERIA["fisher"])(model, batches)


def important_layers(
    model: LimbeckForSequenceClassification, batches: Sequence[dict[str, Tensor]], count: int, criterion: Criterion
) -> tuple[int, ...]:
    """Return the layers that matter most, counted from 0, ascending.

    Args:
        model: The model to score.
        batches: Calibration texts.
        count: Layers to return.
        criterion: How layers are scored.
    """
    return RemovalOrder.of(scores(model, batches, criterion).layers).remaining(count)
