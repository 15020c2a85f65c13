from __future__ import annotations

import torch

from limbeck.model.embeddings import Embeddings
from limbeck.model.style import Style

IDS = torch.tensor([[3, 4, 0], [5, 0, 0]])
MASK = (IDS != 0).long()


def embeddings(**style):
    torch.manual_seed(0)
    return Embeddings(8, Style(vocab_size=10, max_positions=4, token_types=0, **style)).eval()


def test_a_projection_before_the_norm_leaves_normalized_channels():
    before, after = (embeddings(embedding_size=6, project_before_norm=first) for first in (True, False))
    assert (before.project.bias, before.norm.normalized_shape, after.norm.normalized_shape) == (None, (8,), (6,))
    seen = before(IDS, None, 8)
    torch.testing.assert_close(seen.mean(-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    assert after(IDS, None, 8).mean(-1).abs().max() > 1e-4
    words = before.word(IDS) + before.position(torch.arange(3))
    torch.testing.assert_close(seen, before.norm(words @ before.project.weight.T))
    narrow = (words @ before.project.weight[:5].T).float()
    torch.testing.assert_close(before(IDS, None, 5), torch.nn.functional.layer_norm(narrow, (5,), eps=1e-12))


def test_padding_is_zero_only_where_the_style_says_so():
    for masks in (True, False):
        seen = embeddings(masks_queries=masks)(IDS, None, 8, MASK)
        assert bool(seen[MASK == 0].any()) is not masks
        assert seen[MASK == 1].any(-1).all()


def test_without_absolute_positions_order_does_not_matter():
    plain = embeddings(absolute_positions=False)
    assert plain.position is None
    torch.testing.assert_close(plain(IDS.flip(1), None, 8), plain(IDS, None, 8).flip(1))
