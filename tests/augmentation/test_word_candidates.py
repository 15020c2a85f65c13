from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from limbeck.augmentation.transforms import split_words
from limbeck.augmentation.word_candidates import (
    Lexicon,
    MaskedModel,
    WordVectors,
    embedding_vectors,
    folds_case,
    load_masked_model,
    read_vectors,
    single_tokens,
    whole_words,
)
from limbeck.errors import InputError

PIECES = ["film", "movie", "good", "bad", "play", "##ing", "##s", "the", "a", ".", ",", "3", "great", "plot", "dull"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = ["The film plays a good plot.", "a bad movie, the plot", "good", "dull dull playing", ""]


def wordpiece():
    vocabulary = {piece: number for number, piece in enumerate([*SPECIAL, *PIECES])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in names.items()}
    )


def byte_level():
    """Ġ marks the pieces that begin a word."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters, "Ġf", "Ġfi", "Ġfil", "Ġfilm", "Ġg", "Ġgo"]
    merges = [("Ġ", "f"), ("Ġf", "i"), ("Ġfi", "l"), ("Ġfil", "m"), ("Ġ", "g"), ("Ġg", "o")]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(entries)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        cls_token="<s>",
        sep_token="</s>",
    )


@pytest.fixture(scope="module")
def masked():
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForMaskedLM(BertConfig(vocab_size=len(SPECIAL + PIECES), max_position_embeddings=32, **size)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model, wordpiece()


def test_whole_words_of_wordpiece_and_bytes():
    assert set(whole_words(wordpiece()).values()) == {piece for piece in PIECES if piece.isalpha()}
    tokenizer = byte_level()
    assert set(whole_words(tokenizer).values()) == {"f", "fi", "fil", "film", "g", "go"}
    assert folds_case(wordpiece())


def test_neighbours_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    words = (*(f"w{number}" for number in range(40)), "W1")
    vectors = rng.normal(size=(41, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    neighbours = WordVectors(words, vectors).nearest(["w1", "w5", "unknown"], 6, block=1)
    assert set(neighbours) == {"w1", "w5"}
    for word in neighbours:
        own = vectors[words.index(word)]
        ranked = sorted((w for w in words if w.lower() != word), key=lambda w: -float(vectors[words.index(w)] @ own))
        assert neighbours[word] == tuple(ranked[:6])


def test_embeddings_are_the_mean_of_the_pieces(masked):
    model, tokenizer = masked
    word_vectors = embedding_vectors(model, tokenizer, ["Playing", "plays", "zzz"])
    table = model.get_input_embeddings().weight.detach().numpy()
    ids = [len(SPECIAL) + PIECES.index(piece) for piece in ("play", "##ing")]
    expected = table[ids].mean(0)
    np.testing.assert_allclose(
        word_vectors.vectors[word_vectors.index["playing"]], expected / np.linalg.norm(expected), rtol=1e-5, atol=1e-6
    )
    assert {"playing", "plays", "film"} <= set(word_vectors.words)
    assert "zzz" not in word_vectors.index  # only the unknown piece
    near = word_vectors.nearest(["Playing"], 3)["Playing"]
    assert len(near) == 3
    assert "playing" not in near


def test_vector_files_with_and_without_heading(tmp_path):
    lines = ["film 1 0", "movie 0.9 0.1", "bad 0 1", "rare -1 0.1", "unread 1 1"]
    for heading in ([], ["5 2"]):
        path = tmp_path / "vectors.txt"
        path.write_text("\n".join(heading + lines), encoding="utf-8")
        word_vectors = read_vectors(path, ["Rare"], most=3 + len(heading))
        assert set(word_vectors.words) == {"film", "movie", "bad", "rare"}
        assert word_vectors.nearest(["Film"], 1) == {"Film": ("movie",)}
    np.testing.assert_allclose(np.linalg.norm(word_vectors.vectors, axis=1), 1, rtol=1e-6)


def test_words_with_spaces_are_read(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("film 1 0\n. . . 0.3 0.1\nat name@domain.com -1 0.5\n")
    assert read_vectors(path, []).words == ("film", ". . .", "at name@domain.com")


def test_vector_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no vector file"):
        read_vectors(tmp_path / "none.txt", [])
    path = tmp_path / "bad.txt"
    for line in ("bad one two", "bad 1", "bad 1 2 3", "bad"):
        path.write_text(f"film 1 0\n{line}\n")
        with pytest.raises(InputError, match="line 2: should be a word and 2 numbers"):
            read_vectors(path, [])
    path.write_text("")
    with pytest.raises(InputError, match="no vectors"):
        read_vectors(path, [])


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
