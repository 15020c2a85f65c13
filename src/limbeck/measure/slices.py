"""What slices of a super-network are worth: the task's metric on some texts, float or INT8; nothing is judged twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.candidate import Candidate
from limbeck.core.lines import append_lines, whole_lines
from limbeck.core.shape import Shape
from limbeck.measure.counts import NumberFormat

if TYPE_CHECKING:
    from limbeck.data.batches import Encoded

Tell = Callable[[Shape, float], None]


@dataclass(frozen=True)
class SliceScores:
    """Scores of shapes by ``candidate``, a super-network; those in ``file`` (JSON lines) are known already.

    An INT8 slice is extracted, quantized and run as it would be served, in batches of ``batch`` (the ranges of its
    activations span a batch); a float one answers inside the super-network.
    """

    candidate: Candidate
    number_format: NumberFormat = "float"
    split: str = "validation"
    rows: Sequence[int] | None = None
    batch: int = 1
    file: Path | None = None
    tell: Tell = lambda shape, score: None
    known: dict[Shape, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for line in whole_lines(self.file) if self.file is not None else ():
            about = json.loads(line)
            self.known[Shape.from_json(about["shape"])] = about["score"]

    def __call__(self, shapes: Sequence[Shape]) -> list[float]:
        """The metric of each shape."""
        for shape in shapes:
            if shape not in self.known:
                self.known[shape] = self.judge(shape)
                if self.file is not None:
                    about = {"shape": shape.to_json(), "score": self.known[shape]}
                    append_lines(self.file, [json.dumps(about)])
                self.tell(shape, self.known[shape])
        return [self.known[shape] for shape in shapes]

    @cached_property
    def encoded(self) -> Encoded:
        """The texts that slices are judged on."""
        from dataclasses import replace

        from limbeck.data.batches import encode

        task = self.candidate.task
        if self.rows is not None:
            task = replace(task, splits={self.split: task.split(self.split).take(list(self.rows))})
        return encode(task, self.split, self.candidate.tokenizer)

    def judge(self, shape: Shape) -> float:
        """The metric of one shape."""
        from limbeck.data.batches import predict

        if self.number_format == "int8":
            logits = predict(_Quantized(self.candidate.model, shape), self.encoded, self.batch)
        else:
            logits = predict(_Slice(self.candidate.model, shape), self.encoded, 64)
        return float(self.candidate.task.score(logits, self.encoded.labels))


class _Slice:
    """A slice of a torch model that answers batches."""

    def __init__(self, model: Any, shape: Shape) -> None:
        self.model, self.shape = model.eval(), shape

    def predict(self, batch: Mapping[str, Any]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            placed = {name: value.to(self.model.device) for name, value in batch.items()}
            logits: np.ndarray = self.model.run(placed, shape=self.shape)[0].float().cpu().numpy()
        return logits


class _Quantized:
    """A slice as an INT8 graph in ONNX Runtime."""

    def __init__(self, model: Any, shape: Shape) -> None:
        from limbeck.model.extract import extract
        from limbeck.model.onnx import open_session, parts
        from limbeck.model.quantized import Int8, modules, quantize

        found = parts(extract(model, shape).cpu())
        self.session = open_session(quantize(*found, Int8(frozenset(modules(*found)))))
        self.names = {entry.name for entry in self.session.get_inputs()}

    def predict(self, batch: Mapping[str, Any]) -> np.ndarray:
        ids = np.asarray(batch["input_ids"])
        feed = {name: np.asarray(batch.get(name, np.zeros_like(ids))) for name in self.names}
        logits: np.ndarray = self.session.run(None, feed)[0]
        return logits
