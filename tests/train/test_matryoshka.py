"""Leading components as vectors of their own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from limbeck.errors import InputError
from limbeck.train.distillation_losses import LogitLoss
from limbeck.train.matryoshka import LeadingComponents, check_sizes
from limbeck.train.objectives import Outputs


@pytest.mark.parametrize("pairs", [False, True])
def test_the_distance_is_averaged_over_the_whole_and_the_leading_components(pairs):
    student, teacher = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    expected = (student - teacher).square().sum(1).mean()
    for size in (4, 2):
        ours, wanted = F.normalize(student[:, :size], dim=1), F.normalize(teacher[:, :size], dim=1)
        expected = expected + (ours - wanted).square().sum(1).mean()
    sides = (Outputs(side.reshape(3, -1) if pairs else side, {}) for side in (student, teacher))
    term = LeadingComponents(LogitLoss(problem_type="embedding"), (4, 2))
    loss = term(*sides, {"input_ids": torch.zeros(6, 1)})
    torch.testing.assert_close(loss, expected / 3)
    assert not term.taps


def test_more_components_than_there_are_is_refused():
    check_sizes((4, 7), 8)
    with pytest.raises(InputError, match="vectors have 8 components, give fewer, got 8"):
        check_sizes((4, 8), 8)
