"""Arrays on disk, read without loading them: one .npy file each, memory-mapped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

Keep = Callable[[str, Callable[[Path], None]], Path]


def kept_arrays(keep: Keep, name: str, build: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays that ``build`` makes, computed once and kept under ``name`` by ``lab.keep``; read-only."""

    def fill(folder: Path) -> None:
        for key, array in build().items():
            np.save(folder / f"{key}.npy", array, allow_pickle=False)

    folder = keep(name, fill)
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
