"""A run's services as a step sees them: those that it declares, and no others."""

from __future__ import annotations

from typing import Any

from limbeck.core.step import SERVICES, RunContext, StepInfo
from limbeck.errors import UndeclaredService


class RestrictedContext:
    """A RunContext that shows only the declared services.

    >>> RestrictedContext(RunContext(seed=3), StepInfo("prune", reads={"seed"})).seed
    3
    """

    def __init__(self, context: RunContext, info: StepInfo) -> None:
        self._context, self._info = context, info

    def __getattr__(self, name: str) -> Any:
        if name in SERVICES and name not in self._info.reads:
            raise UndeclaredService(f"step '{self._info.name}' used context.{name}; add '{name}' to its reads")
        return getattr(self._context, name)
