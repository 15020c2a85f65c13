"""Write the model as an ONNX graph, for ONNX Runtime or in standard operators for any runtime.

The graph is written from the weights, fused by construction (``model/onnx/graph.py``), so pruned models with ragged
heads or dropped layers are as fast as whole ones; exporters that trace lose the fusions.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt, Le

from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext, Step, StepInfo, Technique, step
from limbeck.errors import LimbeckError
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    from limbeck.core.shape import Shape
    from limbeck.core.target import Target


@step(
    StepInfo(
        "export",
        needs={"torch"},
        gives={"onnx"},
        drops={"torch"},
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
    """

    fused: bool = True
    parity_tolerance: Annotated[float, Gt(0), Le(100)] = 1e-3
    parity_texts: Annotated[int, Ge(1)] = 100

    def target_problems(self, target: Target, others: Sequence[Step]) -> dict[str, str]:
        """Refuse fused operators where OpenVINO is to run the INT8 model: they are ONNX Runtime's alone."""
        if not self.fused or target.runtime != "openvino" or not any("int8" in other.info.gives for other in others):
            return {}
        reason = "holds operators of ONNX Runtime alone once it is quantized, and the target's runtime is openvino"
        return {"fused": f"{reason}; give false"}

    def shape_after(self, shape: Shape) -> Shape:
        """Return the same shape: only the format changes."""
        return shape

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
        from limbeck.model.checkpoints import save_model
        from limbeck.model.onnx.onnx_model import FLOAT_FILE, OnnxModel, to_onnx

        folder = Path(context.scratch or tempfile.mkdtemp(prefix="limbeck-")) / "exported"
        save_model(candidate.model, candidate.tokenizer, folder)
        to_onnx(candidate.model, folder / FLOAT_FILE, fused=self.fused)
        exported = OnnxModel(folder, FLOAT_FILE, json.loads((folder / "config.json").read_text(encoding="utf-8")))
        save_model(exported, candidate.tokenizer, folder)
        measured = parity(candidate, exported, self.parity_texts)
        exported.close()
        allowed = measured.allowed(self.parity_tolerance)
        if not measured.difference <= allowed:
            raise LimbeckError(
                f"export: logits in ONNX differ from torch by up to {measured.difference:.2g} on {measured.texts} "
                f"texts, more than {allowed:.2g} (parity_tolerance {self.parity_tolerance:g}, logits up to "
                f"{measured.largest:.2g}); give a larger parity_tolerance if that is exact enough, or report the model"
            )
        context.log(
            f"ONNX gives torch's logits on {measured.texts} texts, largest difference {measured.difference:.1e}"
        )
        yield replace(candidate, model=exported, folder=None)


ROUNDING = 1e-5
"""Share of the largest logit that sums in another order may differ by: some hundred roundings of float32."""


@dataclass(frozen=True)
class Parity:
    """Largest difference of the logits of two models, their largest size and spread, and on how many texts."""

    difference: float
    largest: float
    spread: float
    texts: int

    def allowed(self, tolerance: float) -> float:
        """Largest difference that counts as equal.

        >>> Parity(0.01, largest=8000.0, spread=0.5, texts=9).allowed(1e-3)
        0.081
        """
        return tolerance * max(1.0, self.spread) + ROUNDING * self.largest


def parity(candidate: Candidate, other: Any, most: int) -> Parity:
    """Compare the logits of two models on up to ``most`` validation texts, in padded batches.

    Args:
        candidate: The reference; its task gives the texts.
        other: The model to compare.
        most: Most texts to compare.

    Raises:
        InputError: The logits of the first are no numbers.
    """
    import numpy as np

    from limbeck.core.logits import require_finite_logits
    from limbeck.data.batching import collate, encode

    few = candidate.task.limit(validation=most)
    encoded, texts = encode(few, "validation", candidate.tokenizer), few.split("validation").texts
    pairs = []
    for start in range(0, len(encoded), 8):  # texts as they come, so that batches hold padding
        indices = range(start, min(start + 8, len(encoded)))
        batch = collate(encoded, indices)
        logits = candidate.model.predict(batch)
        real = np.asarray(batch["attention_mask"], dtype=bool)
        answers = other.predict(batch)
        rows = [(a[r], b[r]) if a.ndim == 2 else (a, b) for a, b, r in zip(logits, answers, real, strict=True)]
        require_finite_logits([row for row, _ in rows], [texts[index] for index in indices])
        pairs += rows
    before, after = (np.concatenate([np.ravel(pair[side]) for pair in pairs]) for side in (0, 1))
    return Parity(
        difference=float(np.abs(before - after).max()),
        largest=float(np.abs(before).max()),
        spread=float(np.abs(before - np.median(before)).max()),
        texts=len(encoded),
    )
