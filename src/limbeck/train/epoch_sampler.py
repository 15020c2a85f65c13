"""The batches of each epoch, and where a training continues in them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from limbeck.data.batching import Encoded, length_batches, request_batches


class EpochSampler:
    """Batches of one epoch; they depend only on seed and epoch, so a resumed epoch is the same epoch.

    Args:
        encoded: The texts; where they have requests, a batch has whole ones, and epochs differ in length.
        batch_size: Rows of a batch.
        seed: Decides the batches of all epochs.
    """

    def __init__(self, encoded: Encoded, batch_size: int, seed: int) -> None:
        self.encoded, self.batch_size, self.seed, self.epoch = encoded, batch_size, seed, 0
        self.drop_last = False

    def seek(self, steps: int, accumulation: int) -> int:
        """Go to the epoch of the step after so many; return the batches of it that these have used.

        Args:
            steps: Optimizer steps that are taken.
            accumulation: Batches of a step; the last one of an epoch may have fewer.
        """
        self.epoch = 0
        while steps >= (length := math.ceil(len(self) / accumulation)):
            steps, self.epoch = steps - length, self.epoch + 1
        return steps * accumulation

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches())

    def __len__(self) -> int:
        return len(self._batches()) if self.encoded.requests else math.ceil(len(self.encoded) / self.batch_size)

    def _batches(self) -> list[list[int]]:
        if self.encoded.requests:
            return request_batches(self.encoded.requests, self.batch_size, self.seed, self.epoch)
        return length_batches(self.encoded.lengths, self.batch_size, self.seed, self.epoch)
