"""Checkpoints of the training loop: written whole or not at all.

With several processes each keeps its own random states; the rest is the same everywhere and process 0 writes it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from limbeck import processes

CURRENT, LOOP = "checkpoint", "loop.json"


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


def save(accelerator: Accelerator, folder: Path, loop: dict[str, Any]) -> None:
    """Write weights, optimiser, random states and the loop's own counters; replaces the last checkpoint."""
    fresh = folder / "checkpoint.new"
    processes.from_first(lambda: shutil.rmtree(fresh, ignore_errors=True))
    with processes.agreeing():
        accelerator.save_state(str(fresh), safe_serialization=True)
    processes.from_first(lambda: _replace(fresh, folder, {"processes": accelerator.num_processes, "loop": loop}))


def _replace(fresh: Path, folder: Path, about: dict[str, Any]) -> None:
    current, old = folder / CURRENT, folder / "checkpoint.old"
    (fresh / LOOP).write_text(json.dumps(about))
    shutil.rmtree(old, ignore_errors=True)
    if current.exists():
        os.replace(current, old)
    os.replace(fresh, current)
    shutil.rmtree(old, ignore_errors=True)


def load(accelerator: Accelerator, folder: Path) -> dict[str, Any] | None:
    """Restore the last checkpoint and return the loop's counters; None when there is none.

    One of another number of processes does not count: its steps took other batches.
    """
    for name in (CURRENT, "checkpoint.old"):  # a crash between the two renames leaves only the old one
        found = folder / name
        if (found / LOOP).is_file():
            about = json.loads((found / LOOP).read_text())
            if about.get("processes") != accelerator.num_processes:
                continue
            accelerator.load_state(str(found))
            return dict(about["loop"])
    return None
