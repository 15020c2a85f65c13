"""Store weights in 8 bits and multiply in 8 bits.

Uniform affine quantization after training (Jacob et al., 2018, arXiv:1712.05877), by output channel. Differs from
the usual tools: the INT8 graph is written directly, with ONNX Runtime's fused kernels or, where the export was not
fused, in standard operators; weights keep to 7 bits by default, so that CPUs with and without VNNI compute the same
sums; inputs can be evened out before they are rounded (``smooth``); and parts that hurt fall back to float by
themselves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext, StepInfo, Technique, step
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    import numpy as np

    from limbeck.core.shape import Shape
    from limbeck.model.onnx.graph import Blueprint
    from limbeck.model.onnx.quantization import Int8

    PartSelection = tuple[Blueprint, Mapping[str, np.ndarray]]

RANKING_TEXTS = 32  # enough to order modules by their error
SMOOTHING_TEXTS = 64

Mode = Literal["dynamic", "static"]


@step(
    StepInfo(
        "quantize",
        version=3,
        needs={"onnx"},
        gives={"int8"},
        example={"calibration_samples": 8},
    )
)
class Quantize(Technique):
    """Make an INT8 model of an exported one: about a quarter of the size, and faster on most CPUs.

    Attributes:
        mode: Ranges of activations: from each input (dynamic), or from calibration texts (static).
        per_channel: A scale for every output channel of a matrix; without, one for the matrix.
        reduce_range: 7-bit weights, safe on CPUs without VNNI; the default.
        embeddings: Store the embedding tables in 8 bits too.
        smooth: Divide inputs channel by channel before they are rounded, where that brings answers closer to float's.
        max_drop: Points of the metric (validation) that may be lost; parts fall back to float, worst first.
        calibration: How the static mode chooses ranges.
        calibration_samples: Texts of the train split to calibrate on.
    """

    mode: Mode = "dynamic"
    per_channel: bool = True
    reduce_range: bool | None = None
    embeddings: bool = True
    smooth: bool = False
    max_drop: Annotated[float, Ge(0), Le(100)] | None = None
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    calibration_samples: Annotated[int, Ge(1)] = 128

    def shape_after(self, shape: Shape) -> Shape:
        """Return the same shape: only the number format changes."""
        return shape

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: writing the graph, calibration, smoothing, and for a limit up to seven evaluations.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        texts = self.calibration_samples if self.mode == "static" else 0
        texts += 3 * (SMOOTHING_TEXTS + RANKING_TEXTS) if self.smooth else 0
        if self.max_drop is not None:
            texts += 7 * rows.get("validation", 0)
        return 0.5 + forward_seconds(shape, texts, tokens)

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the INT8 model; its folder keeps the torch weights, not the float graph."""
        from limbeck.model import external
        from limbeck.model.checkpoints import save_model
        from limbeck.model.onnx import quantization as quantized
        from limbeck.model.onnx.onnx_model import INT8_FILE, OnnxModel, read_parts

        parts = read_parts(candidate.model.path)
        names = quantized.quantizable_modules(*parts, embeddings=self.embeddings)
        int8 = quantized.Int8(frozenset(names), self.per_channel, self.reduce_range is not False)
        int8 = self._ranged(parts, candidate, int8)
        if self.smooth:
            int8 = self._smooth(parts, candidate, int8)
        folder = Path(context.scratch or tempfile.mkdtemp(prefix="limbeck-")) / "quantized"
        save_model(candidate.model, candidate.tokenizer, folder)
        copied = folder / "onnx" / candidate.model.path.name
        external.remove(copied)
        attempt = Attempt(candidate, parts, folder)
        if self.max_drop is not None:
            int8 = fall_back(attempt, int8, self.max_drop, samples(candidate, RANKING_TEXTS), context.log)
        attempt.write(int8)
        model = OnnxModel(folder, INT8_FILE, candidate.model.config)
        save_model(model, candidate.tokenizer, folder)
        evened = f", {len(int8.smooth.keys() & int8.modules)} inputs smoothed" if self.smooth else ""
        context.log(
            f"INT8 ({self.mode}{evened}): {candidate.model.size_bytes / 1e6:.1f} MB -> {model.size_bytes / 1e6:.1f} MB"
        )
        yield replace(candidate, model=model, folder=None)

    def _ranged(self, parts: PartSelection, candidate: Candidate, int8: Int8) -> Int8:
        """Add fixed ranges from calibration texts; none in dynamic mode."""
        from limbeck.model.onnx.quantization import calibrate

        if self.mode == "dynamic":
            return int8
        texts = samples(candidate, self.calibration_samples)
        return replace(int8, ranges=calibrate(*parts, texts, self.calibration, int8.smooth))

    def _smooth(self, parts: PartSelection, candidate: Candidate, plain: Int8) -> Int8:
        """Return the smoothed version if it brings held-out logits closer to those of the float model."""
        from limbeck.model.onnx.quantization import errors
        from limbeck.model.onnx.smooth_quant import divisors

        texts = samples(candidate, SMOOTHING_TEXTS + RANKING_TEXTS)
        smoothing = divisors(
            *parts, plain, [text for i, text in enumerate(texts) if i % 3], static=self.mode == "static"
        )
        ways = {"smooth": self._ranged(parts, candidate, replace(plain, smooth=smoothing)), "plain": plain}
        error = errors(*parts, ways, texts[::3])
        return ways[min(error, key=error.__getitem__)]


def samples(candidate: Candidate, count: int) -> list[dict[str, np.ndarray]]:
    """Sample train texts evenly, each as a batch of its own: padding would distort the ranges."""
    import numpy as np

    from limbeck.data.batching import collate, encode

    size = len(candidate.task.split("train"))
    rows = sorted({int(row) for row in np.linspace(0, size - 1, min(count, size))})
    chosen = candidate.task.split("train").take(rows)
    task = replace(candidate.task, splits={**candidate.task.splits, "train": chosen})
    encoded = encode(task, "train", candidate.tokenizer)
    read = candidate.model.inputs
    batches = []
    for row in range(len(encoded)):
        batch = {name: np.asarray(value) for name, value in collate(encoded, [row]).items() if name in read}
        batches.append({name: batch.get(name, np.zeros_like(batch["input_ids"])) for name in sorted(read)})
    return batches


@dataclass(frozen=True)
class Attempt:
    """Writes and judges INT8 versions of one candidate."""

    candidate: Candidate
    parts: PartSelection
    folder: Path

    def write(self, int8: Int8) -> Path:
        """Write a version, in the place of the last one."""
        from limbeck.model.onnx.onnx_model import INT8_FILE, write
        from limbeck.model.onnx.quantization import quantize

        return write(quantize(*self.parts, int8), self.folder / INT8_FILE)

    def points(self, int8: Int8 | None) -> float:
        """Return the task's metric on the validation split, times 100; of the float model if ``int8`` is None.

        One text at a time, as it will be used: in dynamic mode the texts of a batch share a range.
        """
        from limbeck.data.batching import encode, predict
        from limbeck.model.onnx.onnx_model import INT8_FILE, OnnxModel

        model = self.candidate.model
        if int8 is not None:
            self.write(int8)
            model = OnnxModel(self.folder, INT8_FILE, model.config)
        encoded = encode(self.candidate.task, "validation", self.candidate.tokenizer)
        return 100 * self.candidate.task.score(predict(model, encoded, 1), encoded.labels)


def fall_back(
    attempt: Attempt,
    int8: Int8,
    max_drop: float,
    texts: Sequence[Mapping[str, np.ndarray]],
    log: Callable[[str], None],
) -> Int8:
    """Leave as few parts as possible in float, worst first, so that at most ``max_drop`` points are lost.

    How many is found by bisection: some five evaluations, where one part at a time would take dozens.

    Args:
        attempt: Writes and evaluates versions.
        int8: The version with everything in INT8.
        max_drop: Most points of the metric to lose.
        texts: Texts by which parts are ranked.
        log: Receives messages, and numbers by name.
    """
    from limbeck.model.onnx.quantization import sensitivity

    float_points = attempt.points(None)
    drop = float_points - attempt.points(int8)
    if drop <= max_drop:
        return int8
    ranking = list(sensitivity(*attempt.parts, int8, texts))
    fails, holds = 0, len(ranking)  # with nothing left in 8 bits nothing is lost
    while holds - fails > 1:
        middle = (fails + holds) // 2
        tried = replace(int8, modules=frozenset(ranking[middle:]))
        if float_points - attempt.points(tried) <= max_drop:
            holds = middle
        else:
            fails = middle
    log(
        f"INT8 lost {drop:.2f} points, more than {max_drop:g}: {holds} of {len(ranking)} parts stay in float "
        f"({', '.join(ranking[:holds])})"
    )
    return replace(int8, modules=frozenset(ranking[holds:]))
