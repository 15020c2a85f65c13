"""Find the fastest of several ways to run a model at a given length, measured on the target with dummy models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from limbeck.core.analytic_cost import NumberFormat, macs
from limbeck.core.model import EncoderStyle
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.measure.dummy_model import Setting, style_of
from limbeck.measure.trial import Trial, time_trial

TRIALS, CALLS = 3, 30
LEAST = 1.03  #: another way must be faster by this much: smaller differences are within the spread of repeated trials

Timer = Callable[[Trial], np.ndarray]


@dataclass(frozen=True)
class Paying:
    """Seconds of a call with softmax attention and with the other core, medians of alternating trials."""

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
        """Whether it is faster by more than the spread of trials."""
        return self.gain >= LEAST


def in_turns(ways: Sequence[tuple[Shape, Setting]], timer: Timer = time_trial) -> list[float]:
    """Time a call each way, in seconds: medians of alternating trials."""
    medians: list[list[float]] = [[] for _ in ways]
    for _ in range(TRIALS):
        for way, trials in zip(ways, medians, strict=True):
            trials.append(float(np.median(timer(Trial(*way, CALLS)))))
    return [float(np.median(trials)) for trials in medians]


def paying(
    shape: Shape,
    style: EncoderStyle,
    target: Target,
    core: str,
    seq_len: int,
    *,
    number_format: NumberFormat = "int8",
    per_token: bool = False,
    timer: Timer = time_trial,
) -> Paying | None:
    """Time softmax and another attention core.

    Args:
        shape: Shape with softmax attention.
        style: Style or configuration of the encoder.
        target: Where it runs.
        core: The other attention core.
        seq_len: Tokens in a text.
        number_format: ``float`` or ``int8``.
        per_token: Whether every token is answered.
        timer: Times one trial.

    Returns:
        The comparison, or None, with nothing timed, where the core saves no multiply-accumulates.
    """
    other = shape.with_attention(core)
    if macs(other, seq_len) >= macs(shape, seq_len):
        return None
    setting = Setting(style_of(style), target, number_format, seq_len, per_token)
    return Paying(core, seq_len, *in_turns([(shape, setting), (other, setting)], timer))
