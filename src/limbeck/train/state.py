"""Checkpoints of the training loop: written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

CURRENT, LOOP = "checkpoint", "loop.json"


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
