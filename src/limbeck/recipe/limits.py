"""Limits of a recipe: how much it may hold, and which values its own fields take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from limbeck.core.combination import Combination
from limbeck.core.step import Choice
from limbeck.errors import shown
from limbeck.recipe.validation import Problem

if TYPE_CHECKING:
    from limbeck.recipe.parsing import LocatedStep

MAX_STEPS = 2_000
"""Most steps of a recipe, counting the files that it uses."""

MAX_STAGES = 50
"""Most stages of ``stages``, each nested inside the one before."""

MAX_CANDIDATES = 10_000
"""Most candidates that forks and sweeps may make from one."""

NUMBERS = {"seed": (0, 2**32 - 1), "replicas": (1, 1000), "max_minutes": (0.1, 1e6)}
"""Bounds of the numbers of a recipe, whole ones unless they are floats; NumPy's seeds have 32 bits."""


class TooManySteps(Exception):
    """The limit on steps is exceeded, so reading stops."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.problem = Problem(
            path, f"the recipe has more than {MAX_STEPS:,} steps, counting what 'use', 'each' and 'stages' stand for"
        )


def candidate_count(placed: Sequence[LocatedStep], start: int = 1) -> int:
    """Return the largest number of candidates at a time, before choices narrow them down.

    Args:
        placed: The steps.
        start: Candidates before the first step.
    """
    most = count = start
    for located in placed:
        if located.branches is not None:
            changing = [branch for branch in located.branches if branch]
            unchanged = count if len(changing) < len(located.branches) else 0  # the same candidates, however often
            count = unchanged + sum(candidate_count(branch, count) for branch in changing)
        elif isinstance(located.parsed, Combination):
            count += located.parsed.result_count()
        elif located.parsed is not None:
            count *= located.parsed.result_count()
            if isinstance(located.parsed, Choice) and located.parsed.info.final:
                count = 1
        most = max(most, count)
        if count > MAX_CANDIDATES:
            break
    return most


def number_problem(name: str, value: Any) -> str | None:
    """Describe why a value cannot be one of the recipe's numbers.

    Args:
        name: Key in :data:`NUMBERS`.
        value: The value.
    """
    low, high = NUMBERS[name]
    whole = isinstance(low, int)
    if not isinstance(value, bool) and isinstance(value, int if whole else (int, float)) and low <= value <= high:
        return None
    return f"should be a {'whole ' * whole}number in [{low}, {high if whole else f'{high:,.0f}'}], got {shown(value)}"


def source_problem(text: Any) -> str | None:
    """Describe why a value cannot name a model."""
    if text is None or text == "":
        return "is required: a folder or the name of a model"
    if not isinstance(text, str):
        return f"should be text, got {shown(text)}"
    good = text.isprintable() and len(text) <= 1000
    return None if good else f"should be a folder or the name of a model, got {shown(text)}"


def name_problem(name: Any) -> str | None:
    """Describe why a value cannot be a name, which becomes a folder in ``runs``."""
    if not isinstance(name, str):
        return f"should be text, got {shown(name)}"
    if len(name) > 100 or name.startswith(".") or not name.isprintable() or {*name} & {"/", "\\"}:
        return f"should be a name of at most 100 characters, not a path, got {shown(name)}"
    return None
