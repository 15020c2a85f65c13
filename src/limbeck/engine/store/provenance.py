"""How a record was made, so that its object can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Protocol

from limbeck.core.candidate import Record
from limbeck.core.combination import as_made
from limbeck.core.step import Technique
from limbeck.recipe.parsing import leaves
from limbeck.recipe.recipe import Recipe, placed_steps


@dataclass(frozen=True)
class Provenance:
    """How a record is made: by a step from a parent (its ``index``-th child), or from a model folder."""

    seed: int
    step: Technique | None = None
    index: int = 0
    source: str = ""
    role: str = "model"


class Keys(Protocol):
    """Names candidates by how they are made: the builder of a run."""

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        ...

    @property
    def origins(self) -> Mapping[str, Provenance]:
        """How known records were made, by key."""
        ...

    def root_key(self, source: str, seed: int, role: str) -> str:
        """Return the key of a model folder's content.

        Args:
            source: Folder or hub name of a model.
            seed: Seed of everything random.
            role: 'model' or 'teacher'.
        """
        ...

    def child_base(self, parent: str, step: Technique, seed: int) -> str:
        """Return the key of the first child that a step makes.

        Args:
            parent: Key of the parent.
            step: The technique.
            seed: Seed of everything random.
        """
        ...


def provenance_of(record: Record, keys: Keys) -> Provenance | None:
    """Determine how a record of an earlier run was made: by the step and seed of the recipe that yield its key.

    Args:
        record: The record.
        keys: Names candidates by how they are made, and knows the provenance of the record's parent.

    Returns:
        The provenance; None if nothing in the recipe makes that key here and now.
    """
    seeds = [keys.recipe.seed + number for number in range(max(1, keys.recipe.replicas))]
    if record.parent is None:
        source = str(record.parameters.get("source", keys.recipe.model))
        roots = (seed for seed in seeds if keys.root_key(source, seed, record.step) == record.key)
        return next((Provenance(seed, source=source, role=record.step) for seed in roots), None)
    if record.parent not in keys.origins:
        return None
    base, _, number = record.key.partition("-")
    for located, seed in product(leaves(placed_steps(keys.recipe)), seeds):
        step = as_made(located.step, record.parameters)
        if isinstance(step, Technique) and keys.child_base(record.parent, step, seed) == base:
            return Provenance(seed, step, int(number or 0))
    return None
