from __future__ import annotations

import numpy as np
import pytest
import torch
from small_masked_models import PIECES, SPECIAL, byte_level, masked_model, wordpiece
from transformers import BertModel, RobertaConfig, RobertaForMaskedLM

from limbeck.augmentation.transforms import split_words
from limbeck.augmentation.word_candidates import Lexicon, MaskedModel, load_masked_model, single_tokens
from limbeck.errors import InputError

TEXTS = ["The film plays a good plot.", "a bad movie, the plot", "good", "dull dull playing", ""]


@pytest.fixture(scope="module")
def masked():
    return masked_model()


@pytest.mark.parametrize("make", [wordpiece, byte_level])
def test_single_tokens_are_found_in_the_text(make):
    tokenizer = make()
    for text in (*TEXTS, "film good  film", "film film bad go go."):
        words, gaps = split_words(text)
        encoded = tokenizer(text, return_offsets_mapping=True)
        positions = single_tokens(words, gaps, encoded["offset_mapping"])
        for word, position in zip(words, positions, strict=True):
            pieces = [piece for piece in tokenizer.tokenize(f" {word}") if piece != "Ġ"]  # a space alone is no word
            assert (position is not None) == (len(pieces) == 1)
            if position is not None:
                assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][position]) == pieces[0]


def test_words_that_were_cut_off_are_no_tokens():
    words, gaps = split_words("good bad film plot")
    encoded = wordpiece()("good bad film plot", return_offsets_mapping=True, truncation=True, max_length=4)
    assert single_tokens(words, gaps, encoded["offset_mapping"]) == [1, 2, None, None]


def one_by_one(model, tokenizer, text, word, count):
    """Mask one word, run the whole text alone, and rank the vocabulary by hand."""
    words, gaps = split_words(text)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    position = single_tokens(words, gaps, tokenizer(text, return_offsets_mapping=True)["offset_mapping"])[word]
    if position is None:
        return None
    ids[0, position] = tokenizer.mask_token_id
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, position]
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    ranked = [names[number] for number in logits.argsort(descending=True).tolist()]
    good = [name for name in ranked if name.isalpha() and name != words[word].lower()]
    return tuple(good[:count])


@pytest.mark.parametrize("tokens", [8, 64, 4096])
def test_batched_candidates_equal_one_by_one(masked, tokens):
    model, tokenizer = masked
    texts = [split_words(text) for text in TEXTS]
    wanted = [[True] * len(words) for words, _ in texts]
    candidates = MaskedModel(model, tokenizer, count=4, batch_tokens=tokens).candidates(texts, wanted)
    for text, (words, _), own in zip(TEXTS, texts, candidates, strict=True):
        assert own == [one_by_one(model, tokenizer, text, position, 4) for position in range(len(words))]
    assert candidates[0][2] is None  # 'plays' has two pieces
    assert any(others for own in candidates for others in own)


def test_what_the_model_has_no_positions_for_is_cut_off(masked):
    (candidates,) = MaskedModel(*masked, count=2).candidates([split_words("good " * 40)], [[True] * 40])
    assert [others is not None for others in candidates] == [True] * 28 + [
        False
    ] * 12  # 30 tokens with the special ones


def test_only_wanted_words_are_looked_up(masked):
    texts = [split_words("good film")]
    assert MaskedModel(*masked).candidates(texts, [[False, False]]) == [[None, None]]
    (candidates,) = MaskedModel(*masked, count=99).candidates(texts, [[False, True]])
    assert candidates[0] is None
    assert set(candidates[1]) == {piece for piece in PIECES if piece.isalpha()} - {"film"}


def test_several_words_may_share_a_pass(masked):
    model, tokenizer = masked
    texts = [split_words("good bad film plot great")]
    lookup = MaskedModel(model, tokenizer, positions_per_pass=2, count=3)
    copies = list(lookup._copies(texts, [[True] * 5]))
    assert [copy.positions for copy in copies] == [[1, 4], [2, 5], [3]]  # as far apart as they can be
    (candidates,) = lookup.candidates(texts, [[True] * 5])
    assert all(len(others) == 3 for others in candidates)
    ids = tokenizer("good bad film plot great", return_tensors="pt")["input_ids"]
    ids[0, [1, 4]] = tokenizer.mask_token_id
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, 1]
    allowed = {piece: float(logits[len(SPECIAL) + PIECES.index(piece)]) for piece in PIECES if piece.isalpha()}
    del allowed["good"]
    assert candidates[0] == tuple(sorted(allowed, key=lambda piece: -allowed[piece])[:3])


def test_the_output_layer_sees_masked_places_alone(masked):
    model, tokenizer = masked
    rows = []
    hook = model.get_output_embeddings().register_forward_hook(lambda _, inputs, out: rows.append(out.shape))
    MaskedModel(model, tokenizer).candidates([split_words("good bad film")], [[True] * 3])
    hook.remove()
    assert rows == [(3, len(SPECIAL + PIECES))]
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_half_precision_gives_as_many(masked):
    (candidates,) = MaskedModel(*masked, half=True, count=3).candidates([split_words("good film")], [[True, True]])
    assert [len(others) for others in candidates] == [3, 3]


@pytest.mark.parametrize(("ratio", "half"), [(0.5, True), (2.0, False)])
def test_the_faster_precision_is_used_where_there_is_enough_to_do(masked, monkeypatch, ratio, half):
    texts = [split_words(text) for text in TEXTS]
    wanted = [[True] * len(words) for words, _ in texts]
    names, messages = [], []

    def memo(name, build):
        names.append(name)
        assert build()["seconds"].shape[1] == 2
        return {"seconds": np.array([[1.0, ratio]] * 3)}

    def chosen(times):
        return MaskedModel(*masked).in_faster_precision(texts, wanted, times, memo, messages.append).half

    assert not chosen(1e3)
    assert names == messages == []  # a model as small as this one answers everything before a trial ends
    monkeypatch.setattr("limbeck.train.precision.LEAST_OPERATIONS", 0)
    assert not chosen(1.0)
    assert chosen(1e3) is half
    assert len(names) == len(messages) == 1


def test_a_half_precision_with_other_answers_is_not_used(masked, monkeypatch):
    model, tokenizer = masked
    monkeypatch.setattr("limbeck.train.precision.LEAST_OPERATIONS", 0)
    words = [split_words("good bad film")]
    layer = model.get_output_embeddings()
    hook = layer.register_forward_hook(lambda _, inputs, out: -9 * out if torch.is_autocast_enabled("cpu") else out)
    timed = MaskedModel(model, tokenizer).in_faster_precision(
        words, [[True] * 3], 1e6, lambda name, build: {"seconds": np.array([[1.0, 0.5]])}, lambda message: None
    )
    hook.remove()
    assert not timed.half


def test_byte_level_models_are_read_too():
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    tokenizer = byte_level()
    model = RobertaForMaskedLM(RobertaConfig(vocab_size=len(tokenizer), pad_token_id=1, **size)).eval()
    (candidates,) = MaskedModel(model, tokenizer, count=9).candidates([split_words("film bad go")], [[True] * 3])
    assert candidates[1] is None
    assert set(candidates[0]) == {"f", "fi", "fil", "g", "go"}
    assert "go" not in candidates[2]


def test_a_masked_model_is_loaded_from_safetensors_with_its_head(masked, tmp_path):
    model, tokenizer = masked
    model.save_pretrained(tmp_path / "mlm")
    tokenizer.save_pretrained(tmp_path / "mlm")
    again, its_tokenizer = load_masked_model(str(tmp_path / "mlm"))
    texts = [split_words(TEXTS[0])]
    wanted = [[True] * len(texts[0][0])]
    assert MaskedModel(again, its_tokenizer).candidates(texts, wanted) == MaskedModel(*masked).candidates(texts, wanted)
    BertModel(model.config).save_pretrained(tmp_path / "headless")
    tokenizer.save_pretrained(tmp_path / "headless")
    with pytest.raises(InputError, match="no trained head of a masked language model"):
        load_masked_model(str(tmp_path / "headless"))
    torch.save(model.state_dict(), tmp_path / "mlm" / "pytorch_model.bin")
    (tmp_path / "mlm" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors"):
        load_masked_model(str(tmp_path / "mlm"))


def test_the_lexicon_asks_the_model_first_and_vectors_for_the_rest(masked):
    texts = [split_words("good plays the")]
    lexicon = Lexicon({"plays": ("film",), "good": ("plot",)}, MaskedModel(*masked, count=2))
    (candidates,) = lexicon.candidates(texts, [[True, True, False]])
    assert len(candidates[0]) == 2
    assert candidates[1:] == [("film",), ()]
    (alone,) = Lexicon({"good": ("plot",)}).candidates(texts, [[True, True, False]])
    assert alone == [("plot",), (), ()]
