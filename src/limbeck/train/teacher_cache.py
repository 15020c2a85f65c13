"""What teachers answer and think of every training text: computed once, kept on disk, read batch by batch.

Answers are float32. Activations are float16, an item for each token or pair of tokens, without padding, one file a
layer, so students that look at other layers of the same teacher share those that they have in common.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from limbeck.data.batching import Encoded, collate, encode, length_batches, predict
from limbeck.errors import InputError
from limbeck.storage.memmap import Keep, Ragged, cached_arrays, mapped
from limbeck.train.objectives import Batch, Outputs, Taps

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.data.task import Task

Answers = Callable[[Tensor], Tensor]
"""Logits of rows of the training split: [examples, classes], or [examples, seq, classes] where words have labels."""
BATCH = 64


@dataclass(frozen=True)
class KeptTeacher:
    """Teacher outputs from disk alone: no forward pass, and no model in memory."""

    logits: Answers
    layers: Mapping[str, Mapping[int, Ragged]]

    def __call__(self, batch: Batch, taps: Sequence[str]) -> Outputs:
        """Logits and the activations asked for."""
        rows, device = batch["index"].tolist(), batch["index"].device

        def read(tap: str, kept: Ragged) -> Tensor:
            return _as_tapped(tap, torch.from_numpy(kept.padded(rows))).to(device)

        found = {tap: {layer: read(tap, kept) for layer, kept in self.layers[tap].items()} for tap in taps}
        return Outputs(self.logits(batch["index"]), found)


def kept_answers(teacher: Candidate, name: str, task: Task, keep: Keep, made: np.ndarray | None = None) -> Answers:
    """The teacher's logits on the training split; ``name`` identifies the teacher.

    ``made``: those of a pass that was made anyway [examples, classes], or [tokens, classes] where words have labels.
    """
    encoded = encode(task, "train", teacher.tokenizer)

    def answer() -> dict[str, np.ndarray]:
        found = predict(teacher.model, encoded, BATCH) if made is None else made
        return {"logits": np.concatenate(found) if isinstance(found, list) else found}

    table = cached_arrays(keep, f"logits-{name}-{task.fingerprint}-train", answer)["logits"]
    read = Ragged(table, encoded.lengths).padded if encoded.kind == "tokens" else table.__getitem__
    return lambda rows: torch.from_numpy(read(rows.tolist())).to(rows.device)


def mean_answers(answers: Sequence[Answers]) -> Answers:
    """The mean of several teachers' logits, which is the geometric mean of their probabilities."""
    return answers[0] if len(answers) == 1 else lambda rows: torch.stack([one(rows) for one in answers]).mean(0)


def kept_layers(
    teacher: Candidate, name: str, task: Task, wanted: Taps, keep: Keep, scratch: Path | None = None
) -> tuple[dict[str, dict[int, Ragged]], np.ndarray | None]:
    """The teacher's activations on the training split, those of ``wanted``: by name and layer.

    One pass makes all that are not there yet, on files in ``scratch``; its logits come second, None without a pass.
    """
    encoded = encode(task, "train", teacher.tokenizer)
    written: dict[tuple[str, int], Path] = {}
    logits: list[np.ndarray] = []
    with ExitStack() as stack:

        def build(tap: str, layer: int, folder: Path) -> None:
            if not written:
                if scratch is not None:
                    scratch.mkdir(parents=True, exist_ok=True)
                place = tempfile.TemporaryDirectory(dir=scratch, prefix="teacher-")
                files, found = _write(teacher.model.eval(), encoded, wanted, Path(stack.enter_context(place)))
                written.update(files)
                logits.append(found)
            shutil.move(written[tap, layer], folder / "values.npy")

        def kept(tap: str, layer: int) -> Ragged:
            folder = keep(f"{tap}-{layer}-{name}-{task.fingerprint}-train", partial(build, tap, layer))
            return Ragged(mapped(folder / "values.npy"), encoded.lengths, pairs=tap == "attention")

        found = {tap: {layer: kept(tap, layer) for layer in layers} for tap, layers in wanted.items()}
        return found, logits[0] if logits else None


def _write(model: Any, encoded: Encoded, wanted: Taps, folder: Path) -> tuple[dict[tuple[str, int], Path], np.ndarray]:
    """Run the model over all texts and write what it taps; its logits, without padding."""
    files: dict[tuple[str, int], Ragged] = {}
    logits: list[Any] = [None] * len(encoded)
    places = {(tap, layer): folder / f"{tap}-{layer}.npy" for tap, layers in wanted.items() for layer in layers}
    with torch.no_grad():
        for indices in length_batches(encoded.lengths, BATCH):
            batch = {key: value.to(model.device) for key, value in collate(encoded, indices).items()}
            answers, tapped = model.run(batch, taps=sorted(wanted))
            for example, row in zip(indices, answers.float().cpu().numpy(), strict=True):
                logits[example] = row[: int(encoded.lengths[example])] if encoded.kind == "tokens" else row
            blocks = {at: _by_token(at[0], tapped[at[0]][at[1]]).to("cpu", torch.float16).numpy() for at in places}
            files = files or _opened(places, blocks, encoded.lengths)
            for at, block in blocks.items():
                for example, items in zip(indices, block, strict=True):
                    size = int(encoded.lengths[example])
                    files[at].put(example, items[:size, :size] if files[at].pairs else items[:size])
    return places, np.concatenate(logits) if encoded.kind == "tokens" else np.stack(logits)


def _opened(
    places: Mapping[tuple[str, int], Path], blocks: Mapping[tuple[str, int], np.ndarray], lengths: np.ndarray
) -> dict[tuple[str, int], Ragged]:
    """Empty files of the right sizes; an error if the disk cannot hold them."""
    shapes = {}
    for at, block in blocks.items():
        power = 2 if at[0] == "attention" else 1
        shapes[at] = (int((lengths**power).sum()), *block.shape[1 + power :])
    folder = next(iter(places.values())).parent
    needed, free = 2 * sum(map(math.prod, shapes.values())), shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"cache_teacher: the teacher's outputs take {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB "
            "left; turn it off, or imitate less"
        )
    return {
        at: Ragged(
            np.lib.format.open_memmap(places[at], mode="w+", dtype=np.float16, shape=shape),
            lengths,
            pairs=at[0] == "attention",
        )
        for at, shape in shapes.items()
    }


def _by_token(tap: str, activations: Tensor) -> Tensor:
    """Tapped activations with tokens first: hidden stays [batch, seq, hidden], heads go behind the tokens."""
    if tap == "attention":
        return activations.permute(0, 2, 3, 1)
    return activations.transpose(1, 2) if tap in ("query", "key", "value") else activations


def _as_tapped(tap: str, kept: Tensor) -> Tensor:
    """The inverse of :func:`_by_token`."""
    if tap == "attention":
        return kept.permute(0, 3, 1, 2)
    return kept.transpose(1, 2) if tap in ("query", "key", "value") else kept
