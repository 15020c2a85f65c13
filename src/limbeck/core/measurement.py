"""Measurements: a value with its unit, interval, number of observations, and where it holds; and the machine."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from limbeck.core.shape import short_key

UNITS = frozenset({"s", "1/s", "B", "1", "MAC", "FLOP"})
"""Seconds, texts per second, bytes, dimensionless (rates, ratios, counts), multiply-accumulates; FLOP is what older
versions stored for MAC."""

DRIVER = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver lists the GPUs."""

EVALUATED_SHAPES = "evaluated_shapes"
"""Name of the fact that lists what a search evaluated; it says nothing of the candidate that has it."""

EARLY_EXITS = "early_exits"
"""Name of the fact that says how many texts inner heads answer; known from the making."""

CASCADE = "cascade"
"""Name of the fact that says how many texts the smaller of two models answers; known from the making."""

FLOAT_PARTS = "float_parts"
"""Name of the fact that counts the parts (of ``n``) that quantization left in float; known from the making."""


@dataclass(frozen=True)
class Measurement:
    """One measured number in SI units.

    ``low`` and ``high`` bound its interval (95 % unless ``detail`` says otherwise), ``n`` counts observations,
    ``target`` and ``split`` say where it holds, and ``detail`` keeps what a later reader or computation may need.

    >>> Measurement("latency_p50", 0.0078, "s", n=200).name
    'latency_p50'
    """

    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    n: int | None = None
    target: str = ""
    split: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        assert self.unit in UNITS, f"unknown unit {self.unit!r} for {self.name}"

    @classmethod
    def of(cls, name: str, bounds: Sequence[float], unit: str = "1", **fields: Any) -> Measurement:
        """Create a measurement from its value and the bounds of its interval, in this order.

        Args:
            name: Its name.
            bounds: Value, low and high.
            unit: Unit of all three.
            **fields: The other fields.

        >>> fact = Measurement.of("quality", (0.9, 0.88, 0.92), n=300)
        >>> fact.value, fact.unit, fact.low, fact.high, fact.n
        (0.9, '1', 0.88, 0.92, 300)
        """
        value, low, high = map(float, bounds)
        return cls(name, value, unit, low, high, **fields)

    @property
    def key(self) -> tuple[str, str, str]:
        """Identity of the measurement; a newer one with the same key replaces an older one."""
        return (self.name, self.target, self.split)

    @property
    def is_prediction(self) -> bool:
        """Whether it is no measurement of the candidate itself: predicted, measured on others, or how it was made."""
        of_making = (EVALUATED_SHAPES, FLOAT_PARTS, EARLY_EXITS, CASCADE)
        return self.name.endswith("_predicted") or self.name in of_making

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary without the empty fields."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "", {})}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """Rebuild a measurement from :meth:`to_json`."""
        return cls(**{**data, "value": math.nan if data["value"] is None else data["value"]})  # JSON has no NaN


def merge(*groups: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """Join measurements; of those with the same name, target and split the last one wins."""
    latest: dict[tuple[str, str, str], Measurement] = {}
    for group in groups:
        for fact in group:
            latest.pop(fact.key, None)
            latest[fact.key] = fact
    return tuple(latest.values())


@lru_cache
def environment() -> dict[str, Any]:
    """Describe this machine and the libraries that affect results, as recorded in every ledger."""
    versions = {}
    for package in ("limbeck", "torch", "transformers", "accelerate", "onnxruntime", "openvino", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "instructions": _instructions(),
        **({"accelerators": gpus} if (gpus := _accelerators()) else {}),
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def machine() -> str:
    """Return a digest of processor and libraries, for which alone measured times hold."""
    return machine_of(environment())


def machine_of(facts: Mapping[str, Any]) -> str:
    """Return the same digest of the :func:`environment` of any machine; GPUs enter it only where there are some."""
    decisive = {name: facts[name] for name in ("processor", "instructions", "versions")}
    decisive |= {"accelerators": facts["accelerators"]} if facts.get("accelerators") else {}
    return short_key(decisive)


def _cpuinfo(field_name: str) -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(field_name):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _instructions() -> list[str]:
    """List the instruction sets that decide the speed of INT8 and bfloat16."""
    flags = set(_cpuinfo("flags").split())
    return [name for name in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8") if name in flags]


def _accelerators() -> list[str]:
    """List the GPUs that NVIDIA's driver knows, by name; without torch, which takes a second to load."""
    names = []
    for file in sorted(DRIVER.glob("*/information")):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        names += [line.split(":", 1)[1].strip() for line in lines if line.startswith("Model")]
    return sorted(names)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
