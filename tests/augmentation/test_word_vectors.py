from __future__ import annotations

import numpy as np
import pytest
from small_masked_models import PIECES, SPECIAL, byte_level, masked_model, wordpiece

from limbeck.augmentation.word_vectors import WordVectors, embedding_vectors, folds_case, read_vectors, whole_words
from limbeck.errors import InputError


def test_whole_words_of_wordpiece_and_bytes():
    assert set(whole_words(wordpiece()).values()) == {piece for piece in PIECES if piece.isalpha()}
    tokenizer = byte_level()
    assert set(whole_words(tokenizer).values()) == {"f", "fi", "fil", "film", "g", "go"}
    assert folds_case(wordpiece())


def test_neighbors_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    words = (*(f"w{number}" for number in range(40)), "W1")
    vectors = rng.normal(size=(41, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    neighbors = WordVectors(words, vectors).nearest(["w1", "w5", "unknown"], 6, block=1)
    assert set(neighbors) == {"w1", "w5"}
    for word in neighbors:
        own = vectors[words.index(word)]
        ranked = sorted((w for w in words if w.lower() != word), key=lambda w: -float(vectors[words.index(w)] @ own))
        assert neighbors[word] == tuple(ranked[:6])


def test_embeddings_are_the_mean_of_the_pieces():
    model, tokenizer = masked_model()
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
