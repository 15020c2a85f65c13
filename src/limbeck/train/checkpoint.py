"""Checkpoints of the training loop: written whole or not at all.

With several processes each keeps its own random states; the rest is the same everywhere and process 0 writes it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from limbeck.distributed import context as processes
from limbeck.errors import InputError

LOOP = "loop.json"
Log = Callable[..., None]


def attach(accelerator: Accelerator) -> None:
    """Let the accelerator leave the weights to us.

    Its own writer takes empty tensors (of layers that were cut away) for shared ones and cannot read them back.
    """

    def write(models: list[Any], weights: list[dict[str, Any]], folder: str) -> None:
        for number, tensors in enumerate(weights):
            if tensors and accelerator.is_main_process:  # an objective without parameters has nothing to keep
                plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
                save_file(plain, Path(folder) / f"weights-{number}.safetensors")
        weights.clear()

    def read(models: list[Any], folder: str) -> None:
        for number, model in enumerate(models):
            path = Path(folder) / f"weights-{number}.safetensors"
            if path.is_file():
                accelerator.unwrap_model(model).load_state_dict(load_file(path))
        models.clear()

    accelerator.register_save_state_pre_hook(write)
    accelerator.register_load_state_pre_hook(read)


def save(accelerator: Accelerator, folder: Path, loop: dict[str, Any], keep: int = 1) -> None:
    """Write weights, optimiser, random states and the loop's own counters; only the newest ``keep`` checkpoints stay.

    A checkpoint is called ``checkpoint-STEPS`` from the moment when it is complete.
    """
    fresh = folder / "checkpoint.new"
    processes.broadcast_from_main(lambda: shutil.rmtree(fresh, ignore_errors=True))
    with processes.synchronized():
        accelerator.save_state(str(fresh), safe_serialization=True)
    about = {"processes": accelerator.num_processes, "loop": loop}
    processes.broadcast_from_main(lambda: _complete(fresh, folder / f"checkpoint-{loop['steps']}", about, keep))


def _complete(fresh: Path, final: Path, about: dict[str, Any], keep: int) -> None:
    (fresh / LOOP).write_text(json.dumps(about))
    shutil.rmtree(final, ignore_errors=True)  # one that could not be read, or the run would have gone on from it
    os.replace(fresh, final)
    for old in checkpoints(final.parent)[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def load(accelerator: Accelerator, folder: Path, log: Log = lambda message: None) -> dict[str, Any] | None:
    """Restore the newest checkpoint that can be read and return the loop's counters; None when there is none.

    One of another number of processes does not count: its steps took other batches.
    """
    damage: Exception | None = None
    for found in checkpoints(folder):
        try:
            about = json.loads((found / LOOP).read_text())
            if about["processes"] != accelerator.num_processes:
                continue
            accelerator.load_state(str(found))
        except Exception as error:  # each file in it has errors of its own for damage
            log(f"checkpoint {found} cannot be read ({error})")
            damage = error
        else:
            return dict(about["loop"])
    if damage is not None:  # the model may hold half of it, so nothing can begin with it
        raise InputError(f"no checkpoint in {folder} can be read; remove that folder to train anew") from damage
    return None


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints, newest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))
