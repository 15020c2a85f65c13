"""How narrowly tokens were chosen, against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limbeck.core.shape import Shape, kept_tokens
from limbeck.model.selection_margins import selection_margins

SHAPE = Shape.uniform(layers=3, hidden=32, heads=4, ffn=48)


def slow_margin(model, ids):
    """The least margin of one text without padding, layer by layer."""
    present, margins = list(range(ids.shape[1])), [np.inf]
    _, taps = model.run({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, taps=("attention", "positions"))
    for index, (read, left) in enumerate(model.shape.token_shares):
        present = taps["positions"][index][0].tolist()
        scores = taps["attention"][index][0]
        received = sorted((float(scores.softmax(-1)[:, :, at].sum()) for at in range(1, len(present))), reverse=True)
        remaining = kept_tokens(left, ids.shape[1])
        if left < read and 1 < remaining < len(present):
            margins.append((received[remaining - 2] - received[remaining - 1]) / received[0])
    return min(margins)


@pytest.mark.parametrize("shares", [(0.8, 0.5, 0.5), (1.0, 0.3, 0.3)])
def test_margins_are_the_least_of_all_layers_and_padding_plays_no_part(make_model, shares):
    model = make_model(SHAPE.with_tokens(*shares), labels=3, vocab_size=60).train()
    lengths = (9, 1, 2, 5, 12)
    mask = (torch.arange(12) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 60, mask.shape, generator=torch.Generator().manual_seed(2)) * mask
    margins = selection_margins(model, {"input_ids": ids, "attention_mask": mask})
    assert model.training
    model.eval()
    with torch.no_grad():
        expected = [slow_margin(model, ids[row : row + 1, :length]) for row, length in enumerate(lengths)]
    np.testing.assert_allclose(margins, expected, rtol=1e-3, atol=1e-6)
    assert np.isinf(margins[1])
    assert 0 < margins[4] < 1
    alone = selection_margins(model, {"input_ids": ids[4:]})
    np.testing.assert_allclose(alone, margins[4:], rtol=1e-3, atol=1e-6)


def test_all_tokens_go_on_without_a_schedule(make_model):
    ids = torch.randint(5, 60, (3, 7), generator=torch.Generator().manual_seed(2))
    assert np.isinf(selection_margins(make_model(SHAPE, labels=3, vocab_size=60), {"input_ids": ids})).all()
