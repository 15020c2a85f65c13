"""Store weights in 8 bits and multiply in 8 bits.

Uniform affine quantization after training (Jacob et al., 2018, arXiv:1712.05877), by output channel. Differs from the
usual tools: the INT8 graph is written directly, with ONNX Runtime's fused kernels or, where the export was not fused,
in standard operators; weights keep to 7 bits by default, so that CPUs with and without VNNI compute the same sums;
inputs can be evened out before they are rounded (``smooth``); and parts shown to hurt fall back to float by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.cost import Memo, measure_now
from limbeck.core.measurement import FLOAT_PARTS, Measurement, machine
from limbeck.core.step import RunContext, Step, StepInfo, Technique, discard, step
from limbeck.core.target import Target
from limbeck.storage.drafts import process_folder
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.shape import Shape
    from limbeck.core.task import Task
    from limbeck.model.onnx.onnx_model import OnnxModel

Calibration = Literal["minmax", "percentile", "entropy"]
Log = Callable[..., None]
Mode = Literal["dynamic", "static"]
CHECK_TEXTS = 3 * 128  # of smoothing: texts that it is learned from and tried on, run three times


@step(
    StepInfo(
        "quantize",
        version=3,
        needs={"onnx"},
        gives={"int8"},
        reads={"target"},
        keeps_shape=True,
        example={"calibration_samples": 8},
    )
)
class Quantize(Technique):
    """Quantize an exported model to INT8: about a quarter of the size, and faster on most CPUs.

    Attributes:
        mode: Ranges of activations: from each input (dynamic), or from calibration texts (static).
        per_channel: A scale for every output channel of a matrix; without, one for the matrix.
        reduce_range: 7-bit weights, safe on CPUs without VNNI; the default.
        embeddings: Store the embedding tables in 8 bits too.
        smooth: Divide inputs by channel before they are rounded, where it is shown to bring answers closer to float's.
        max_drop: Points of the metric (validation) that may be lost; where more are shown to be lost (95 %), parts fall
            back to float, worst first. Texts are answered in batches as on the target.
        calibration: How the static mode chooses ranges.
        calibration_samples: Texts of the train split to calibrate on.
    """

    mode: Mode = "dynamic"
    per_channel: bool = True
    reduce_range: bool | None = None
    embeddings: bool = True
    smooth: bool = False
    max_drop: Annotated[float, Ge(0), Le(100)] | None = None
    calibration: Calibration = "minmax"
    calibration_samples: Annotated[int, Ge(1)] = 128

    def idle_fields(self) -> Mapping[str, Any]:
        """Return marks for keys: results with a limit, or smoothed ones, are others since paired tests decide."""
        marks = {"fall_back": ("paired, exact bound", self.max_drop is not None), "smoothing": ("paired", self.smooth)}
        return {name: mark for name, (mark, given) in marks.items() if given}

    def target_problems(self, target: Target, others: Sequence[Step]) -> dict[str, str]:
        """Refuse a GPU, which does not run the INT8 graph."""
        from limbeck.measure.backends import NO_INT8

        return {} if target.device == "cpu" else {"": NO_INT8.format(device=target.device)}

    def marks(self, traits: AbstractSet[str]) -> Mapping[str, Any]:
        """Return a mark for models with early exits: what harms their logits is judged head by head."""
        return {"exits": "by head"} if "exits" in traits and (self.smooth or self.max_drop is not None) else {}

    def served(self, target: Target) -> Target:
        """Return the target that answers are judged for; the default one where answers do not depend on their batch."""
        return target if self.max_drop is not None and self.mode == "dynamic" else Target()

    def decisive_services(self, read: Mapping[str, Any], task: Task, target: Target) -> Mapping[str, Any]:
        """Return the target where texts are judged in batches, and the machine where their size is measured.

        Args:
            read: The target, in keys.
            task: Ignored.
            target: The target.
        """
        served = self.served(target)
        if served.batch == 1 and not served.candidates:
            return {}
        return read if served.batch > 1 else {**read, "machine": machine()}

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: writing the graph, calibration, smoothing, and for a limit up to seven evaluations.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        texts = self.calibration_samples * (self.mode == "static") + CHECK_TEXTS * self.smooth
        texts += 0 if self.max_drop is None else 7 * rows.get("validation", 0)
        return 0.5 + forward_seconds(shape, texts, tokens)

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the INT8 model; its folder keeps the torch weights, not the float graph."""
        facts: list[Measurement] = []
        model = quantize(
            candidate.model,
            candidate.tokenizer,
            candidate.task,
            (context.scratch or process_folder()) / "quantized",
            **vars(self),
            target=self.served(context.target),
            memo=context.memo,
            fell_back=lambda parts, total: facts.append(Measurement(FLOAT_PARTS, float(parts), "1", n=total)),
            log=context.log,
        )
        yield replace(candidate, model=model, folder=None, facts=tuple(facts))


def quantize(
    model: OnnxModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    folder: Path,
    *,
    mode: Mode = "dynamic",
    per_channel: bool = True,
    reduce_range: bool | None = None,
    embeddings: bool = True,
    smooth: bool = False,
    max_drop: float | None = None,
    calibration: Calibration = "minmax",
    calibration_samples: int = 128,
    target: Target | None = None,
    memo: Memo = measure_now,
    fell_back: Callable[[int, int], None] = lambda parts, total: None,
    log: Log = discard,
) -> OnnxModel:
    """Write an exported model in INT8 to a folder.

    Args:
        model: The exported model.
        tokenizer: Its tokenizer.
        task: Gives texts for calibration, and for ``max_drop`` those that the model is evaluated on.
        folder: Where to write: graph, configuration, tokenizer and the torch weights.
        mode: As for :class:`Quantize`.
        per_channel: As for :class:`Quantize`.
        reduce_range: As for :class:`Quantize`.
        embeddings: As for :class:`Quantize`.
        smooth: As for :class:`Quantize`.
        max_drop: As for :class:`Quantize`.
        calibration: As for :class:`Quantize`.
        calibration_samples: As for :class:`Quantize`.
        target: Where the model will be served: for ``max_drop``, its answers are judged in the batches of it; text by
            text unless given.
        memo: Keeps which sub-batches of a request are fastest.
        fell_back: Called with the number of parts left in float, and of all, where there are any.
        log: Called with each message.

    Returns:
        The INT8 model.
    """
    from limbeck.data.calibration import spaced_texts
    from limbeck.measure.served_answers import ServedAnswers
    from limbeck.model.onnx.post_training import Ranges, quantize_model

    answers = ServedAnswers(task, tokenizer, target, memo)
    return quantize_model(
        model,
        tokenizer,
        folder,
        partial(spaced_texts, task, tokenizer, model.inputs),
        ranges=Ranges(mode, calibration, calibration_samples),
        per_channel=per_channel,
        reduce_range=reduce_range is not False,
        embeddings=embeddings,
        smooth=smooth,
        max_drop=max_drop,
        quality=answers.quality,
        changed=answers.changed,
        fell_back=fell_back,
        log=log,
    )
