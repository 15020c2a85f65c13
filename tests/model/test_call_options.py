"""Options of transformers' interface that are refused, and outputs by its names."""

from __future__ import annotations

import pytest
import torch

from limbeck.model.call_options import REFUSED, check_options, per_layer


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_the_output_is_refused(name):
    ids = torch.ones(1, 3, dtype=torch.long)
    check_options(ids, {name: None, "use_cache": True})
    with pytest.raises(ValueError, match=f"does not take {name}"):
        check_options(ids, {name: ids})


def test_token_ids_are_needed():
    with pytest.raises(ValueError, match="needs input_ids"):
        check_options(None, {})


def test_attention_comes_as_weights():
    scores = torch.randn(2, 4, 3, 3)
    outputs = per_layer({"hidden": [scores], "attention": [scores]})
    assert outputs["hidden_states"] == (scores,)
    torch.testing.assert_close(outputs["attentions"][0].sum(-1), torch.ones(2, 4, 3))
    assert per_layer({}) == {}
