"""Answers of models that label words: a label for every word, and the entities that the labels mark."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from limbeck.core.entities import Entity, TagScheme, group_pieces, join_windows, scheme_of
from limbeck.core.logits import activate
from limbeck.core.metrics import default_label
from limbeck.core.outputs import OutputSpec
from limbeck.data.batching import Encoded
from limbeck.data.encoding import Encodings, TaskTokenizer, TextEncoding, first_pieces

Model: TypeAlias = Callable[[Encoded], Sequence[np.ndarray]]
"""Gives the logits of each row [tokens, labels]."""

WORD = re.compile(r"\S+")
"""Strings are divided into words at white space, as ``str.split`` does."""


def answer_words(
    model: Model, tokenizer: TaskTokenizer, encoding: TextEncoding, spec: OutputSpec, texts: Sequence[str]
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

    Returns:
        See :func:`limbeck.engine.predict.answer`.
    """
    rows = [[match[0] for match in WORD.finditer(text)] for text in texts]
    scheme = scheme_of(spec.labels)
    if scheme is None:
        encodings = encoding.encode(tokenizer, rows)
        windows = [[index] for index in range(len(texts))]
    else:
        encodings = encoding.encode_windows(tokenizer, rows)
        windows = [[] for _ in texts]
        for window, text in enumerate(encodings["overflow_to_sample_mapping"]):
            windows[text].append(window)
    logits = _logits(model, encodings, windows, tokenizer.pad_token_id or 0, spec.kind)
    results = []
    for text, words, own in zip(texts, rows, windows, strict=True):
        labels, unseen = _labels([(encodings.word_ids(window), logits[window]) for window in own], len(words), spec)
        row: dict[str, Any] = {"text": text, "answer": " ".join(labels), "labels": labels, "unseen": unseen}
        if scheme is not None:
            starts = [match.start() for match in WORD.finditer(text)]
            entities = _entities(scheme, encodings, [(window, logits[window]) for window in own], starts)
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


def _entities(
    scheme: TagScheme, encodings: Encodings, windows: Sequence[tuple[int, np.ndarray]], starts: Sequence[int]
) -> list[Entity]:
    """Find the entities of a text, with offsets in it.

    Args:
        scheme: The scheme of the tags.
        encodings: All windows.
        windows: Index and logits of those of this text.
        starts: Offset of each word in the text.
    """
    entities: list[Entity] = []
    for window, logits in windows:
        shares = np.asarray(activate(logits, "softmax"))
        tokens = [
            (position, word, encodings["offset_mapping"][window][position])
            for position, word in enumerate(encodings.word_ids(window))
            if word is not None and not encodings["special_tokens_mask"][window][position]
        ]
        positions = [position for position, _, _ in tokens]
        offsets = [(starts[word] + first, starts[word] + last) for _, word, (first, last) in tokens]
        tags = shares[positions].argmax(axis=-1).tolist()
        entities += group_pieces(scheme, tags, shares[positions].max(axis=-1).tolist(), offsets)
    return join_windows(entities) if len(windows) > 1 else entities


def _plain(entity: Entity, text: str) -> dict[str, Any]:
    return {"type": entity.type, "text": text[entity.start : entity.end], **entity._asdict()}


def describe(entities: Sequence[Entity], text: str) -> str:
    """Format entities for a terminal, with their offsets.

    >>> describe([Entity("place", 14, 18, 0.9)], "Anna lives in Oslo")
    'Oslo (place, 14-18)'
    """
    parts = (f"{text[each.start : each.end]} ({each.type}, {each.start}-{each.end})" for each in entities)
    return ", ".join(parts) or "no entities"
