"""Tokenizers of folders: those that lack what a model needs are refused, and one adapts to its model."""

import json

import pytest

from limbeck.core.shape import Shape
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.checkpoints import save_model
from limbeck.model.tokenizer_loading import open_plain_tokenizer, open_tokenizer


def test_a_tokenizer_knows_the_positions_of_its_model(tmp_path, make_model):
    save_model(make_model(Shape.uniform(1, 8, 2, 8), max_positions=24), toy_tokenizer(toy_task()), tmp_path)
    assert open_tokenizer(tmp_path).model_max_length == 24
    assert open_plain_tokenizer(tmp_path).model_max_length > 24


@pytest.mark.parametrize("tokens", [2, 3, 5, 9])
def test_a_word_list_has_its_special_tokens(tmp_path, make_model, tokens):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u2028", "a", "b", "c"]
    save_model(make_model(Shape.uniform(1, 8, 2, 8)), toy_tokenizer(toy_task()), tmp_path)
    folder = tmp_path
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (folder / "vocab.txt").write_text("\n".join(words[:tokens]) + "\n", encoding="utf-8")
    if tokens > 3:
        assert len(open_tokenizer(folder)) == tokens
        return
    with pytest.raises(InputError, match=rf"vocab.txt has {tokens} tokens, without .*\[SEP\]; copy the whole file"):
        open_tokenizer(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"[SEP]": 3, "[CLS]": 2}))
    open_tokenizer(folder)
