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
