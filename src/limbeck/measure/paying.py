"""Whether a linear attention core is faster than softmax for a model at a length, measured on the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.measure.counts import macs
from limbeck.measure.stand_in import Setting, style_of
from limbeck.measure.trials import Trial, time_trial

TRIALS, CALLS = 3, 30
LEAST = 1.03  #: a core must be faster by this much: less is within what repeated trials differ by


@dataclass(frozen=True)
class Paying:
    """Seconds of a call with softmax attention and with the other core, medians of trials in turn."""

    core: str
    seq_len: int
    softmax: float
    linear: float

    @property
    def gain(self) -> float:
        """How many times as fast the other core is."""
        return self.softmax / self.linear

    @property
    def pays(self) -> bool:
        """Whether it is faster by more than trials differ."""
        return self.gain >= LEAST


def paying(
    shape: Shape,
    style: Any,
    target: Target,
    core: str,
    seq_len: int,
    *,
    number_format: Any = "int8",
    per_token: bool = False,
    timer: Callable[[Trial], np.ndarray] = time_trial,
) -> Paying | None:
    """Time both; None, and nothing is timed, where the core has no fewer multiply-accumulates at that length."""
    other = shape.with_attention(core)
    if macs(other, seq_len) >= macs(shape, seq_len):
        return None
    about: Mapping[str, Any] = style_of(style)
    setting = Setting(about, target, number_format, seq_len, per_token)
    found: dict[Shape, list[float]] = {shape: [], other: []}
    for _ in range(TRIALS):
        for each, medians in found.items():
            medians.append(float(np.median(timer(Trial(each, setting, CALLS)))))
    return Paying(core, seq_len, *(float(np.median(medians)) for medians in found.values()))
