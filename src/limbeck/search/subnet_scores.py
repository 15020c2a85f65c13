"""What slices of a super-network are worth: the task's metric on some texts, float or INT8; nothing is judged twice."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.analytic_cost import NumberFormat
from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.storage.jsonl import append_lines, whole_lines

if TYPE_CHECKING:
    from limbeck.data.batching import Encoded
    from limbeck.data.task import Task

Tell = Callable[[Shape, float], None]


@dataclass(frozen=True)
class SliceScores:
    """Scores of shapes by ``candidate``, a super-network; those in ``file`` (JSON lines) are known already.

    An INT8 slice is extracted, quantized (without ``smooth``, which would look at texts for each) and run as it would
    be served, in batches of ``batch`` (the ranges of its activations span a batch); a float one answers inside the
    super-network. One thread judges a slice, whatever the machine has: sums in another order could turn an answer, and
    several processes (``shared``) are faster than threads.
    """

    candidate: Candidate
    number_format: NumberFormat = "float"
    split: str = "validation"
    rows: Sequence[int] | None = None
    batch: int = 1
    file: Path | None = None
    tell: Tell = lambda shape, score: None
    known: dict[Shape, float] = field(default_factory=dict)
    elsewhere: Callable[[Iterable[Shape]], Iterator[float]] | None = None

    def __post_init__(self) -> None:
        for line in whole_lines(self.file) if self.file is not None else ():
            about = json.loads(line)
            self.known[Shape.from_json(about["shape"])] = about["score"]

    def __call__(self, shapes: Sequence[Shape]) -> list[float]:
        """The metric of each shape."""
        fresh = [shape for shape in dict.fromkeys(shapes) if shape not in self.known]
        judged = self.elsewhere(fresh) if self.elsewhere is not None else map(self.judge, fresh)
        for shape, score in zip(fresh, judged, strict=True):
            self.known[shape] = score
            if self.file is not None:
                append_lines(self.file, [json.dumps({"shape": shape.to_json(), "score": score})])
            self.tell(shape, score)
        return [self.known[shape] for shape in shapes]

    @contextmanager
    def shared(self, workers: int) -> Iterator[SliceScores]:
        """The same scores, judged by so many processes of this machine, each of which opens the super-network once."""
        from limbeck.measure.latency import stored
        from limbeck.storage.parallel import worker_pool

        if workers == 1:
            yield self
            return
        with tempfile.TemporaryDirectory(prefix="limbeck-") as place, stored(self.candidate) as model:
            self.task.to_folder(Path(place, "task"))
            about = {"model": str(model), "number_format": self.number_format, "split": self.split, "batch": self.batch}
            Path(place, "about.json").write_text(json.dumps(about), encoding="utf-8")
            with worker_pool(workers) as each:
                yield replace(self, elsewhere=partial(each, partial(_judged, place)))

    @property
    def task(self) -> Task:
        """The task with the texts that slices are judged on, and no others."""
        split = self.candidate.task.split(self.split)
        chosen = split if self.rows is None else split.take(list(self.rows))
        return replace(self.candidate.task, splits={self.split: chosen})

    @property
    def about(self) -> dict[str, str]:
        """What decides a score, in words: where it is the same, slices are worth the same."""
        from limbeck.model.checkpoints import fingerprint

        return {
            "number format": f"int8 by {self.batch}" if self.number_format == "int8" else self.number_format,
            "metric": self.task.metric,
            "texts": f"{self.split} {self.task.fingerprint}",
            "super-network": fingerprint(self.candidate.model),
        }

    @cached_property
    def encoded(self) -> Encoded:
        """The texts that slices are judged on."""
        from limbeck.data.batching import encode

        return encode(self.task, self.split, self.candidate.tokenizer)

    def judge(self, shape: Shape) -> float:
        """The metric of one shape."""
        from limbeck.data.batching import predict

        with _one_thread():
            if self.number_format == "int8":
                logits = predict(_Quantized(self.candidate.model, shape), self.encoded, self.batch)
            else:
                logits = predict(_Slice(self.candidate.model, shape), self.encoded, 64)
        return float(self.candidate.task.score(logits, self.encoded.labels))


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _judged(place: str, shape: Shape) -> float:
    """A worker's side of :meth:`SliceScores.shared`."""
    return _opened(place).judge(shape)


@lru_cache(maxsize=1)
def _opened(place: str) -> SliceScores:
    from limbeck.data.task import Task
    from limbeck.model.checkpoints import open_model

    about = json.loads(Path(place, "about.json").read_text(encoding="utf-8"))
    task = Task.from_folder(Path(place, "task"))
    model, tokenizer = open_model(about.pop("model"), task=task)
    return SliceScores(Candidate(model, tokenizer, task), **about)


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
        from limbeck.model.onnx.onnx_model import open_session, parts
        from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize
        from limbeck.model.pruning.subnetwork import extract

        found = parts(extract(model, shape).cpu())
        self.session = open_session(quantize(*found, Int8(frozenset(quantizable_modules(*found)))))

    def predict(self, batch: Mapping[str, Any]) -> np.ndarray:
        from limbeck.model.onnx.onnx_model import answer

        return answer(self.session, batch)
