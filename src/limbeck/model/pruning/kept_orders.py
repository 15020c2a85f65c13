"""Orders in which parts of a model go, kept by its weights: one pass over texts serves every goal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from limbeck.model.checkpoints import fingerprint
from limbeck.model.pruning.slicing import RemovalOrders
from limbeck.storage.memmap import Keep, cached_arrays

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification


def kept_orders(
    keep: Keep,
    method: str,
    texts: str,
    model: LimbeckForSequenceClassification,
    build: Callable[[], RemovalOrders],
) -> RemovalOrders:
    """Return the order in which parts of a model go; computed where it is not kept.

    Args:
        keep: Keeps folders, as a run does.
        method: Identifies how parts are scored.
        texts: Identifies the texts.
        model: The model, as it is scored.
        build: Scores its parts.
    """
    name = f"order-{method}-{fingerprint(model)}-{texts}"
    return RemovalOrders.from_arrays(cached_arrays(keep, name, lambda: build().to_arrays()))
