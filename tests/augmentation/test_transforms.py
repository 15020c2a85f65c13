from __future__ import annotations

import random
from collections import Counter

import pytest

from limbeck.augmentation.transforms import (
    STOP_WORDS,
    Deduplicator,
    NGram,
    Row,
    Substitute,
    join_words,
    replaceable,
    rewrite_row,
    rewrite_rows,
    split_words,
    text_key,
    words_by_tag,
)
from limbeck.storage.parallel import in_order

WORDS = ["w0", "w1", "w2", "w3", "w4", "w5"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "  two  words ",
        "the \"well-made\" film's plot, it 's O'Brien’s — don't! 100%",
        "हिन्दी में naïve",
        "'",
        "a\nb",
    ],
)
def test_splitting_loses_nothing(text):
    words, gaps = split_words(text)
    assert len(gaps) == len(words) + 1
    assert "".join(gap + word for gap, word in zip(gaps, [*words, ""], strict=True)) == text
    assert join_words(words, gaps) == text.strip()


def test_words_keep_their_apostrophes_and_marks():
    assert split_words("O'Brien’s हिन्दी well-made!")[0] == ["O'Brien’s", "हिन्दी", "well", "-", "made", "!"]


def reference_ngram(transform, words, tags, rng, aligned):
    """The algorithm as it is written: one draw for each word, then the n-gram."""
    new = []
    for word, tag in zip(words, tags or [None] * len(words), strict=True):
        u = rng.random()
        if u < transform.mask_probability:
            new.append("[MASK]")
        elif u < transform.mask_probability + transform.part_of_speech_probability and tags:
            new.append(transform.bags[tag].sample(rng))
        else:
            new.append(word)
    if len(words) >= 2 and rng.random() < transform.ngram_probability:
        n = min(rng.randint(1, transform.max_ng), len(words) - 1)
        i = rng.randrange(0, len(words) - n + 1)
        new = [*new[:i], *["[MASK]"] * (n if aligned else 1), *new[i + n :]]
    return new


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("aligned", [False, True])
def test_ngram_equals_the_reference(tagged, aligned):
    tags = ["even", "odd"] * 3 if tagged else None
    transform = NGram(bags=words_by_tag([WORDS], [["even", "odd"] * 3]), ngram_probability=0.5)
    for seed in range(500):
        changed = transform.sample(WORDS, tags, random.Random(seed), aligned)
        expected = reference_ngram(transform, WORDS, tags, random.Random(seed), aligned)
        assert [word for word in changed if word is not None] == expected
        assert len(changed) == len(WORDS)
        assert not aligned or None not in changed


def test_shares_are_those_that_were_asked_for():
    transform = NGram(ngram_probability=0.0, bags=words_by_tag([["x"]], [["t"]]))
    rng, seen = random.Random(0), Counter()
    for _ in range(20_000):
        seen.update(transform.sample(WORDS, ["t"] * 6, rng, False))
    total = sum(seen.values())
    assert seen["[MASK]"] / total == pytest.approx(0.1, abs=0.005)
    assert seen["x"] / total == pytest.approx(0.1, abs=0.005)
    assert all(seen[word] / total == pytest.approx(0.8 / 6, abs=0.005) for word in WORDS)


def test_without_tags_words_stay_and_masks_are_as_frequent():
    transform, rng = NGram(ngram_probability=0.0), random.Random(0)
    seen = Counter(word for _ in range(20_000) for word in transform.sample(WORDS, None, rng, False))
    assert seen["[MASK]"] / sum(seen.values()) == pytest.approx(0.1, abs=0.005)
    assert set(seen) == {*WORDS, "[MASK]"}


def test_ngrams_are_as_frequent_and_as_long_as_asked_for():
    transform, rng = NGram(0.0, 0.0, ngram_probability=0.25, max_ng=3), random.Random(0)
    removed = Counter(transform.sample(WORDS, None, rng, False).count(None) for _ in range(20_000))
    assert removed[0] / 20_000 == pytest.approx(0.75 + 0.25 / 3, abs=0.01)  # an n-gram of one word leaves no hole
    assert removed[1] / 20_000 == pytest.approx(0.25 / 3, abs=0.01)
    assert removed[2] / 20_000 == pytest.approx(0.25 / 3, abs=0.01)
    assert set(removed) == {0, 1, 2}
    single = NGram(0.0, 0.0, 1.0).sample(["alone"], None, rng, False)
    assert single == ["alone"]
    two = [NGram(0.0, 0.0, 1.0, 5).sample(["a", "b"], None, rng, True) for _ in range(50)]
    assert all(words.count("[MASK]") == 1 for words in two)  # never all words


def test_keep_leaves_the_ngram_alone():
    transform, rng = NGram(0.0, 0.0, 1.0, 2, "keep"), random.Random(0)
    for _ in range(100):
        remaining = [word for word in transform.sample(WORDS, None, rng, False) if word is not None]
        start = WORDS.index(remaining[0])
        assert 1 <= len(remaining) <= 2
        assert remaining == WORDS[start : start + len(remaining)]


def test_words_of_a_part_of_speech_come_as_often_as_in_the_corpus():
    bags = words_by_tag([["dog", "runs"], ["dog", "cat"]], [["N", "V"], ["N", "N"]])
    rng = random.Random(0)
    seen = Counter(bags["N"].sample(rng) for _ in range(9000))
    assert set(seen) == {"dog", "cat"}
    assert seen["dog"] / 9000 == pytest.approx(2 / 3, abs=0.02)
    assert bags["V"].words == ("runs",)


def test_substitutes_are_drawn_with_the_probability_and_evenly():
    transform, rng = Substitute(0.4), random.Random(0)
    notes = [("a", "b"), (), ["c"]]
    changed = [transform.sample(["x", "the", "y"], notes, rng, False) for _ in range(10_000)]
    first = Counter(words[0] for words in changed)
    assert first["x"] / 10_000 == pytest.approx(0.6, abs=0.02)
    assert first["a"] / 10_000 == pytest.approx(0.2, abs=0.02)
    assert {words[1] for words in changed} == {"the"}
    assert Counter(words[2] for words in changed)["c"] / 10_000 == pytest.approx(0.4, abs=0.02)


def test_of_a_pair_one_text_changes_at_a_time():
    row = Row(3, "a good film", "it was fun")
    samples = rewrite_row(row, NGram(0.5), 10, seed=0)
    assert len(samples) == 20
    assert all(second == "it was fun" for _, second in samples[:10])
    assert all(first == "a good film" for first, _ in samples[10:])
    assert any(first != "a good film" for first, _ in samples[:10])


def test_word_labels_stay_with_their_words():
    words = tuple(WORDS)
    for (sample,) in rewrite_row(Row(0, words), NGram(0.2, 0.0, 1.0), 50, seed=1):
        assert len(sample) == len(words)
        assert all(new in (old, "[MASK]") for new, old in zip(sample, words, strict=True))


def test_samples_depend_on_seed_and_row_alone():
    rows = [Row(number, " ".join(WORDS)) for number in range(8)]
    transform = NGram(0.3)
    whole = rewrite_rows((rows, transform, 5, 7))
    halves = [(rows[4:], transform, 5, 7), (rows[:4], transform, 5, 7)]
    assert whole == [samples for part in reversed(list(map(rewrite_rows, halves))) for samples in part]
    assert whole != rewrite_rows((rows, transform, 5, 8))
    assert whole[0] != whole[1]


def test_other_processes_draw_the_same():
    jobs = [([Row(number, " ".join(WORDS))], NGram(0.3), 4, 0) for number in range(5)]
    assert list(in_order(rewrite_rows, jobs, 2)) == list(in_order(rewrite_rows, jobs, 1))


def test_empty_texts_give_nothing():
    assert rewrite_row(Row(0, ""), NGram(), 5, 0) == []
    assert len(rewrite_row(Row(0, "", "a b"), NGram(), 5, 0)) == 5


def test_stop_words_negations_and_numbers_are_not_replaceable():
    assert not any(map(replaceable, ("not", "Don't", "don’t", "and", "7", ",", "n't")))
    assert all(map(replaceable, ("film", "Wonderful", "2nd")))
    assert all(word == word.casefold() for word in STOP_WORDS)


def test_the_deduplicator_lets_each_new_text_pass_once():
    deduplicator = Deduplicator([text_key("old")], [text_key("Secret  text"), text_key("a", "b")])
    samples = [["new"], ["OLD"], ["secret text"], ["New "], ["a", "b"], ["b", "a"], ["a b"]]
    assert list(deduplicator.filter(samples)) == [["new"], ["b", "a"], ["a b"]]
    assert deduplicator.counts == {"drawn": 7, "duplicates": 2, "leaks": 2}


def test_keys_of_words_are_those_of_their_text():
    assert text_key(("New", "York")) == text_key("new  york")
    assert text_key("It 's a `` must - see '' .") == text_key("Its a 'must-see'")  # as data sets space the same text
    assert text_key("a b") != text_key("a", "b")
