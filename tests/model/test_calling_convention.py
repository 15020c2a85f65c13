import pytest
import torch

from limbeck.model.calling_convention import REFUSED, check_options, per_layer

IDS = torch.tensor([[2, 5, 3]])


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_that_would_change_the_output_is_refused_unless_it_is_none(name):
    check_options(IDS, {name: None, "use_cache": True})
    with pytest.raises(ValueError, match=f"does not take {name}: give input_ids"):
        check_options(IDS, {name: torch.ones(1)})


def test_token_ids_are_needed():
    with pytest.raises(ValueError, match="needs input_ids"):
        check_options(None, {})


def test_taps_come_out_under_the_names_of_transformers():
    scores = torch.tensor([[[[0.0, 1.0], [2.0, -1.0]]]])
    outputs = per_layer({"hidden": [IDS, IDS], "attention": [scores]})
    assert set(outputs) == {"hidden_states", "attentions"}
    assert len(outputs["hidden_states"]) == 2
    torch.testing.assert_close(outputs["attentions"][0].sum(-1), torch.ones(1, 1, 2))
    assert per_layer({}) == {}
