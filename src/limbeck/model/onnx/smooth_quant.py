"""Divisors that even out what linear maps read, before it is rounded to 8 bits.

Some channels of an encoder's activations are dozens of times as large as the others; one range for all then leaves
the others a handful of numbers. ``x W = (x / s) (s W)``, with ``s`` by input channel, moves that spread into the
weights, whose scales differ by output anyway (SmoothQuant, Xiao et al., 2023, arXiv:2211.10438, equations 3 and 4):

    s_j = max |x_j|^a / max |W_j|^(1 - a)

Differs from the paper: ``a`` is found for each map, as what brings its rounded output closest to the true one (AWQ,
Lin et al., 2024, arXiv:2306.00978, searches so for weights alone), on other texts than those that the maxima are of;
a map where little is gained stays as it is; and no channel counts as smaller than 3 % of the largest, for one
that was quiet in a few texts need not be so in the next.
Where a model normalizes after it adds, what a map reads is what the next sum adds, too: so the division is a node of
its own, not part of the normalization before, and stands before the second linear map of the FFN as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.model.onnx.quantization import Int8, record_inputs

if TYPE_CHECKING:
    from limbeck.model.onnx.builder import Weights
    from limbeck.model.onnx.graph import Blueprint

STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MAX_ERROR_SHARE = 0.5
"""Share of its squared error that must remain at most, or a map is left without a division."""
ROWS = 8
"""Tokens of a text that the error is computed on; the ranges are those of all its tokens."""
LEAST = 0.03
"""Magnitude of a channel, as a share of the largest, that it is taken to have at least."""


@dataclass(frozen=True)
class Inputs:
    """What one linear map reads of some texts.

    Shapes: lows, highs [texts, channels]: extremes of each text; rows [rows, channels]: some tokens; text [rows]: the
    text that each is of.
    """

    lows: np.ndarray
    highs: np.ndarray
    rows: np.ndarray
    text: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray) -> Inputs:
        """Of one text: [1, tokens, channels], or without tokens."""
        whole = array.reshape(-1, array.shape[-1])
        rows = whole[np.linspace(0, len(whole) - 1, min(ROWS, len(whole))).astype(int)]
        return cls(whole.min(0)[None], whole.max(0)[None], rows, np.zeros(len(rows), dtype=int))

    @classmethod
    def join(cls, texts: Sequence[Inputs], *, static: bool) -> Inputs:
        """Of several texts; ``static``: all have the extremes of all, as fixed ranges do."""
        lows, highs = np.concatenate([entry.lows for entry in texts]), np.concatenate([entry.highs for entry in texts])
        if static:
            lows, highs = (np.broadcast_to(array, lows.shape) for array in (lows.min(0), highs.max(0)))
        text = np.repeat(np.arange(len(texts)), [len(entry.rows) for entry in texts])
        return cls(lows, highs, np.concatenate([entry.rows for entry in texts]), text)

    @property
    def peaks(self) -> np.ndarray:
        """Largest magnitude of every channel."""
        peaks: np.ndarray = np.maximum(np.abs(self.lows).max(0), np.abs(self.highs).max(0))
        return peaks

    def rounded(self, divisor: np.ndarray) -> np.ndarray:
        """Return the rows, divided, in 256 steps between the ends of the text that each belongs to."""
        low = np.minimum((self.lows / divisor).min(1), 0)[self.text, None]
        high = np.maximum((self.highs / divisor).max(1), 0)[self.text, None]
        step = np.where(high > low, (high - low) / 255, 1)
        zero = np.rint(-low / step)
        rounded: np.ndarray = (np.clip(np.rint(self.rows / divisor / step) + zero, 0, 255) - zero) * step
        return rounded


def divisors(
    blueprint: Blueprint, weights: Weights, int8: Int8, batches: Iterable[Mapping[str, Any]], *, static: bool = False
) -> dict[str, np.ndarray]:
    """Find the divisors [channels], by map, for those maps of ``int8`` whose error they lower enough.

    ``batches``: one text each, without padding; every other one gives the maxima, the rest judge. ``static``: one
    range for all texts, from the smallest to the largest number, not one for each.

    Args:
        blueprint: The graph's blueprint.
        weights: Its weights.
        int8: Which maps are quantized, and how.
        batches: Texts, one each, without padding; every other one gives the maxima, the rest the errors.
        static: Whether the ranges of inputs are fixed.
    """
    seen: dict[str, list[Inputs]] = {}
    for inputs in record_inputs(blueprint, weights, batches):
        for name in int8.modules & inputs.keys():
            seen.setdefault(name, []).append(Inputs.of(inputs[name]))
    selected = {}
    for name, texts in sorted(seen.items()):
        peaks, held_out = (Inputs.join(half or texts, static=static) for half in (texts[::2], texts[1::2]))
        divisor = best(weights[f"{name}.weight"], peaks.peaks, held_out, int8)
        if divisor is not None:
            selected[name] = divisor
    return selected


def best(weight: np.ndarray, peaks: np.ndarray, inputs: Inputs, int8: Int8) -> np.ndarray | None:
    """Find the divisor of the strength with the smallest squared error of ``x W``; None where it hardly falls.

    Shapes: weight [channels, outputs]; peaks, the divisor [channels].

    Args:
        weight: The map [channels, outputs].
        peaks: Largest input of each channel [channels].
        inputs: Sampled inputs of the map.
        int8: How it is quantized.
    """
    truth = inputs.rows @ weight

    def error(divisor: np.ndarray) -> float:
        whole, scale = int8.round(weight * divisor[:, None], 0 if int8.per_channel else None, int8.limit)
        return float(np.square(inputs.rounded(divisor) @ (whole * scale) - truth).sum())

    least, chosen = MAX_ERROR_SHARE * error(np.ones(len(weight), dtype=np.float32)), None
    large, reach = _floored(peaks), _floored(np.abs(weight).max(1))
    for strength in STRENGTHS:
        divisor = large**strength / reach ** (1 - strength)
        divisor = (divisor / np.exp(np.log(divisor).mean())).astype(np.float32)
        if (now := error(divisor)) < least:
            least, chosen = now, divisor
    return chosen


def _floored(magnitudes: np.ndarray) -> np.ndarray:
    floored: np.ndarray = np.maximum(magnitudes, LEAST * magnitudes.max() or 1.0)
    return floored
