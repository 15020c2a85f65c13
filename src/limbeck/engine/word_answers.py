"""Answers of models that label words: a label for every word, and the entities that the labels mark."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from limbeck.core.entities import Entity, Piece, group_pieces, join_pieces, join_windows, scheme_of
from limbeck.core.logits import activate, require_finite_logits
from limbeck.core.metrics import default_label
from limbeck.core.outputs import OutputSpec
from limbeck.data.batching import Encoded
from limbeck.data.encoding import Encodings, TaskTokenizer, TextEncoding, first_pieces

Model: TypeAlias = Callable[[Encoded], Sequence[np.ndarray]]
"""Gives the logits of each row [tokens, labels]."""

Aggregation: TypeAlias = Literal["first", "simple"]
"""How tags of tokens become those of entities, as ``aggregation_strategy`` in transformers: 'first' gives all tokens of
a word the tag of its first, 'simple' gives each token its own, which may divide a word."""

SameWord: TypeAlias = Callable[[str, int, int | None], bool]
"""Tells of a token, its word and the word of the token before whether it goes on with the word, by white space or as
the tokenizer divides words."""

WORD = re.compile(r"\S+")
"""Strings are divided into words at white space, as ``str.split`` does."""


def answer_words(
    model: Model,
    tokenizer: TaskTokenizer,
    encoding: TextEncoding,
    spec: OutputSpec,
    texts: Sequence[str],
    aggregation: Aggregation = "first",
    source: str = "the model",
) -> list[dict[str, Any]]:
    """Label the words of texts.

    Where the labels mark entities, a text of more tokens than the model takes is read in overlapping windows; other
    labels end where the text is cut, as when they were measured.

    Args:
        model: Gives logits.
        tokenizer: The model's.
        encoding: How its words become ids.
        spec: What its outputs mean.
        texts: Strings, whose words white space separates.
        aggregation: How tags of tokens become those of entities.
        source: Name of the model in messages.

    Returns:
        See :func:`limbeck.engine.predict.answer`.
    """
    rows = [[match[0] for match in WORD.finditer(text)] for text in texts]
    scheme, same_word = scheme_of(spec.labels), _same_word(tokenizer, aggregation)
    if scheme is None:
        encodings = encoding.encode(tokenizer, rows)
        windows = [[index] for index in range(len(texts))]
    else:
        encodings = encoding.encode_windows(tokenizer, rows)
        windows = [[] for _ in texts]
        for window, text in enumerate(encodings["overflow_to_sample_mapping"]):
            windows[text].append(window)
    logits = _logits(model, encodings, windows, tokenizer.pad_token_id or 0, spec.kind)
    require_finite_logits([np.concatenate([logits[window] for window in own]) for own in windows], texts, source)
    results = []
    for text, words, own in zip(texts, rows, windows, strict=True):
        labels, unseen = _labels([(encodings.word_ids(window), logits[window]) for window in own], len(words), spec)
        row: dict[str, Any] = {"text": text, "answer": " ".join(labels), "labels": labels, "unseen": unseen}
        if scheme is not None:
            starts = [match.start() for match in WORD.finditer(text)]
            pieces = [_pieces(encodings, window, logits[window], starts, same_word) for window in own]
            entities = [entity for part in pieces for entity in group_pieces(scheme, part)]
            entities = join_windows(entities) if len(own) > 1 else entities
            row |= {"answer": describe(entities, text), "entities": [_plain(entity, text) for entity in entities]}
        results.append(row)
    return results


def _logits(
    model: Model, encodings: Encodings, windows: Sequence[Sequence[int]], pad: int, kind: str
) -> dict[int, np.ndarray]:
    """Return the logits of each window; the first windows of all texts are answered together, as when measured."""
    logits: dict[int, np.ndarray] = {}
    types = encodings.get("token_type_ids")
    for part in ([own[0] for own in windows], [window for own in windows for window in own[1:]]):
        if part:
            ids = [encodings["input_ids"][window] for window in part]
            segments = [types[window] for window in part] if types is not None else None
            logits |= zip(part, model(Encoded(ids, segments, (), pad, kind)), strict=True)
    return logits


def _labels(
    windows: Sequence[tuple[Sequence[int | None], np.ndarray]], count: int, spec: OutputSpec
) -> tuple[list[str], list[int]]:
    """Label each word by its first token in the first window that has it.

    Args:
        windows: The word of every token, and their logits.
        count: Number of words.
        spec: Names the labels.

    Returns:
        A label for each word, and the words that no window has.
    """
    tags: dict[int, int] = {}
    for word_ids, logits in windows:
        for word, position in enumerate(first_pieces(word_ids, count)):
            if position is not None:
                tags.setdefault(word, int(logits[position].argmax()))
    other = default_label(spec.labels)
    unseen = [word for word in range(count) if word not in tags]
    return [spec.labels[tags.get(word, other)] for word in range(count)], unseen


def _same_word(tokenizer: TaskTokenizer, aggregation: Aggregation) -> SameWord:
    """Return how tokens that go on with a word are known.

    A WordPiece tokenizer divides words at punctuation, too, and marks what goes on with such a part. Others do not.

    Args:
        tokenizer: The model's.
        aggregation: With 'simple' none goes on.
    """
    if aggregation == "simple":
        return lambda token, word, before: False
    prefix = getattr(tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None)
    if prefix:
        return lambda token, word, before: token.startswith(prefix)
    return lambda token, word, before: word == before


def _pieces(
    encodings: Encodings, window: int, logits: np.ndarray, starts: Sequence[int], same_word: SameWord
) -> list[Piece]:
    """Return the pieces of a window with their likeliest tags; those of one word as one.

    Args:
        encodings: All windows.
        window: Index of the window.
        logits: Its logits [tokens, labels].
        starts: Offset of each word in the text.
        same_word: Tells whether a token goes on with the word of the token before.
    """
    shares = np.asarray(activate(logits, "softmax"))
    pieces, continues, before = [], [], None
    special = encodings["special_tokens_mask"][window]
    tokens = zip(encodings.tokens(window), encodings.word_ids(window), encodings["offset_mapping"][window], strict=True)
    for position, (token, word, (first, last)) in enumerate(tokens):
        if word is not None and not special[position]:
            row = shares[position]
            pieces.append(Piece(int(row.argmax()), float(row.max()), starts[word] + first, starts[word] + last))
            continues.append(same_word(token, word, before))
            before = word
    return join_pieces(pieces, continues)


def _plain(entity: Entity, text: str) -> dict[str, Any]:
    return {"type": entity.type, "text": text[entity.start : entity.end], **entity._asdict()}


def describe(entities: Sequence[Entity], text: str) -> str:
    """Format entities for a terminal, with their offsets.

    >>> describe([Entity("place", 14, 18, 0.9)], "Anna lives in Oslo")
    'Oslo (place, 14-18)'
    """
    parts = (f"{text[each.start : each.end]} ({each.type}, {each.start}-{each.end})" for each in entities)
    return ", ".join(parts) or "no entities"
