"""Latency of shapes on the target, measured on first use, as a table or a predictor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from limbeck.core.cost import Cost, Memo, RepeatedCost, TargetCost
from limbeck.core.token_schedule import scheduled_like

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.search_space import Space
    from limbeck.core.shape import Shape
    from limbeck.core.target import Target


class MeasuredCost(TargetCost):
    """Latency of shapes on the target, measured at the first call and kept in the store's memo.

    For everything that can be cut out of ``whole`` it is a table; for a super-network whose hidden width or head width
    varies, which no table covers, a predictor that learns from shapes of its space. The table of another width is tied
    to the first one, as the two are compared.

    Args:
        candidate: The model whose slices are priced.
        target: Where latency is measured.
        memo: Keeps what was measured: (name, function that measures) -> JSON.
        whole: The shape whose slices a latency table covers; the candidate's own unless given.
        elastic: Whether slices of other widths count, where the candidate is a super-network.
        origin: Costs of the width that these are compared with.
    """

    def __init__(
        self,
        candidate: Candidate,
        target: Target,
        memo: Memo,
        whole: Shape | None = None,
        *,
        elastic: bool = True,
        origin: MeasuredCost | None = None,
    ) -> None:
        self._elastic, self._origin = elastic, origin
        self._candidate, self._memo, self._served = candidate, memo, target
        self._whole: Shape = whole or candidate.model.shape
        (self._target, self._calls), self._request = target.of_sub_batch(), str(target)
        self._costs: dict[str, Cost] = {}

    def for_format(self, number_format: str) -> Cost:
        """Return the latencies in that number format: a ``LatencyTable``, a ``Predictor``, or a multiple of one."""
        if number_format not in self._costs:
            self._costs[number_format] = self._measure(number_format)
        return self._costs[number_format]

    def of_width(self, hidden: int) -> TargetCost:
        """Return the costs of everything that can be cut out of ``whole``, were it of another hidden width."""
        if hidden == self._whole.hidden or self._varies() is not None:
            return self
        origin = self._origin or self
        return origin if hidden == origin._whole.hidden else self._of(replace(self._whole, hidden=hidden), origin)

    def of_schedule(self, shape: Shape) -> TargetCost:
        """Return the costs of everything that can be cut out of ``whole``, were its layers to pass on fewer tokens.

        Slices of another hidden width or head width have no part in it: a model with a schedule is no super-network.

        Args:
            shape: Has the schedule, which need not be of the same depth.
        """
        whole = scheduled_like(self._whole, shape)
        if whole == self._whole and self._varies() is None:
            return self
        return self._of(whole, elastic=False)

    def _of(self, whole: Shape, origin: MeasuredCost | None = None, *, elastic: bool = True) -> MeasuredCost:
        return MeasuredCost(self._candidate, self._served, self._memo, whole, elastic=elastic, origin=origin)

    def _varies(self) -> Space | None:
        """Return the space of a super-network whose hidden width or head width varies."""
        from limbeck.core.search_space import Space

        stored = self._candidate.model.space if self._elastic else None
        space = Space.from_json(stored) if stored else None
        return space if space is not None and len(space.hidden) * len(space.head_dim) > 1 else None

    def _measure(self, number_format: str) -> Cost:
        from limbeck.cost_models.latency_predictor import Predictor

        if (space := self._varies()) is not None:
            return self._of_request(Predictor.memoized(self._candidate, space, self._target, number_format, self._memo))
        return self._of_request(self._table(number_format))

    def _table(self, number_format: str) -> Cost:
        """Return the table of a call, tied to that of the origin."""
        from limbeck.cost_models.latency_table_fit import deepest
        from limbeck.cost_models.table_measurement import Anchor, memoized

        anchor = None
        if self._origin is not None:
            shape = deepest(self._origin._whole)
            anchor = Anchor(shape, self._origin._table(number_format)(shape).value)
        return memoized(self._candidate, self._target, number_format, self._memo, self._whole, anchor)

    def _of_request(self, cost: Cost) -> Cost:
        """Return the cost of all calls of a request, given that of one."""
        return cost if self._calls == 1 else RepeatedCost(cost, self._calls, self._request)
