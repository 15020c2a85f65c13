"""Entities in tagged words: whole spans with a type, found and counted as seqeval does by default.

A tag is O, or a prefix with a type: B-PER begins an entity, I- (M-) continues it, E- (L-) ends it, S- (U-) is one of a
single word. Sequences that no scheme allows are read as the CoNLL evaluation script reads them: an entity also begins
where the type changes or the word before is outside. So IOB1, IOB2, IOBES and BILOU need no setting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

OUTSIDE = "O"  #: the tag of words outside any entity
PREFIXES = "BIES"
_SYNONYMS = {"M": "I", "L": "E", "U": "S"}
_TAG = re.compile(r"([BIESMLU])(?:-(.*))?", re.DOTALL)
_NO_TYPE = "_"
_BEGIN, _INSIDE, _END, _SINGLE = range(4)


@dataclass(frozen=True)
class TagScheme:
    """The entity types of a list of tags.

    Attributes:
        types: Names of the types, sorted.
        codes: For each tag ``4 * type + prefix`` (by index in ``types`` and ``PREFIXES``); -1 for O.
    """

    types: tuple[str, ...]
    codes: tuple[int, ...]

    @property
    def has_only_begin_and_inside(self) -> bool:
        """Whether no tag says where an entity ends (E-, S-, L-, U-): transformers' pipeline knows B- and I- alone."""
        return all(code < 0 or code % 4 in (_BEGIN, _INSIDE) for code in self.codes)


@lru_cache
def scheme_of(names: tuple[str, ...]) -> TagScheme | None:
    """Return the scheme of tags; None where some name is no tag of an entity, as in parts of speech.

    >>> scheme_of(("O", "B-PER", "I-PER")).codes, scheme_of(("NOUN", "VERB"))
    ((-1, 0, 1), None)
    """
    parsed = [_TAG.fullmatch(name) for name in names if name != OUTSIDE]
    if not parsed or OUTSIDE not in names or None in parsed:
        return None
    parts = {match[0]: (match[1], match[2] or _NO_TYPE) for match in parsed if match is not None}
    types = tuple(sorted({kind for _, kind in parts.values()}))
    codes = {
        name: 4 * types.index(kind) + PREFIXES.index(_SYNONYMS.get(prefix, prefix))
        for name, (prefix, kind) in parts.items()
    }
    return TagScheme(types, tuple(codes.get(name, -1) for name in names))


def join_rows(scheme: TagScheme, rows: Sequence[npt.ArrayLike]) -> np.ndarray:
    """Join the tags of several sentences into one array of codes, with an outside word after each sentence.

    Args:
        scheme: The scheme of the tags.
        rows: Indices of tags, by sentence.
    """
    codes = np.asarray((*scheme.codes, -1))
    parts = [np.append(np.asarray(row, dtype=np.int64), -1) for row in rows]
    return codes[np.concatenate(parts)] if parts else np.empty(0, dtype=np.int64)


class Spans(NamedTuple):
    """Entities in joined codes: type, first and last word of each [entities]."""

    types: np.ndarray
    firsts: np.ndarray
    lasts: np.ndarray


def find_spans(codes: npt.ArrayLike) -> Spans:
    """Find the entities in codes, as :func:`join_rows` gives them.

    >>> find_spans([0, 1, -1, 5, 4]).firsts.tolist()  # B-A I-A O I-B B-B
    [0, 3, 4]
    """
    now = np.append(np.asarray(codes, dtype=np.int64), -1)
    before = np.concatenate([[-1], now[:-1]])
    inside, was_inside = now >= 0, before >= 0
    prefix, last_prefix = now % 4, before % 4
    breaks = (now // 4 != before // 4) | (prefix == _BEGIN) | (prefix == _SINGLE)
    breaks |= (last_prefix == _END) | (last_prefix == _SINGLE)
    begins = np.flatnonzero(inside & (breaks | ~was_inside))
    ends = np.flatnonzero(was_inside & (breaks | ~inside))
    return Spans(now[begins] // 4, begins, ends - 1)


def _keys(spans: Spans, size: int) -> np.ndarray:
    """Give each span a number, equal ones the same [entities]."""
    return np.asarray((spans.firsts * (size + 1) + spans.lasts) * 2**16 + spans.types)


def count_spans(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> np.ndarray:
    """Count entities in joined codes: those found with the right bounds and type, all predicted, all present [3]."""
    answers, labels = find_spans(predicted), find_spans(truth)
    size = np.size(truth)
    hits = np.isin(_keys(answers, size), _keys(labels, size))
    return np.array([hits.sum(), len(hits), len(labels.types)])


def count_entities(scheme: TagScheme, predicted: Sequence[npt.ArrayLike], truth: Sequence[npt.ArrayLike]) -> np.ndarray:
    """Count the entities of each sentence by type.

    Args:
        scheme: The scheme of the tags.
        predicted: Indices of predicted tags, by sentence.
        truth: Indices of the right ones.

    Returns:
        Entities found with the right bounds and type, predicted and present [sentences, types, 3].
    """
    ends = np.cumsum([np.size(row) + 1 for row in truth])
    answers, labels = find_spans(join_rows(scheme, predicted)), find_spans(join_rows(scheme, truth))
    size = int(ends[-1]) if len(ends) else 0
    hits = np.isin(_keys(answers, size), _keys(labels, size))
    counts = np.zeros((len(truth), len(scheme.types), 3), dtype=np.int64)
    for column, spans in enumerate((Spans(*(part[hits] for part in answers)), answers, labels)):
        sentences = np.searchsorted(ends, spans.firsts, side="right")
        np.add.at(counts[:, :, column], (sentences, spans.types), 1)
    return counts


class Scores(NamedTuple):
    """Precision, recall and F1; 0 where they are undefined."""

    precision: float
    recall: float
    f1: float


def scores_of(counts: npt.ArrayLike) -> Scores:
    """Compute precision, recall and F1 from counts of correct, predicted and present entities [3]."""
    correct, predicted, present = (float(count) for count in np.asarray(counts))
    return Scores(
        correct / predicted if predicted else 0.0,
        correct / present if present else 0.0,
        2 * correct / (predicted + present) if predicted + present else 0.0,
    )


class Entity(NamedTuple):
    """An entity in a text.

    Attributes:
        type: Its type.
        start: Offset of its first character.
        end: Offset after its last character.
        score: Mean probability of the tags of its pieces.
    """

    type: str
    start: int
    end: int
    score: float


class Piece(NamedTuple):
    """A piece of a text with its likeliest tag.

    Attributes:
        tag: Index of the tag.
        score: Its probability.
        start: Offset of the first character.
        end: Offset after the last character.
    """

    tag: int
    score: float
    start: int
    end: int


def join_pieces(pieces: Iterable[Piece], continues: Iterable[bool]) -> list[Piece]:
    """Join the pieces of each word into one, with the tag of the first.

    Args:
        pieces: The pieces of a text, special tokens left out.
        continues: Whether each piece goes on with the word of the piece before.
    """
    joined: list[Piece] = []
    for piece, same_word in zip(pieces, continues, strict=True):
        if same_word and joined:
            joined[-1] = joined[-1]._replace(end=piece.end)
        else:
            joined.append(piece)
    return joined


def group_pieces(scheme: TagScheme, pieces: Sequence[Piece]) -> list[Entity]:
    """Group neighboring pieces into entities.

    Args:
        scheme: The scheme of the tags.
        pieces: The pieces of a text, special tokens left out.
    """
    spans = find_spans(join_rows(scheme, [[piece.tag for piece in pieces]]))
    return [
        Entity(
            scheme.types[kind],
            pieces[first].start,
            pieces[last].end,
            float(np.mean([piece.score for piece in pieces[first : last + 1]])),
        )
        for kind, first, last in zip(*(part.tolist() for part in spans), strict=True)
    ]


def join_windows(entities: Iterable[Entity]) -> list[Entity]:
    """Join the entities of overlapping windows: of two that overlap the longer stays, of equally long the likelier.

    >>> join_windows([Entity("PER", 0, 4, 0.9), Entity("PER", 0, 9, 0.8), Entity("LOC", 12, 15, 0.7)])[0].end
    9
    """
    joined: list[Entity] = []
    for entity in sorted(entities, key=lambda each: each.start):
        if not joined or entity.start >= joined[-1].end:
            joined.append(entity)
        elif (entity.end - entity.start, entity.score) > (joined[-1].end - joined[-1].start, joined[-1].score):
            joined[-1] = entity
    return joined
