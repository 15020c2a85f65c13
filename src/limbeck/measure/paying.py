"""Find whether another way to run a model is faster than the usual one, measured on the target with dummy models."""

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

TRIALS, CALLS = 5, 30
LEAST = 1.03  #: another way must be faster by this much: the machine of tomorrow differs from today's by a few per cent

Timer = Callable[[Trial], np.ndarray]
Rounds = Sequence[float]
"""Median seconds of a call in each round."""


def gain(usual: Rounds, other: Rounds) -> float:
    """Return how many times as fast another way is: the median ratio of alternated rounds.

    Args:
        usual: The way that is taken unless the other one pays.
        other: The other way, in the same rounds.
    """
    return float(np.median(np.asarray(usual) / np.asarray(other)))


def pays(usual: Rounds, other: Rounds) -> bool:
    """Return whether another way is faster in every round, and by at least ``LEAST``.

    Five rounds agree by chance once in 32 (a one-sided sign test at 5 %). Anything else is undecided, and the usual way
    is taken.

    Args:
        usual: The way that is taken unless the other one pays.
        other: The other way, in the same rounds.

    >>> pays([1.0] * 5, [0.9] * 5), pays([1.0] * 5, [0.5, 0.5, 0.5, 0.5, 1.1])
    (True, False)
    """
    return gain(usual, other) >= LEAST and bool((np.asarray(usual) > np.asarray(other)).all())


@dataclass(frozen=True)
class Paying:
    """Seconds of a call with softmax attention and with the other core, round by round."""

    core: str
    seq_len: int
    softmax: Rounds
    linear: Rounds

    @property
    def gain(self) -> float:
        """How many times as fast the other core is."""
        return gain(self.softmax, self.linear)

    @property
    def pays(self) -> bool:
        """Whether it is faster, beyond the noise of the rounds."""
        return pays(self.softmax, self.linear)


def in_turns(ways: Sequence[tuple[Shape, Setting]], timer: Timer = time_trial) -> list[list[float]]:
    """Time a call each way, in turns: median seconds of each round, by way [ways][rounds]."""
    medians: list[list[float]] = [[] for _ in ways]
    for _ in range(TRIALS):
        for trial, rounds in zip(ways, medians, strict=True):
            rounds.append(float(np.median(timer(Trial(*trial, CALLS)))))
    return medians


def paying(
    shape: Shape,
    style: EncoderStyle,
    target: Target,
    core: str,
    seq_len: int,
    *,
    number_format: NumberFormat = "int8",
    per_token: bool = False,
    long_texts: bool | None = None,
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
        long_texts: Whether graphs have attention for long texts; unless given, where ``seq_len`` is that long.
        timer: Times one trial.

    Returns:
        The comparison, or None, with nothing timed, where the core saves no multiply-accumulates.
    """
    other = shape.with_attention(core)
    if macs(other, seq_len) >= macs(shape, seq_len):
        return None
    setting = Setting(style_of(style), target, number_format, seq_len, per_token, long_texts)
    return Paying(core, seq_len, *in_turns([(shape, setting), (other, setting)], timer))
