"""Pieces of a step's work: plain data, independent of each other, so that any process may carry them out.

A step that finds ``context.spread`` hands its pieces to it and takes their results, in order. Where some are not there
yet, the call ends the step by :class:`PiecesWanted`: the run has the pieces carried out by its workers, each by
``Step.work_on`` on the same candidate, and begins the step again, which now finds their results. So no worker waits for
another one, and a step must come to the same pieces again by the same results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from limbeck.core.shape import canonical_json

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.step import RunContext

Piece: TypeAlias = dict[str, Any]
"""What to do, as plain data. ``keeps``, if there, names a folder that ``context.keep`` has afterwards. Its name says
all that it depends on, so steps share such a piece."""
Result: TypeAlias = dict[str, Any]
"""What came of a piece, as plain data. ``kept``, if there, lists further folders that ``context.keep`` has now."""
NOTHING: Mapping[str, Any] = {}


class Spread(Protocol):
    """Has pieces carried out by the workers of a run: what a step finds as ``context.spread``."""

    def __call__(self, pieces: Sequence[Piece], shared: Mapping[str, Any] = NOTHING, /) -> list[Result]:
        """Return the result of each piece, in order.

        Args:
            pieces: What to do.
            shared: Plain data that all these pieces read.

        Raises:
            PiecesWanted: Some results are not there yet.
        """
        ...


class Divisible:
    """A step whose work may be divided into pieces."""

    def work_on(
        self, pieces: Sequence[Piece], shared: Mapping[str, Any], candidate: Candidate, context: RunContext
    ) -> Iterable[Result]:
        """Yield the results of pieces that the step handed to ``context.spread``.

        Args:
            pieces: Some of the pieces, in order.
            shared: What all of them read.
            candidate: The candidate that the step works on.
            context: The services that the step has, but for ``scratch``, ``cost`` and ``spread``.
        """
        raise NotImplementedError(f"{type(self).__name__} hands out no pieces")


class PiecesWanted(BaseException):
    """Ends a step until its pieces are carried out. No error, so that nothing that handles errors takes it for one."""

    def __init__(self, pieces: Mapping[str, Piece], shared: Mapping[str, Any]) -> None:
        """Name the pieces that are to be carried out.

        Args:
            pieces: The pieces without a result, by name.
            shared: What they all read.
        """
        super().__init__(f"{len(pieces)} pieces of work")
        self.pieces, self.shared = dict(pieces), dict(shared)


class KnownResults:
    """A :class:`Spread` that knows some results, by the names of their pieces."""

    def __init__(self, results: Mapping[str, Result]) -> None:
        """Keep the results.

        Args:
            results: Results by name of the piece.
        """
        self._results = results

    def __call__(self, pieces: Sequence[Piece], shared: Mapping[str, Any] = NOTHING, /) -> list[Result]:
        """Return the result of each piece; end the step if some are missing."""
        names = names_of(pieces, shared)
        missing = {name: piece for name, piece in zip(names, pieces, strict=True) if name not in self._results}
        if missing:
            raise PiecesWanted(missing, shared)
        return [self._results[name] for name in names]


def names_of(pieces: Sequence[Piece], shared: Mapping[str, Any] = NOTHING) -> list[str]:
    """Name pieces by their content.

    >>> names_of([{"row": 1}, {"row": 2}, {"row": 1}])[::2]
    ['b6ef83aaa46663b5', 'b6ef83aaa46663b5']

    Args:
        pieces: The pieces.
        shared: What they all read.
    """
    common = _digest(shared)
    return [_digest([piece, common]) for piece in pieces]


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()[:16]
