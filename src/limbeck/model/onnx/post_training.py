"""Quantize an exported model to INT8: ranges, smoothing, and parts that fall back to float."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from limbeck.core.paired import CountedLoss, Loss, loss_against
from limbeck.core.statistics import largest_share, probably_less
from limbeck.model import external
from limbeck.model.checkpoints import save_model
from limbeck.model.onnx import smooth_quant
from limbeck.model.onnx.onnx_model import INT8_FILE, OnnxModel, read_parts, write
from limbeck.model.onnx.quantization import (
    Calibration,
    Int8,
    calibrate,
    errors,
    quantizable_modules,
    quantize,
    sensitivity,
)

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.measurement import Measurement
    from limbeck.model.onnx.graph import Blueprint

    GraphSource = tuple[Blueprint, Mapping[str, np.ndarray]]
    Texts = Callable[[int], Sequence[Mapping[str, np.ndarray]]]
    Changed = Callable[[OnnxModel, OnnxModel], tuple[int, int]]

RANKING_TEXTS = 32  # enough to order modules by their error
SMOOTHING_TEXTS = 64  # to learn it from, and as many to try it on
SURE = 0.95
"""How probable it has to be that parts in 8 bits lose too much before they are left in float, and that smoothing
helps before it is applied."""

Mode = Literal["dynamic", "static"]


@dataclass(frozen=True)
class Ranges:
    """How the ranges of activations are chosen.

    Attributes:
        mode: From each input (dynamic), or from calibration texts (static).
        calibration: How ranges follow from texts.
        samples: Texts to calibrate on.
    """

    mode: Mode = "dynamic"
    calibration: Calibration = "minmax"
    samples: int = 128

    def of(self, parts: GraphSource, texts: Texts, int8: Int8) -> Int8:
        """Return the version with its ranges; none in dynamic mode.

        Args:
            parts: The model and what it is exported with.
            texts: Returns that many texts for calibration.
            int8: The version.
        """
        if self.mode == "dynamic":
            return int8
        return replace(int8, ranges=calibrate(*parts, texts(self.samples), self.calibration, int8.smooth))


@dataclass(frozen=True)
class Attempt:
    """Writes and scores INT8 versions of one exported model.

    Attributes:
        model: The float model.
        parts: Its graph and weights.
        folder: Where versions are written, each in the place of the one before.
        quality: Measures a model's quality on labeled texts.
    """

    model: OnnxModel
    parts: GraphSource
    folder: Path
    quality: Callable[[OnnxModel], Measurement]

    @cached_property
    def reference(self) -> Measurement:
        """Quality of the float model."""
        return self.quality(self.model)

    def write(self, int8: Int8) -> OnnxModel:
        """Write a version and return it."""
        return write_version(self.parts, int8, self.folder, self.model)

    def loss(self, int8: Int8, reference: Measurement) -> Loss:
        """Compare a version with the float model on the same texts.

        Args:
            int8: The version.
            reference: Quality of the float model.
        """
        return loss_against(self.quality(self.write(int8)), reference)


def write_version(parts: GraphSource, int8: Int8, folder: Path, model: OnnxModel) -> OnnxModel:
    """Write an INT8 version of an exported model and return it.

    Args:
        parts: Graph and weights of the float model.
        int8: What to store in 8 bits, and how.
        folder: Where to write.
        model: The float model.
    """
    write(quantize(*parts, int8), folder / INT8_FILE)
    return OnnxModel(folder, INT8_FILE, model.config)


def quantize_model(
    model: OnnxModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    texts: Texts,
    *,
    ranges: Ranges = Ranges(),
    per_channel: bool = True,
    reduce_range: bool = True,
    embeddings: bool = True,
    smooth: bool = False,
    max_drop: float | None = None,
    quality: Callable[[OnnxModel], Measurement] | None = None,
    changed: Changed | None = None,
    fell_back: Callable[[int, int], None] = lambda parts, total: None,
    log: Callable[[str], None] = lambda message: None,
) -> OnnxModel:
    """Write an exported model in INT8; its folder keeps the torch weights, not the float graph.

    Args:
        model: The exported model.
        tokenizer: Its tokenizer.
        folder: Where to write.
        texts: Returns so many calibration texts, each a batch of its own.
        ranges: How the ranges of activations are chosen.
        per_channel: A scale for every output channel of a matrix; without, one for the matrix.
        reduce_range: 7-bit weights, safe on CPUs without VNNI.
        embeddings: Store the embedding tables in 8 bits too.
        smooth: Divide inputs channel by channel where that brings answers closer to float's.
        max_drop: Points that may be lost; where more are shown to be, parts fall back to float. Needs ``quality``.
        quality: Measures a model's quality on labeled texts.
        changed: Counts the answers that differ between two models on many texts that need no labels, and the texts.
        fell_back: Called with the number of parts left in float, and of all, where there are any.
        log: Called with each message.
    """
    parts = read_parts(model.path)
    int8 = Int8(frozenset(quantizable_modules(*parts, embeddings=embeddings)), per_channel, reduce_range)
    int8 = ranges.of(parts, texts, int8)
    if smooth:
        int8 = smoothed(parts, texts, int8, ranges, log)
    save_model(model, tokenizer, folder)
    external.remove(folder / "onnx" / model.path.name)
    if max_drop is not None and quality is not None:
        attempt = Attempt(model, parts, folder, quality)
        if is_shown(attempt, int8, max_drop, changed, log):
            total, int8 = len(int8.modules), fall_back(attempt, int8, max_drop, texts(RANKING_TEXTS), log)
            fell_back(total - len(int8.modules), total)
    quantized = write_version(parts, int8, folder, model)
    save_model(quantized, tokenizer, folder)
    evened = f", {len(int8.smooth.keys() & int8.modules)} inputs smoothed" if smooth else ""
    log(f"INT8 ({ranges.mode}{evened}): {model.size_bytes / 1e6:.1f} MB -> {quantized.size_bytes / 1e6:.1f} MB")
    return quantized


def smoothed(
    parts: GraphSource, texts: Texts, plain: Int8, ranges: Ranges, log: Callable[[str], None] = lambda message: None
) -> Int8:
    """Return the smoothed version if held-out texts show that it brings logits closer to those of the float model.

    The errors of both versions are compared text by text; where that leaves it open, nothing is smoothed.

    Args:
        parts: Graph and weights of the float model.
        texts: Returns calibration texts.
        plain: The version that is not smoothed.
        ranges: How the ranges of activations are chosen.
        log: Called with a message where the means alone would say otherwise.
    """
    sample = texts(2 * SMOOTHING_TEXTS)
    learned_from, tried_on = sample[1::2], sample[::2]  # they are sorted by length
    smoothing = smooth_quant.divisors(*parts, plain, learned_from, static=ranges.mode == "static")
    smooth = ranges.of(parts, texts, replace(plain, smooth=smoothing))
    error = errors(*parts, {"smooth": smooth, "plain": plain}, tried_on)
    probability = probably_less(error["smooth"], error["plain"])
    if probability >= SURE:
        return smooth
    if (ratio := error["smooth"].mean() / max(error["plain"].mean(), 1e-300)) < 1:
        log(
            f"undecided: smoothing leaves {100 * ratio:.0f} % of the squared error of logits, less with probability "
            f"{probability:.2f} < {SURE:g} on {len(tried_on)} texts; no input is smoothed"
        )
    return plain


def is_shown(
    attempt: Attempt, int8: Int8, max_drop: float, changed: Changed | None, log: Callable[[str], None]
) -> bool:
    """Return whether it is shown, and not only seems so on a few texts, that more than ``max_drop`` points are lost.

    Two things have to agree: a paired test on the labeled texts, and the answers to many texts without labels. No more
    right answers can be lost than answers have changed.

    Args:
        attempt: Writes and measures versions.
        int8: The version with everything in INT8.
        max_drop: Most points of the metric to lose.
        changed: Counts the answers that differ between two models, and the texts; None where there are no texts.
        log: Called with a message where the numbers alone would say otherwise.
    """
    loss = attempt.loss(int8, attempt.reference)
    if loss.points <= max_drop:
        return False
    probability = 1 - loss.below(max_drop)
    reason = f"with probability {probability:.2f} < {SURE:g}"
    if probability >= SURE:
        if changed is None or not isinstance(loss, CountedLoss):
            return True
        differing, count = changed(attempt.model, attempt.write(int8))
        most = 100 * largest_share(differing, count, SURE)
        if most > max_drop:
            return True
        reason = f"but at most {most:.2f} % of the answers change on {count:,} texts"
    log(f"undecided: INT8 lost {loss.points:.2f} points, more than {max_drop:g}, {reason}; all parts stay in 8 bits")
    return False


def fall_back(
    attempt: Attempt,
    int8: Int8,
    max_drop: float,
    texts: Sequence[Mapping[str, np.ndarray]],
    log: Callable[[str], None],
) -> Int8:
    """Leave as few parts as possible in float, worst first, so that at most ``max_drop`` points are lost.

    How many is found by bisection: some five evaluations, where one part at a time would take dozens. A version holds
    unless a paired test shows that it loses more.

    Args:
        attempt: Writes and measures versions.
        int8: The version with everything in INT8, which loses more.
        max_drop: Most points of the metric to lose.
        texts: Texts by which parts are ranked.
        log: Called with each message.

    Returns:
        The version with the fewest parts in float that is not shown to lose more.
    """
    # the order by mean errors is a guess of what to try first; what is accepted is tested
    ranking = list(sensitivity(*attempt.parts, int8, texts))
    fails, holds = 0, len(ranking)  # with nothing left in 8 bits nothing is lost
    while holds - fails > 1:
        middle = (fails + holds) // 2
        tried = replace(int8, modules=frozenset(ranking[middle:]))
        if attempt.loss(tried, attempt.reference).below(max_drop) > 1 - SURE:
            holds = middle
        else:
            fails = middle
    log(
        f"INT8 loses more than {max_drop:g} points: {holds} of {len(ranking)} parts stay in float "
        f"({', '.join(ranking[:holds])})"
    )
    return replace(int8, modules=frozenset(ranking[holds:]))
