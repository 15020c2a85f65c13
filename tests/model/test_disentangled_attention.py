from __future__ import annotations

import pytest
import torch
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from limbeck.model.disentangled_attention import (
    RelativeEmbeddings,
    bucket_rows,
    log_buckets,
    position_scores,
    shifted,
)
from limbeck.model.style import Style


@pytest.mark.parametrize(("buckets", "largest"), [(256, 512), (8, 16), (32, 40), (3, 7)])
def test_buckets_are_those_of_transformers(buckets, largest):
    distances = torch.arange(-2 * largest, 2 * largest + 1)
    expected = make_log_bucket_position(distances, buckets, largest)
    assert log_buckets(distances, buckets, largest).tolist() == expected.long().tolist()


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_a_shift_is_a_gather_by_distance(tokens):
    products = torch.randn(2, 3, tokens, 2 * tokens)
    seen = shifted(products)
    for i in range(tokens):
        for j in range(tokens):
            assert torch.equal(seen[..., i, j], products[..., i, j - i + tokens - 1])


@pytest.mark.parametrize("buckets", [0, 6])
@pytest.mark.parametrize("tokens", [1, 9])
def test_scores_are_those_of_a_loop_over_pairs(buckets, tokens):
    torch.manual_seed(0)
    style = Style(pos_att_type=("c2p", "p2c"), position_buckets=buckets, max_relative_positions=7)
    relative = RelativeEmbeddings(4, style)
    query, key = torch.randn(2, 2, 3, tokens, 4).unbind(0)
    rows = relative(tokens, 4)
    to_key, to_query = torch.randn(2, 4, 4)
    position_key, position_query = (
        (rows.rows @ matrix)[None, None].expand(2, 3, -1, -1) for matrix in (to_key, to_query)
    )
    seen = position_scores(query, key, rows, position_key, position_query)
    table = relative.table.weight
    for i in range(tokens):
        for j in range(tokens):
            row = table[bucket_rows(torch.tensor(i - j), style)]
            expected = query[:, :, i] @ (row @ to_key) + key[:, :, j] @ (row @ to_query)
            torch.testing.assert_close(seen[:, :, i, j], expected)
    for term, only in ((position_key, "c2p"), (position_query, "p2c")):
        parts = (term, None) if only == "c2p" else (None, term)
        seen = seen - position_scores(query, key, rows, *parts)
    torch.testing.assert_close(seen, torch.zeros_like(seen), atol=1e-5, rtol=0)
