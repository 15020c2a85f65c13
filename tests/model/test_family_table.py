"""Every row of the table of families names a class of transformers and the parts that the encoder needs."""

from __future__ import annotations

import pytest
import transformers

from limbeck.model.family_table import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_names_its_configuration_and_every_part_of_a_layer(name):
    family = FAMILIES[name]
    defaults = transformers.AutoConfig.for_model(name).to_dict()
    assert {family.keys[field][0] for field in ("hidden", "heads", "depth", "ffn", "vocab_size")} <= defaults.keys()
    assert {"query", "key", "value", "attention_out", "attention_norm", "up", "down", "ffn_norm"} <= family.layer.keys()
    assert "word" in family.embeddings
    for key, value in family.required.items():
        assert defaults.get(key, value) == value, "the default of the architecture is supported"


def test_a_value_is_found_under_the_names_of_bert_too():
    family = FAMILIES["distilbert"]
    assert family.value({"dim": 12}, "hidden") == family.value({"hidden_size": 12}, "hidden") == 12
    assert family.value({}, "hidden") == 768
