"""Score slices of a super-network by the task's metric on some texts, in float or INT8; none is scored twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from limbeck.core.analytic_cost import NumberFormat
from limbeck.core.candidate import Candidate
from limbeck.core.finite import load_json
from limbeck.core.pieces import Piece, Result, Spread
from limbeck.core.shape import Shape
from limbeck.storage.drafts import temporary_folder
from limbeck.storage.jsonl import append_lines, whole_lines

if TYPE_CHECKING:
    from torch import Tensor

    from limbeck.core.step import RunContext
    from limbeck.core.task import Task
    from limbeck.data.batching import Encoded
    from limbeck.model.encoder import LimbeckForSequenceClassification


@dataclass(frozen=True)
class SliceScores:
    """Scores of the slices of a super-network.

    An INT8 slice is extracted, quantized (without ``smooth``, which would need calibration texts for each) and run as
    it would be served; a float slice runs inside the super-network. Each slice is scored with one thread, whatever the
    machine has: another order of summation could flip a prediction, and several processes (``shared``) are faster than
    several threads.

    Attributes:
        candidate: The super-network, its tokenizer and its task.
        number_format: Arithmetic of the slices.
        split: Split to score on.
        rows: Rows of that split to use; None for all.
        batch: Texts in a batch of an INT8 slice, whose activation ranges span a batch.
        file: JSON lines with the scores of earlier calls, to which new ones are appended.
        on_score: Called with every new score.
        scores: All scores so far.
        remote: Scores shapes in other processes; None scores them in this one.
    """

    candidate: Candidate
    number_format: NumberFormat = "float"
    split: str = "validation"
    rows: Sequence[int] | None = None
    batch: int = 1
    file: Path | None = None
    on_score: Callable[[Shape, float], None] = lambda shape, score: None
    scores: dict[Shape, float] = field(default_factory=dict)
    remote: Callable[[Iterable[Shape]], Iterator[float]] | None = None

    @classmethod
    def of(
        cls, candidate: Candidate, context: RunContext, number_format: NumberFormat, split: str, samples: int | None
    ) -> SliceScores:
        """Return the scores that a step of a run needs.

        Args:
            candidate: The super-network.
            context: Gives the texts in a batch, the seed, and the folder in which scores are kept.
            number_format: Arithmetic of the slices.
            split: Split to score on.
            samples: Texts of it, or queries that search all documents; None for all.
        """
        file = context.scratch / "scores.jsonl" if context.scratch else None
        slices = cls(candidate, number_format, split, batch=context.target.batch, file=file)
        return slices.sampled(samples, context.seed)

    def __post_init__(self) -> None:
        for line in whole_lines(self.file) if self.file is not None else ():
            entry = load_json(line)
            self.scores[Shape.from_json(entry["shape"])] = entry["score"]

    def __call__(self, shapes: Sequence[Shape]) -> list[float]:
        """Return the metric of each shape."""
        fresh = [shape for shape in dict.fromkeys(shapes) if shape not in self.scores]
        results = self.remote(fresh) if self.remote is not None else map(self.score, fresh)
        for shape, score in zip(fresh, results, strict=True):
            self.scores[shape] = score
            if self.file is not None:
                append_lines(self.file, [json.dumps({"shape": shape.to_json(), "score": score})])
            self.on_score(shape, score)
        return [self.scores[shape] for shape in shapes]

    def sampled(self, count: int | None, seed: int) -> SliceScores:
        """Return scores by a seeded sample of the split; of every text where it has no more than ``count``."""
        from limbeck.core.task import choose_rows

        task, labels = self.candidate.task, self.candidate.task.split(self.split).labels
        if count is None or count >= len(task.split(self.split)):
            return self
        return replace(self, rows=choose_rows(task.task_kind, labels, count, seed))

    def reported(self, log: Callable[..., None], total: int) -> SliceScores:
        """Return scores that are logged as they come, with their number, that of all, and the best so far."""
        best, count = float("-inf"), 0

        def report(shape: Shape, score: float) -> None:
            nonlocal best, count
            best, count = max(best, score), count + 1
            log("", step=count, total=total, score=score, best=best)

        return replace(self, on_score=report)

    @contextmanager
    def shared(self, workers: int, spread: Spread | None = None) -> Iterator[SliceScores]:
        """Yield the same scores, computed elsewhere: by the workers of a run, or by processes of its own.

        Args:
            workers: Processes, which open the super-network once each; 1 scores in this process.
            spread: Has pieces carried out by the workers of a run; there, :meth:`work_on` scores the shapes.
        """
        from limbeck.measure.timed_session import stored
        from limbeck.storage.parallel import worker_pool

        if spread is not None:
            yield replace(self, remote=lambda shapes: _spread_scores(spread, shapes))
            return
        if workers == 1:
            yield self
            return
        with temporary_folder() as folder, stored(self.candidate) as model:
            self.task.to_folder(folder / "task")
            options = {"number_format": self.number_format, "split": self.split, "batch": self.batch}
            settings = json.dumps({"model": str(model), **options})
            (folder / "settings.json").write_text(settings, encoding="utf-8")
            with worker_pool(workers) as each:
                yield replace(self, remote=partial(each, partial(_score_in_worker, str(folder))))

    def work_on(self, pieces: Iterable[Piece]) -> Iterator[Result]:
        """Yield the score of the shape that each piece names."""
        for piece in pieces:
            yield {"score": self.score(Shape.from_json(piece["shape"]))}

    @property
    def task(self) -> Task:
        """The task, reduced to the texts that slices are scored on."""
        split = self.candidate.task.split(self.split)
        chosen = split if self.rows is None else split.take(list(self.rows))
        return replace(self.candidate.task, splits={self.split: chosen})

    @property
    def settings(self) -> dict[str, str]:
        """Everything that a score depends on besides the shape, in words."""
        from limbeck.model.checkpoints import fingerprint

        return {
            "number format": f"int8 by {self.batch}" if self.number_format == "int8" else self.number_format,
            "metric": self.task.metric,
            "texts": f"{self.split} {self.task.fingerprint}",
            "super-network": fingerprint(self.candidate.model),
        }

    @cached_property
    def encoded(self) -> Encoded:
        """The tokenized texts that slices are scored on."""
        from limbeck.data.batching import encode

        return encode(self.task, self.split, self.candidate.tokenizer)

    def score(self, shape: Shape) -> float:
        """Compute the metric of one shape."""
        from limbeck.data.batching import predict
        from limbeck.measure.timing import torch_threads

        with torch_threads(1):
            if self.number_format == "int8":
                logits = predict(_Quantized(self.candidate.model, shape), self.encoded, self.batch)
            else:
                logits = predict(_Slice(self.candidate.model, shape), self.encoded, 64)
        return float(self.candidate.task.score(logits, self.encoded.labels))


def _spread_scores(spread: Spread, shapes: Iterable[Shape]) -> Iterator[float]:
    return (float(result["score"]) for result in spread([{"shape": shape.to_json()} for shape in shapes]))


def _score_in_worker(folder: str, shape: Shape) -> float:
    """Score a shape in a worker process of :meth:`SliceScores.shared`."""
    return _open_scores(folder).score(shape)


@lru_cache(maxsize=1)
def _open_scores(folder: str) -> SliceScores:
    from limbeck.core.task import Task
    from limbeck.model.checkpoints import open_model

    settings = load_json(Path(folder, "settings.json").read_text(encoding="utf-8"))
    task = Task.from_folder(Path(folder, "task"))
    model, tokenizer = open_model(settings.pop("model"), task=task)
    return SliceScores(Candidate(model, tokenizer, task), **settings)


class _Slice:
    """A slice of a torch model that predicts batches."""

    int8 = False

    def __init__(self, model: LimbeckForSequenceClassification, shape: Shape) -> None:
        self.model, self.shape = model.eval(), shape

    def predict(self, batch: Mapping[str, Tensor]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            inputs = {name: tensor.to(self.model.device) for name, tensor in batch.items()}
            logits: np.ndarray = self.model.run(inputs, shape=self.shape)[0].float().cpu().numpy()
        return logits


class _Quantized:
    """A slice as an INT8 graph in ONNX Runtime."""

    int8 = True

    def __init__(self, model: LimbeckForSequenceClassification, shape: Shape) -> None:
        from limbeck.model.onnx.onnx_model import open_session, parts
        from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize
        from limbeck.model.pruning.subnetwork import extract

        graph_parts = parts(extract(model, shape).cpu())
        self.session = open_session(quantize(*graph_parts, Int8(frozenset(quantizable_modules(*graph_parts)))))

    def predict(self, batch: Mapping[str, Tensor]) -> np.ndarray:
        from limbeck.model.onnx.onnx_model import answer

        return answer(self.session, batch)
