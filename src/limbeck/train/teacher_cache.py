"""Logits and activations of teachers on every training text: computed once, cached on disk, read batch by batch.

Logits are float32. Activations are float16, one item per token or pair of tokens, without padding, one file per layer.
So students that imitate different layers of the same teacher share the layers that they have in common.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from limbeck.core.model import AnswerSource
from limbeck.data.answers import answers, by_word, keepable_answers
from limbeck.data.batching import Encoded, Predictor, collate, encode, length_batches, predict_batches
from limbeck.errors import InputError
from limbeck.model.placement import on_accelerator
from limbeck.storage.memmap import Keep, Ragged, cached_arrays, mapped
from limbeck.train.objectives import Batch, Outputs, Taps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.candidate import Candidate
    from limbeck.core.task import Task
    from limbeck.model.encoder import LimbeckForSequenceClassification

CachedLogits = Callable[[Tensor], Tensor]
"""Returns the logits of rows of the training split [rows, classes], or [rows, seq, classes] for token labels."""
TapKey = tuple[str, int]
"""The name of an activation, and a layer."""
BATCH = 64
PART = 64
"""Batches whose logits are stored together: an interruption repeats at most these."""


@dataclass(frozen=True)
class CachedTeacher:
    """Teacher outputs read from disk: no forward pass, and no model in memory."""

    logits: CachedLogits
    layers: Mapping[str, Mapping[int, Ragged]]

    def __call__(self, batch: Batch, taps: Sequence[str]) -> Outputs:
        """Return the logits and the activations of these names."""
        rows, device = batch["index"].tolist(), batch["index"].device

        def read(tap: str, activations: Ragged) -> Tensor:
            return _as_tapped(tap, torch.from_numpy(activations.padded(rows))).to(device)

        tapped = {tap: {layer: read(tap, ragged) for layer, ragged in self.layers[tap].items()} for tap in taps}
        return Outputs(self.logits(batch["index"]), tapped)


def cached_word_logits(
    teacher: Candidate, name: str, task: Task, keep: Keep, tokenizer: PreTrainedTokenizerBase
) -> tuple[CachedLogits, int]:
    """Cache the logits of a teacher that divides words into other tokens: those of the first token of each word.

    Args:
        teacher: The teacher, with its own tokenizer, or without one if it gives answers alone.
        name: Identifies the teacher in the cache.
        task: The task with the training split.
        keep: ``RunContext.keep``.
        tokenizer: The student's.

    Returns:
        A function that reads the logits of rows [rows, seq, classes] at the student's first tokens of words: NaN where
        the teacher did not see the word, 0 at other tokens. And the number of such words.
    """
    if isinstance(teacher.model, AnswerSource):
        words = answers(teacher.model, None, task, "train", keep=keep)
    else:
        parts = LogitParts.of(teacher, name, task, keep)
        own = parts.encoded
        split = _split(parts.table(), own, range(len(own)))
        words = by_word([split[row] for row in range(len(own))], own.first_pieces)
    encoded, unseen = encode(task, "train", tokenizer), 0
    values = np.zeros((int(encoded.lengths.sum()), task.num_labels), dtype=np.float32)
    for start, positions, logits in zip(
        np.cumsum(encoded.lengths) - encoded.lengths, encoded.first_pieces, words, strict=True
    ):
        seen = [word for word, position in enumerate(positions) if position is not None]
        values[[start + positions[word] for word in seen]] = logits[seen]
        unseen += int(np.isnan(logits[seen]).any(-1).sum())
    read = Ragged(values, encoded.lengths).padded
    return (lambda rows: torch.from_numpy(read(rows.tolist())).to(rows.device)), unseen


def cached_logits(
    teacher: Candidate, name: str, task: Task, keep: Keep, computed: np.ndarray | None = None
) -> CachedLogits:
    """Cache the teacher's logits on the training split.

    Args:
        teacher: The teacher; not run if its logits are cached already.
        name: Identifies the teacher in the cache.
        task: The task with the training split.
        keep: ``RunContext.keep``.
        computed: Logits of an earlier pass [rows, classes], or [tokens, classes] for token labels; None runs the
            teacher if needed.

    Returns:
        A function that reads the logits of rows.
    """
    if isinstance(teacher.model, AnswerSource):
        logits = np.asarray(answers(teacher.model, None, task, "train", keep=keep))
        return lambda rows: torch.from_numpy(logits[rows.tolist()]).to(rows.device)
    parts = LogitParts.of(teacher, name, task, keep)
    encoded, table = parts.encoded, parts.table(computed)
    read = Ragged(table, encoded.lengths).padded if encoded.per_token else table.__getitem__
    return lambda rows: torch.from_numpy(read(rows.tolist())).to(rows.device)


@dataclass(frozen=True)
class LogitParts:
    """The logits of a model on a split, stored part by part under what is read, so that each is computed once.

    An interrupted pass continues with its part. Rows that augmentation added are apart from the originals, whose logits
    are those of the task without them.

    Attributes:
        model: The teacher.
        encoded: The split.
        originals: How many rows, the first ones, are not from augmentation.
        name: Identifies the teacher in the cache.
        keep: ``RunContext.keep``.
    """

    model: Predictor
    encoded: Encoded
    originals: int
    name: str
    keep: Keep

    @classmethod
    def of(cls, teacher: Candidate, name: str, task: Task, keep: Keep) -> LogitParts:
        """Return the parts of a task's training split.

        Args:
            teacher: The teacher, with the tokenizer that reads.
            name: Identifies the teacher in the cache.
            task: The task.
            keep: ``RunContext.keep``.
        """
        encoded = encode(task, "train", teacher.tokenizer)
        return cls(teacher.model, encoded, task.labeled_rows, f"logits-{name}", keep)

    @cached_property
    def parts(self) -> dict[str, list[list[int]]]:
        """The batches of each part, by the name under which it is kept."""
        parts = {}
        for begin, end in ((0, self.originals), (self.originals, len(self.encoded))):
            digest, lengths = _digest(self.encoded, begin, end), self.encoded.lengths[begin:end]
            batches = [[begin + index for index in batch] for batch in length_batches(lengths, BATCH)]
            for start in range(0, len(batches), PART):
                parts[f"{self.name}-{digest}-{start}"] = batches[start : start + PART]
        return parts

    def part(self, name: str, computed: Mapping[int, np.ndarray] | None = None) -> dict[int, np.ndarray]:
        """Return the logits of the rows of a part.

        Args:
            name: Name of the part.
            computed: Logits of an earlier pass, by row; None runs the teacher where they are missing.
        """
        batches = self.parts[name]
        order = sorted(index for batch in batches for index in batch)

        def compute() -> dict[str, np.ndarray]:
            predicted = (
                dict(predict_batches(on_accelerator(self.model), self.encoded, batches))
                if computed is None
                else computed
            )
            return {"logits": _joined([predicted[index] for index in order], self.encoded)}

        return _split(cached_arrays(self.keep, name, compute)["logits"], self.encoded, order)

    def table(self, computed: np.ndarray | None = None) -> np.ndarray:
        """Return the logits of all rows [rows, classes], or [tokens, classes].

        Args:
            computed: Logits of an earlier pass; None runs the teacher where they are missing.
        """
        rows = [np.empty(0)] * len(self.encoded)
        given = None if computed is None else _split(computed, self.encoded, range(len(self.encoded)))
        for name in self.parts:
            for index, row in self.part(name, given).items():
                rows[index] = row
        return _joined(rows, self.encoded)


def _digest(encoded: Encoded, begin: int, end: int) -> str:
    """Return a digest of what a model reads in these rows."""
    kinds = None if encoded.token_type_ids is None else encoded.token_type_ids[begin:end]
    read = [encoded.input_ids[begin:end], kinds, encoded.pad_id, BATCH, PART]
    if encoded.pairs:
        read.append(encoded.pairs[begin:end])
    return hashlib.sha256(json.dumps(read, default=list).encode()).hexdigest()[:16]


def _split(table: np.ndarray, encoded: Encoded, rows: Sequence[int]) -> dict[int, np.ndarray]:
    """Cut logits [rows, classes], or [tokens, classes], into those of each row."""
    if not encoded.per_token:
        return dict(zip(rows, table, strict=True))
    ends = np.cumsum(encoded.lengths[list(rows)])
    return dict(zip(rows, np.split(table, ends[:-1]), strict=True))


def _joined(rows: Sequence[np.ndarray], encoded: Encoded) -> np.ndarray:
    return np.concatenate(rows) if encoded.per_token else np.stack(rows)


def keepable(teacher: Candidate, name: str, task: Task, keep: Keep) -> Mapping[str, Callable[[], object]]:
    """Return what keeps each part of a teacher's logits, by the names under which parts are kept.

    Args:
        teacher: The teacher.
        name: Identifies it in the cache.
        task: The task with the training split.
        keep: ``RunContext.keep``.
    """
    if isinstance(teacher.model, AnswerSource):
        return keepable_answers(teacher.model, task, "train", keep)
    parts = LogitParts.of(teacher, name, task, keep)
    return {part: partial(parts.part, part) for part in parts.parts}


def mean_logits(logits: Sequence[CachedLogits]) -> CachedLogits:
    """Average several teachers' logits, which gives the geometric mean of their probabilities.

    A word that some of them did not see (NaN) has the mean of the others.
    """
    return logits[0] if len(logits) == 1 else lambda rows: torch.stack([read(rows) for read in logits]).nanmean(0)


def cached_layers(
    teacher: Candidate, name: str, task: Task, wanted: Taps, keep: Keep, scratch: Path | None = None
) -> tuple[dict[str, dict[int, Ragged]], np.ndarray | None]:
    """Cache the teacher's activations on the training split; one pass computes all that are missing.

    Args:
        teacher: The teacher; not run if all activations are cached already.
        name: Identifies the teacher in the cache.
        task: The task with the training split.
        wanted: Names of the activations, each with its layers.
        keep: ``RunContext.keep``.
        scratch: Where the pass writes temporary files.

    Returns:
        The activations by name and layer, and the logits of the pass [rows, classes], or [tokens, classes] for token
        labels; None without a pass.

    Raises:
        InputError: The disk has too little space.
    """
    encoded = encode(task, "train", teacher.tokenizer)
    written: dict[TapKey, Path] = {}
    logits: list[np.ndarray] = []
    with ExitStack() as stack:

        def _build(tap: str, layer: int, folder: Path) -> None:
            if not written:
                if scratch is not None:
                    scratch.mkdir(parents=True, exist_ok=True)
                work = stack.enter_context(tempfile.TemporaryDirectory(dir=scratch, prefix="teacher-"))
                paths, output = _run_teacher(teacher.model.eval(), encoded, wanted, Path(work))
                written.update(paths)
                logits.append(output)
            shutil.move(written[tap, layer], folder / "values.npy")

        def cached(tap: str, layer: int) -> Ragged:
            folder = keep(f"{tap}-{layer}-{name}-{task.fingerprint}-train", partial(_build, tap, layer))
            return Ragged(mapped(folder / "values.npy"), encoded.lengths, pairs=tap == "attention")

        activations = {tap: {layer: cached(tap, layer) for layer in layers} for tap, layers in wanted.items()}
        return activations, logits[0] if logits else None


def _run_teacher(
    model: LimbeckForSequenceClassification, encoded: Encoded, wanted: Taps, folder: Path
) -> tuple[dict[TapKey, Path], np.ndarray]:
    """Run the model over all texts and write its activations; return the files, and the logits without padding."""
    files: dict[TapKey, Ragged] = {}
    logits: dict[int, np.ndarray] = {}
    on_accelerator(model)
    paths = {(tap, layer): folder / f"{tap}-{layer}.npy" for tap, layers in wanted.items() for layer in layers}
    with torch.no_grad():
        for indices in length_batches(encoded.lengths, BATCH):
            batch = {key: value.to(model.device) for key, value in collate(encoded, indices).items()}
            output, tapped = model.run(batch, taps=sorted(wanted))
            for example, row in zip(indices, output.float().cpu().numpy(), strict=True):
                logits[example] = row[: int(encoded.lengths[example])] if encoded.per_token else row
            blocks = {
                (tap, layer): _by_token(tap, tapped[tap][layer]).to("cpu", torch.float16).numpy()
                for tap, layer in paths
            }
            files = files or _create_files(paths, blocks, encoded.lengths)
            for key, block in blocks.items():
                for example, items in zip(indices, block, strict=True):
                    size = int(encoded.lengths[example])
                    files[key].put(example, items[:size, :size] if files[key].pairs else items[:size])
    rows = [logits[example] for example in range(len(encoded))]
    return paths, np.concatenate(rows) if encoded.per_token else np.stack(rows)


def _create_files(
    paths: Mapping[TapKey, Path], blocks: Mapping[TapKey, np.ndarray], lengths: np.ndarray
) -> dict[TapKey, Ragged]:
    """Create empty files of the right sizes; fail if the disk cannot hold them."""
    shapes = {}
    for key, block in blocks.items():
        power = 2 if key[0] == "attention" else 1
        shapes[key] = (int((lengths**power).sum()), *block.shape[1 + power :])
    folder = next(iter(paths.values())).parent
    needed, free = 2 * sum(map(math.prod, shapes.values())), shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"cache_teacher: the teacher's outputs take {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB "
            "left; turn it off, or imitate less"
        )
    return {
        key: Ragged(
            np.lib.format.open_memmap(paths[key], mode="w+", dtype=np.float16, shape=shape),
            lengths,
            pairs=key[0] == "attention",
        )
        for key, shape in shapes.items()
    }


def _by_token(tap: str, activations: Tensor) -> Tensor:
    """Move the axes of tokens before those of heads; hidden states [batch, seq, hidden] stay as they are."""
    if tap == "attention":
        return activations.permute(0, 2, 3, 1)
    return activations.transpose(1, 2) if tap in ("query", "key", "value") else activations


def _as_tapped(tap: str, activations: Tensor) -> Tensor:
    """Undo :func:`_by_token`."""
    if tap == "attention":
        return activations.permute(0, 3, 1, 2)
    return activations.transpose(1, 2) if tap in ("query", "key", "value") else activations
