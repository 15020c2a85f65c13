"""Every technique, probe and choice: importing this package registers them all. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.facts import Measurement
    from limbeck.core.shape import Shape
    from limbeck.core.target import Target

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
for _probe in ("latency", "memory", "quality"):
    importlib.import_module(f"limbeck.measure.{_probe}")


def cost_factory(
    candidate: Candidate, target: Target, memo: Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]
) -> Callable[..., Measurement]:
    """The Lab's ``cost``: latency of a shape on the target, ``cost(shape, number_format="int8")``.

    The table behind it is measured at the first call, once per (shape, style, target, number format, machine), and
    kept in the store's memo. It knows every shape that can be cut out of the candidate's.
    """
    from limbeck.core.facts import environment
    from limbeck.core.shape import canonical_json
    from limbeck.measure.table import LatencyTable, mean_tokens

    shape, style, tables = candidate.model.shape, candidate.model.encoder.style, {}
    tokens = target.seq_len or mean_tokens(candidate)

    def cost(asked: Shape, number_format: str = "int8") -> Measurement:
        if number_format not in tables:
            about = [shape.to_json(), asdict(style), asdict(target), number_format, tokens, environment()]
            name = "latency-table-" + hashlib.sha256(canonical_json(about).encode()).hexdigest()[:16]
            kept = memo(name, lambda: LatencyTable.build(shape, style, target, number_format, tokens).to_json())
            tables[number_format] = LatencyTable.from_json(kept)
        return tables[number_format](asked)

    return cost
