"""Arrays on disk, read without loading them: one .npy file each, memory-mapped; ragged ones row after row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

Keep = Callable[[str, Callable[[Path], None]], Path]


def kept_arrays(keep: Keep, name: str, build: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays that ``build`` makes, computed once and kept under ``name`` by ``context.keep``; read-only."""

    def fill(folder: Path) -> None:
        for key, array in build().items():
            np.save(folder / f"{key}.npy", array, allow_pickle=False)

    folder = keep(name, fill)
    return {path.stem: mapped(path) for path in sorted(folder.glob("*.npy"))}


def mapped(path: Path) -> np.ndarray:
    """An array file, read where it is looked at; read-only."""
    found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


@dataclass(frozen=True)
class Ragged:
    """Examples of different lengths in one array ``values`` [items of all examples, ...]: an item for each token.

    With ``pairs``, an item for each pair of tokens.

    >>> Ragged(np.array([1, 2, 3]), np.array([1, 2])).padded([1, 0])
    array([[2., 3.],
           [1., 0.]], dtype=float32)
    """

    values: np.ndarray
    lengths: np.ndarray
    pairs: bool = False

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each example begins, and where the last one ends [examples + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths ** (2 if self.pairs else 1))])

    def put(self, example: int, items: np.ndarray) -> None:
        """Write an example: [tokens, ...], or [tokens, tokens, ...] with ``pairs``."""
        block = self.values[self.starts[example] : self.starts[example + 1]]
        block[:] = items.reshape(block.shape)

    def padded(self, examples: Sequence[int]) -> np.ndarray:
        """These examples, padded with 0 to the longest [examples, tokens, ...] or [examples, tokens, tokens, ...]."""
        sizes = [self._size(example) for example in examples]
        longest = tuple(map(max, zip(*sizes, strict=True)))
        block = np.zeros((len(sizes), *longest, *self.values.shape[1:]), dtype=np.float32)
        for place, (example, size) in enumerate(zip(examples, sizes, strict=True)):
            items = self.values[self.starts[example] : self.starts[example + 1]]
            inside = tuple(slice(length) for length in size)
            block[place][inside] = items.reshape(*size, *items.shape[1:])
        return block

    def _size(self, example: int) -> tuple[int, ...]:
        return (int(self.lengths[example]),) * (2 if self.pairs else 1)
