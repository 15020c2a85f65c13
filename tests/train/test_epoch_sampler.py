"""Batches of epochs: the same for a seed, and found again from the number of steps that are taken."""

import random
from itertools import pairwise

import pytest

from limbeck.data.batching import Encoded
from limbeck.train.epoch_sampler import EpochSampler


def sampler(requests=False, batch_size=8):
    rng = random.Random(0)
    starts = [0]
    while starts[-1] < 90:
        starts.append(starts[-1] + rng.randint(2, 6))
    rows = [[2] * rng.randint(3, 9) for _ in range(starts[-1])]
    groups = [tuple(range(*pair)) for pair in pairwise(starts)] if requests else ()
    return EpochSampler(Encoded(rows, None, [0] * len(rows), 0, "classification", requests=groups), batch_size, 0)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("requests", [False, True])
def test_every_step_continues_in_its_epoch(requests, accumulation):
    batches = sampler(requests)
    lengths = []
    for epoch in range(4):
        batches.epoch = epoch
        assert sorted(row for batch in batches for row in batch) == list(range(len(batches.encoded)))
        assert len(batches) == len(list(batches))
        lengths.append(-(-len(batches) // accumulation))
    assert (len(set(lengths)) > 1) == (requests and accumulation == 1)
    steps = 0
    for epoch, length in enumerate(lengths):
        for done in range(length):
            assert batches.seek(steps, accumulation) == done * accumulation
            assert batches.epoch == epoch
            steps += 1


def test_epochs_have_other_batches():
    batches = sampler()
    batches.seek(0, 1)
    first = list(batches)
    batches.seek(len(first), 1)
    second = list(batches)
    batches.seek(0, 1)
    assert first != second
    assert first == list(batches)
