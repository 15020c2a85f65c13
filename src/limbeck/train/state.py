"""Checkpoints of the training loop: written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_file, save_file

CURRENT, LOOP = "checkpoint", "loop.json"


def attach(accelerator: Accelerator) -> None:
    """Let the accelerator leave the weights to us.

    Its own writer takes empty tensors (of layers that were cut away) for shared ones and cannot read them back.
    """

    def write(models: list[Any], weights: list[dict[str, Any]], folder: str) -> None:
        for number, tensors in enumerate(weights):
            if tensors:  # an objective without parameters has nothing to keep
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
    fresh, old = folder / "checkpoint.new", folder / "checkpoint.old"
    shutil.rmtree(fresh, ignore_errors=True)
    accelerator.save_state(str(fresh), safe_serialization=True)
    (fresh / LOOP).write_text(json.dumps(loop))
    current = folder / CURRENT
    shutil.rmtree(old, ignore_errors=True)
    if current.exists():
        os.replace(current, old)
    os.replace(fresh, current)
    shutil.rmtree(old, ignore_errors=True)


def load(accelerator: Accelerator, folder: Path) -> dict[str, Any] | None:
    """Restore the last checkpoint and return the loop's counters; None when there is none."""
    for name in (CURRENT, "checkpoint.old"):  # a crash between the two renames leaves only the old one
        found = folder / name
        if (found / LOOP).is_file():
            accelerator.load_state(str(found))
            return dict(json.loads((found / LOOP).read_text()))
    return None
