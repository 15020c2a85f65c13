"""Write the model as an ONNX graph, for ONNX Runtime or in standard operators for any runtime.

The graph is written from the weights, fused by construction (``model/onnx/graph.py``), so pruned models with ragged
heads or dropped layers are as fast as whole ones; exporters that trace lose the fusions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext, Step, StepInfo, Technique, discard, step
from limbeck.storage.drafts import process_folder
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.shape import Shape
    from limbeck.core.target import FloatFormat, Target
    from limbeck.core.task import Task
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.onnx.onnx_model import OnnxModel

Log = Callable[..., None]


@step(
    StepInfo(
        "export",
        needs={"torch"},
        gives={"onnx"},
        drops={"torch"},
        keeps_shape=True,
        added={"precision", "long_texts"},
        version=2,
        example={"parity_texts": 8},
    )
)
class Export(Technique):
    """Export to ONNX, and check on texts of the task that both models give the same logits.

    Attributes:
        fused: Use ONNX Runtime's fused operators; without, standard ONNX alone, for other runtimes.
        parity_tolerance: Largest difference of a logit from torch's, relative to the spread of the logits where that is
            above 1.
        parity_texts: Texts of the validation split to compare.
        precision: Weights and arithmetic of the graph; float16 is for GPUs. Its logits may differ by 0.02, where
            parity_tolerance is smaller, and how many answers differ is said.
        long_texts: Write attention that is fast for texts of some hundred tokens or more, and slower for short ones;
            unless given, where half of the task's texts have at least 128 tokens. Latency tables go by the texts.
    """

    fused: bool = True
    parity_tolerance: Annotated[float, Gt(0), Le(100)] = 1e-3
    parity_texts: Annotated[int, Ge(1)] = 100
    precision: Literal["float32", "float16"] = "float32"
    long_texts: bool | None = None

    def idle_fields(self) -> Mapping[str, Any]:
        """Return a mark for keys: graphs in half precision are others since they sum tokens in float32."""
        return {"pooled": "float32"} if self.precision == "float16" else {}

    def target_problems(self, target: Target, others: Sequence[Step]) -> dict[str, str]:
        """Refuse operators that the target's runtime lacks, and a precision that nobody asked for there."""
        problems = {}
        if self.fused and target.runtime == "openvino" and any("int8" in other.info.gives for other in others):
            reason = "holds operators of ONNX Runtime alone once it is quantized, and the target's runtime is openvino"
            problems["fused"] = f"{reason}; give false"
        if self.fused and target.runtime == "tensorrt":
            problems["fused"] = "holds operators that TensorRT lacks, which would run outside it; give false"
        exports = (self, *(other for other in others if isinstance(other, Export)))
        if target.runtime != "torch" and target.precision not in {each.precision for each in exports}:
            problems["precision"] = f"is {self.precision}, and the target's is {target.precision}; give the same"
        return problems

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: writing and checking the graph, and answering the texts of the parity check twice.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        return 2.0 + forward_seconds(shape, 2 * min(self.parity_texts, rows.get("validation", 0)), tokens)

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the candidate as an ONNX model; its folder keeps the torch weights."""
        folder = (context.scratch or process_folder()) / "exported"
        fields = vars(self)
        model = export(candidate.model, candidate.tokenizer, candidate.task, folder, **fields, log=context.log)
        yield replace(candidate, model=model, folder=None)


def export(
    model: LimbeckForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    folder: Path,
    *,
    fused: bool = True,
    parity_tolerance: float = 1e-3,
    parity_texts: int = 100,
    precision: FloatFormat = "float32",
    long_texts: bool | None = None,
    log: Log = discard,
) -> OnnxModel:
    """Write a model as ONNX to a folder, and check that it gives the same logits.

    Args:
        model: The torch model.
        tokenizer: Its tokenizer.
        task: Gives the texts of the check, from the validation split.
        folder: Where to write: graph, configuration, tokenizer and the torch weights.
        fused: As for :class:`Export`.
        parity_tolerance: As for :class:`Export`.
        parity_texts: As for :class:`Export`.
        precision: As for :class:`Export`.
        long_texts: As for :class:`Export`.
        log: Called with each message.

    Returns:
        The exported model, closed until it is used.

    Raises:
        LimbeckError: The logits differ.
    """
    from limbeck.data.calibration import first_batches
    from limbeck.measure.samples import has_long_texts
    from limbeck.model.onnx.export import HALF_TOLERANCE, TIE, export_model, parity

    long = has_long_texts(task, tokenizer) if long_texts is None else long_texts
    exported = export_model(model, tokenizer, folder, fused=fused, precision=precision, long_texts=long)
    half, compared = precision == "float16", first_batches(task, "validation", tokenizer, parity_texts)
    measured = parity(model, exported, *compared, tie=HALF_TOLERANCE if half else TIE)
    exported.close()
    measured.check(max(parity_tolerance, HALF_TOLERANCE) if half else parity_tolerance)
    log(str(measured))
    return exported
