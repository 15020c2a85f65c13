"""Every technique, probe and choice: importing this package registers them all. Nothing here imports torch."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.measurement import Measurement
    from limbeck.core.shape import Shape
    from limbeck.core.target import Target

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
for _probe in ("latency", "memory", "portability", "quality"):
    importlib.import_module(f"limbeck.measure.{_probe}")


def cost_factory(
    candidate: Candidate,
    target: Target,
    memo: Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]],
    whole: Shape | None = None,
) -> Callable[..., Measurement]:
    """The context's ``cost``: latency of a shape on the target, ``cost(shape, number_format="int8")``.

    What is behind it is measured at the first call and kept in the store's memo: a table for everything that can be cut
    out of ``whole``, or of the candidate as it is then; for a super-network whose hidden width or head width varies,
    which no table knows, a predictor that learns from shapes of its space. ``cost.of("int8")`` is the table or the
    predictor itself.
    """
    from limbeck.core.search_space import Space
    from limbeck.cost_models.latency_predictor import Predictor
    from limbeck.cost_models.latency_table import LatencyTable

    models: dict[str, LatencyTable | Predictor] = {}
    about = getattr(candidate.model.config, "space", None)
    space = Space.from_json(about) if about else None

    def of(number_format: str) -> LatencyTable | Predictor:
        if number_format not in models:
            if space is not None and len(space.hidden) * len(space.head_dim) > 1:
                models[number_format] = Predictor.memoised(candidate, space, target, number_format, memo)
            else:
                models[number_format] = LatencyTable.memoised(candidate, target, number_format, memo, whole)
        return models[number_format]

    def cost(shape: Shape, number_format: str = "int8") -> Measurement:
        return of(number_format)(shape)

    cost.of = of  # type: ignore[attr-defined]
    return cost
