"""Write the model as an ONNX graph, for ONNX Runtime or in standard operators for any runtime.

The graph is written from the weights, fused by construction (``model/graph.py``), so pruned models with ragged heads
or dropped layers are as fast as whole ones; exporters that trace lose the fusions.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge, Gt

from limbeck.core.candidate import Candidate
from limbeck.core.step import Lab, step
from limbeck.errors import LimbeckError
from limbeck.train.plan import forward_seconds

if TYPE_CHECKING:
    from limbeck.core.shape import Shape


@step("export", needs={"torch"}, gives={"onnx"}, drops={"torch"})
class Export:
    """Export to ONNX, and check on texts of the task that both models give the same logits.

    Attributes:
        fused: Use ONNX Runtime's fused operators; without, standard ONNX alone, for other runtimes.
        parity_tolerance: Largest difference of a logit from torch's.
        parity_texts: Texts of the validation split to compare.
    """

    fused: bool = True
    parity_tolerance: Annotated[float, Gt(0)] = 1e-3
    parity_texts: Annotated[int, Ge(1)] = 100

    example: ClassVar[dict[str, Any]] = {"parity_texts": 8}

    def outlook(self, shape: Shape) -> Shape:
        """The shape stays."""
        return shape

    def estimate(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Rough seconds: writing and checking the graph, and answering the texts of the parity check twice."""
        return 2.0 + forward_seconds(shape, 2 * min(self.parity_texts, rows.get("validation", 0)), tokens)

    def apply(self, candidate: Candidate, lab: Lab) -> Iterator[Candidate]:
        """Yield the candidate as an ONNX model; its folder keeps the torch weights."""
        from limbeck.model.files import save_model
        from limbeck.model.onnx import FLOAT_FILE, OnnxModel, to_onnx

        folder = Path(lab.scratch or tempfile.mkdtemp(prefix="limbeck-")) / "exported"
        save_model(candidate.model, candidate.tokenizer, folder)
        to_onnx(candidate.model, folder / FLOAT_FILE, fused=self.fused)
        exported = OnnxModel(folder, FLOAT_FILE, json.loads((folder / "config.json").read_text(encoding="utf-8")))
        save_model(exported, candidate.tokenizer, folder)
        difference, count = parity(candidate, exported, self.parity_texts)
        if not difference <= self.parity_tolerance:  # also when it is not a number
            raise LimbeckError(
                f"export: logits in ONNX differ from torch by up to {difference:.2g} on {count} texts, more than "
                f"parity_tolerance = {self.parity_tolerance:g}; this is a bug of limbeck, please report the model"
            )
        lab.log(f"ONNX gives torch's logits on {count} texts, largest difference {difference:.1e}")
        yield replace(candidate, model=exported, folder=None)


def parity(candidate: Candidate, other: Any, most: int) -> tuple[float, int]:
    """Largest difference of the logits of two models on validation texts (padded batches), and how many there were."""
    import numpy as np

    from limbeck.data.batches import collate, encode

    encoded = encode(candidate.task.limit(validation=most), "validation", candidate.tokenizer)
    largest = 0.0
    for start in range(0, len(encoded), 8):  # texts as they come, so that batches hold padding
        batch = collate(encoded, range(start, min(start + 8, len(encoded))))
        mine, theirs = candidate.model.predict(batch), other.predict(batch)
        real = np.asarray(batch["attention_mask"], dtype=bool)
        difference = np.abs(mine - theirs)
        if difference.ndim == 3:  # a class for every token: padding has no answer
            difference = difference[real]
        largest = float(np.maximum(largest, difference.max()))  # keeps NaN, as max() would not
    return largest, len(encoded)
