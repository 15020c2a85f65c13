"""Arrays on disk that are not loaded into memory: one memory-mapped .npy file each; ragged arrays as one flat array."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

Keep = Callable[[str, Callable[[Path], None]], Path]
"""``RunContext.keep``: returns the cached folder of that name, which the function fills if it does not exist yet."""


def cached_arrays(keep: Keep, name: str, build: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return arrays from the cache; compute them at the first call.

    Args:
        keep: ``RunContext.keep``.
        name: Key of the arrays in the cache.
        build: Computes the arrays, by name.

    Returns:
        The arrays by name, memory-mapped and read-only.
    """

    def fill(folder: Path) -> None:
        for key, array in build().items():
            np.save(folder / f"{key}.npy", array, allow_pickle=False)

    folder = keep(name, fill)
    return {path.stem: mapped(path) for path in sorted(folder.glob("*.npy"))}


def mapped(path: Path) -> np.ndarray:
    """Open an array file memory-mapped, read-only."""
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


@dataclass(frozen=True)
class Ragged:
    """Examples of different lengths in one flat array.

    Attributes:
        values: One item per token of every example [items, ...]; with ``pairs``, one per pair of tokens.
        lengths: Tokens of each example [examples].
        pairs: Whether an example has an item for every pair of tokens.

    >>> Ragged(np.array([1, 2, 3]), np.array([1, 2])).padded([1, 0])
    array([[2., 3.],
           [1., 0.]], dtype=float32)
    """

    values: np.ndarray
    lengths: np.ndarray
    pairs: bool = False

    @cached_property
    def starts(self) -> np.ndarray:
        """Offsets at which the examples start, and the end of the last one [examples + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths ** (2 if self.pairs else 1))])

    def put(self, example: int, items: np.ndarray) -> None:
        """Write the items of an example: [tokens, ...], or [tokens, tokens, ...] with ``pairs``."""
        block = self.values[self.starts[example] : self.starts[example + 1]]
        block[:] = items.reshape(block.shape)

    def padded(self, examples: Sequence[int]) -> np.ndarray:
        """Read examples, zero-padded to the longest: [examples, tokens, ...] or [examples, tokens, tokens, ...]."""
        sizes = [self._size(example) for example in examples]
        longest = tuple(map(max, zip(*sizes, strict=True)))
        block = np.zeros((len(sizes), *longest, *self.values.shape[1:]), dtype=np.float32)
        for row, (example, size) in enumerate(zip(examples, sizes, strict=True)):
            items = self.values[self.starts[example] : self.starts[example + 1]]
            inside = tuple(slice(length) for length in size)
            block[row][inside] = items.reshape(*size, *items.shape[1:])
        return block

    def _size(self, example: int) -> tuple[int, ...]:
        return (int(self.lengths[example]),) * (2 if self.pairs else 1)
