"""Vectors as an index stores them: in 8 bits, as signs, or cut to their leading components.

An index that stores 8 bits takes the range of each component from the vectors that it holds (scalar quantization);
one that stores signs compares by Hamming distance, whose order is that of the cosines of vectors of -1 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

LEADING = (256, 128, 64)
"""Numbers of leading components that are tried, where vectors have more."""
LEVELS = 255
"""Steps of a component in 8 bits."""


def int8(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [texts, width] as they are read from 8 bits: rounded within the range of each component.

    >>> int8(np.array([[0.0, -1.0], [0.1001, 1.0], [255.0, 0.0]])).round(2).tolist()
    [[0.0, -1.0], [0.0, 1.0], [255.0, 0.0]]
    """
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    step = np.where(high > low, (high - low) / LEVELS, 1.0)
    return np.asarray(low + np.round((vectors - low) / step) * step)


def signs(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [texts, width] as -1 and 1."""
    return np.where(vectors > 0, 1.0, -1.0)


def leading(size: int, vectors: np.ndarray) -> np.ndarray:
    """Return the leading components [texts, size] of vectors [texts, width]."""
    return vectors[:, :size]


@dataclass(frozen=True)
class StoredForm:
    """A way to store vectors: what is read from it, the components that are left, and the bits of each."""

    read: Callable[[np.ndarray], np.ndarray]
    width: int
    bits: int

    @property
    def bytes(self) -> int:
        """Bytes of a stored vector."""
        return -(-self.width * self.bits // 8)


def stored_forms(width: int) -> Mapping[str, StoredForm]:
    """Return the ways to store vectors of a width, by name.

    >>> {name: form.bytes for name, form in stored_forms(384).items()}
    {'int8': 384, 'binary': 48, 'first 256': 1024, 'first 128': 512, 'first 64': 256}
    """
    forms = {"int8": StoredForm(int8, width, 8), "binary": StoredForm(signs, width, 1)}
    for size in LEADING:
        if size < width:
            forms[f"first {size}"] = StoredForm(partial(leading, size), size, 32)
    return forms
