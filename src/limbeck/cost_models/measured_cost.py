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
    varies, which no table covers, a predictor that learns from shapes of its space. A table of another width or
    schedule is tied to that of the model it is compared with.

    Args:
        candidate: The model whose slices are priced.
        target: Where latency is measured.
        memo: Keeps what was measured: (name, function that measures) -> JSON.
        whole: The shape whose slices a latency table covers; the candidate's own unless given.
        elastic: Whether slices of other widths count, where the candidate is a super-network.
        compared_with: Costs of another width or schedule, in whose terms these are.
    """

    def __init__(
        self,
        candidate: Candidate,
        target: Target,
        memo: Memo,
        whole: Shape | None = None,
        *,
        elastic: bool = True,
        compared_with: MeasuredCost | None = None,
    ) -> None:
        self._elastic, self._compared_with = elastic, compared_with
        self._candidate, self._memo, self._whole, self._served = candidate, memo, whole, target
        (self._target, self._calls), self._request = target.of_sub_batch(), str(target)
        self._costs: dict[str, Cost] = {}

    def for_format(self, number_format: str) -> Cost:
        """Return the latencies in that number format: a ``LatencyTable``, a ``Predictor``, or a multiple of one."""
        if number_format not in self._costs:
            self._costs[number_format] = self._measure(number_format)
        return self._costs[number_format]

    def of_width(self, hidden: int) -> TargetCost:
        """Return the costs of everything that can be cut out of ``whole``, were it of another hidden width."""
        whole: Shape = self._whole or self._candidate.model.shape
        if hidden == whole.hidden or self._varies() is not None:
            return self
        return self._of(replace(whole, hidden=hidden))

    def of_schedule(self, shape: Shape) -> TargetCost:
        """Return the costs of everything that can be cut out of ``whole``, were its layers to pass on fewer tokens.

        Slices of another hidden width or head width have no part in it: a model with a schedule is no super-network.

        Args:
            shape: Has the schedule, which need not be of the same depth.
        """
        return self._of(scheduled_like(self._whole or self._candidate.model.shape, shape), elastic=False)

    def _of(self, whole: Shape, *, elastic: bool = True) -> MeasuredCost:
        """Return the costs of everything that can be cut out of another shape, to be compared with these."""
        other = None if self._varies() else self  # predictions of a predictor are of no single measurement
        return MeasuredCost(self._candidate, self._served, self._memo, whole, elastic=elastic, compared_with=other)

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
        """Return the table of a call, tied to that of what it is compared with."""
        from limbeck.cost_models.table_measurement import Anchor, memoized

        anchor = None
        if (other := self._compared_with) is not None:
            shape = other._whole or other._candidate.model.shape
            anchor = Anchor(shape, other._table(number_format)(shape).value)
        return memoized(self._candidate, self._target, number_format, self._memo, self._whole, anchor)

    def _of_request(self, cost: Cost) -> Cost:
        """Return the cost of all calls of a request, given that of one."""
        return cost if self._calls == 1 else RepeatedCost(cost, self._calls, self._request)
