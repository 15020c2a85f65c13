"""Combinations: techniques that make a candidate of two others.

A combination is a technique with one more input. It is applied to one candidate, and ``context.partner`` is the other.
Which two it takes, it chooses itself among all candidates that reached it, by what was measured of them. Those stay,
and what it makes is added to them. The key of the partner is a field of the step, so it is part of the cache key, and
the record says how the candidate was made.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self, TypeVar

from limbeck.core.candidate import Stored
from limbeck.core.field_groups import changed
from limbeck.core.step import Choice, RunContext, Step, Technique

T = TypeVar("T", bound=Step)


class Pair(NamedTuple):
    """Keys of two candidates: the one that a combination is applied to, and its partner."""

    key: str
    partner: str


class Combination(Technique):
    """Makes candidates of two that reached it; all that reached it stay beside them."""

    partner: str
    """Key of the other candidate; each combination has this field, which is empty until pairs are chosen."""

    def with_partner(self, key: str) -> Self:
        """Return the step for a pair with this candidate; empty: its partner is yet to be chosen."""
        return changed(self, partner=key)

    @abstractmethod
    def pairs(self, candidates: Sequence[Stored], context: RunContext) -> Sequence[Pair]:
        """Return the pairs that it is applied to, at most ``result_count()``; none where nothing is to be gained."""


def as_made(step: T, parameters: Mapping[str, Any]) -> T:
    """Return a step of a recipe as it made a record: a combination with its partner there, any other step as it is.

    Args:
        step: The step.
        parameters: Parameters of the record.
    """
    return step.with_partner(parameters.get("partner", "")) if isinstance(step, Combination) else step


def as_written(step: T) -> T:
    """Return a step as a recipe may have it: a combination with its partner yet to be chosen, any other as it is."""
    return step.with_partner("") if isinstance(step, Combination) else step


GATHERING = Choice, Combination
"""Steps that look at all candidates together, so that what comes after them waits for all that comes before."""
