"""Sentences in columns: recognized by content, read with comments, ranges and headers."""

from __future__ import annotations

import pytest

from limbeck.data.conll import UNIVERSAL, MalformedLine, has_header, is_conll, read_sentences

WORDS = "Anna\tB-PER\nsleeps\tO\n\nOslo\tB-LOC\nwakes\tO\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (WORDS, True),
        (WORDS.replace("\t", " "), True),
        ("word\ttag\n" + WORDS, True),
        ("# sent_id = 1\n" + WORDS, True),
        ("Anna\tB-PER\nsleeps\tO\n", True),
        ("Anna\tNNP\nsleeps\tVBZ\n\nOslo\tNNP\n", True),
        ("good film\tup\nbad film\tdown\n", False),
        ("good film\tup\n\nbad film\tdown\nmore\tup\n", False),
        ("good\tup\n\nbad\tdown\n\nfine\tup\n", False),
        ("good\tup\nbad\tdown\n", False),
        ("one field\nis no table\n", False),
        ("", False),
    ],
)
def test_what_is_taken_as_sentences(text, expected):
    assert is_conll(text) is expected


def test_comments_are_no_words_and_a_number_sign_is_one():
    sentences = read_sentences("# text = # one\n#\tO\none\tB-X\n\n# newdoc\nx\tO\n")
    assert [row[0] for row in sentences.rows] == [("#", "one"), ("x",)]
    assert sentences.notes == ["2 comment lines skipped"]
    assert sentences.numbers == [2, 6]
    sentences = read_sentences("# text = a\n# O\na B-X\n")
    assert sentences.rows[0][0] == ("#", "a")


def test_universal_dependencies():
    line = "{}\t{}\t_\t{}\t_\t_\t0\troot\t_\t_\n"
    lines = (("1-2", "du", "_"), ("1", "de", "ADP"), ("2", "le", "DET"), ("2.1", "x", "X"), ("3", "bois", "NOUN"))
    sentences = read_sentences("# sent_id = a\n" + "".join(line.format(*each) for each in lines))
    assert sentences.columns == UNIVERSAL
    assert sentences.rows[0][1] == ("de", "le", "bois")
    assert sentences.rows[0][3] == ("ADP", "DET", "NOUN")
    assert sentences.notes == ["1 comment line skipped", "1 multiword token line skipped", "1 empty node line skipped"]


def test_a_header_names_the_columns():
    assert has_header("word\ttag\n" + WORDS)
    assert not has_header(WORDS)
    assert read_sentences("word\ttag\n" + WORDS, header=True).columns == ("word", "tag")


def test_a_line_that_does_not_fit():
    with pytest.raises(MalformedLine, match="1 field, expected 2") as caught:
        read_sentences("Anna\tB-PER\nsleeps\n")
    assert caught.value.number == 2


@pytest.mark.parametrize("gap", ["\n", " \n", "\t\n", " \t \n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
@pytest.mark.parametrize("sign", ["\t", " ", "  "])
def test_sentences_end_at_lines_that_look_blank(gap, end, sign):
    text = f"Anna{sign}B-PER\nsleeps{sign}O\n{gap}{gap}Oslo{sign}B-LOC{end}"
    assert is_conll(text)
    sentences = read_sentences(text)
    assert [row[0] for row in sentences.rows] == [("Anna", "sleeps"), ("Oslo",)]
    assert [row[-1] for row in sentences.rows] == [("B-PER", "O"), ("B-LOC",)]


@pytest.mark.parametrize("word", ["\u200b", "\u00a0", "\u2028", "\u0085", "a\u00a0b", "\ufe0f", "\u3000", "#", '"'])
@pytest.mark.parametrize("sign", ["\t", " "])
def test_odd_characters_are_words(word, sign):
    text = f"Anna{sign}B-PER\n{word}{sign}I-PER\nsleeps{sign}O\n\nOslo{sign}B-LOC\n"
    assert is_conll(text)
    assert read_sentences(text).rows[0] == [("Anna", word, "sleeps"), ("B-PER", "I-PER", "O")]


def test_free_comments_between_sentences_where_spaces_separate_fields():
    text = "# made by hand in May\nAnna B-PER\n# O\n\n# the rest is newer\n# O\nOslo B-LOC\n"
    assert is_conll(text)
    sentences = read_sentences(text)
    assert [row[0] for row in sentences.rows] == [("Anna", "#"), ("#", "Oslo")]
    assert sentences.notes == ["2 comment lines skipped"]


def test_the_tag_is_the_last_of_several_columns_after_docstart():
    sentences = read_sentences("-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n")
    assert sentences.rows == [[("EU", "rejects"), ("NNP", "VBZ"), ("B-NP", "B-VP"), ("B-ORG", "O")]]


def test_a_word_between_tabs_may_hold_a_space():
    text = "Anna\tB-PER\nlives in\tO\nNew York\tB-LOC\n"
    first, second = read_sentences(text + "\n10\u00a0000\tO\n. .\tO\n").rows
    assert first == [("Anna", "lives in", "New York"), ("B-PER", "O", "B-LOC")]
    assert second == [("10\u00a0000", ". ."), ("O", "O")]
    assert is_conll(text + "\n" + text)
    assert not is_conll(text)  # it may be a table of texts and labels
