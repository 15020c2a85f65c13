"""Checkpoints of the training loop, written whole or not at all.

With several processes, each saves its own random states; everything else is the same on all, and process 0 writes it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from limbeck.distributed import context as processes
from limbeck.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

LOOP = "loop.json"
Log = Callable[..., None]
"""Called with a message, and with numbers by name."""


def attach(accelerator: Accelerator) -> None:
    """Make the accelerator save and load weights with our functions.

    Its own writer treats empty tensors (of layers that were pruned away) as shared and cannot read them back.
    """

    def _write(models: list[nn.Module], weights: list[dict[str, Tensor]], folder: str) -> None:
        for number, tensors in enumerate(weights):
            if tensors and accelerator.is_main_process:  # an objective without parameters has nothing to save
                plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
                save_file(plain, Path(folder) / f"weights-{number}.safetensors")
        weights.clear()

    def _read(models: list[nn.Module], folder: str) -> None:
        for number, model in enumerate(models):
            path = Path(folder) / f"weights-{number}.safetensors"
            if path.is_file():
                accelerator.unwrap_model(model).load_state_dict(load_file(path))
        models.clear()

    accelerator.register_save_state_pre_hook(_write)
    accelerator.register_load_state_pre_hook(_read)


def save(accelerator: Accelerator, folder: Path, loop: dict[str, Any], keep: int = 1) -> None:
    """Write weights, optimizer, random states and counters; a checkpoint gets its final name once it is complete.

    Args:
        accelerator: Holds everything that was prepared.
        folder: Where to write ``checkpoint-STEPS``.
        loop: The loop's counters, plain JSON values; ``steps`` among them.
        keep: How many checkpoints to keep, the newest.
    """
    fresh = folder / "checkpoint.new"
    processes.broadcast_from_main(lambda: shutil.rmtree(fresh, ignore_errors=True))
    with processes.synchronized():
        accelerator.save_state(str(fresh), safe_serialization=True)
    metadata = {"processes": accelerator.num_processes, "loop": loop}
    processes.broadcast_from_main(lambda: _complete(fresh, folder / f"checkpoint-{loop['steps']}", metadata, keep))


def _complete(fresh: Path, final: Path, metadata: dict[str, Any], keep: int) -> None:
    (fresh / LOOP).write_text(json.dumps(metadata))
    shutil.rmtree(final, ignore_errors=True)  # it was unreadable, or the run would have continued from it
    os.replace(fresh, final)
    for old in checkpoints(final.parent)[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def load(accelerator: Accelerator, folder: Path, log: Log = lambda message: None) -> dict[str, Any] | None:
    """Restore the newest readable checkpoint.

    Checkpoints of another number of processes are ignored: their steps used other batches.

    Args:
        accelerator: Holds everything that was prepared, in the same order as when saving.
        folder: Where the checkpoints are.
        log: Called with a message for every unreadable checkpoint.

    Returns:
        The loop's counters; None if there is no checkpoint.

    Raises:
        InputError: There are checkpoints, but none can be read.
    """
    damage: Exception | None = None
    for path in checkpoints(folder):
        try:
            metadata = json.loads((path / LOOP).read_text())
            if metadata["processes"] != accelerator.num_processes:
                continue
            accelerator.load_state(str(path))
        except Exception as error:  # each file format raises its own errors for damaged files
            log(f"checkpoint {path} cannot be read ({error})")
            damage = error
        else:
            return dict(metadata["loop"])
    if damage is not None:  # the model may be half restored, so training cannot start from it
        raise InputError(f"no checkpoint in {folder} can be read; remove that folder to train anew") from damage
    return None


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints, newest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))
