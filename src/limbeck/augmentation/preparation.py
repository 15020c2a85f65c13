"""What a transform needs before it samples: parts of speech and words by part of speech, or candidates of each word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from limbeck.augmentation.pipeline import rows_of
from limbeck.augmentation.pos_taggers import tag_rows
from limbeck.augmentation.transforms import (
    NGram,
    Row,
    Substitute,
    Transform,
    replaceable,
    split_words,
    words_by_tag,
)
from limbeck.storage.parallel import chunked

if TYPE_CHECKING:
    from limbeck.augmentation.config import NGramConfig, SubstitutionConfig
    from limbeck.augmentation.word_candidates import Lexicon, MaskedModel
    from limbeck.augmentation.word_vectors import WordVectors
    from limbeck.core.candidate import Candidate
    from limbeck.core.cost import Memo
    from limbeck.core.pieces import Spread
    from limbeck.core.step import RunContext
    from limbeck.core.task import Task
    from limbeck.train.checkpoint import Log

Annotate = Callable[[Sequence[Row]], Sequence[Row]]
"""Adds to rows what the transform reads in them."""
Prepared = tuple[Transform, Annotate]
"""A transform, and what annotates rows for it."""
TIMED = 32  #: texts whose words a masked language model looks up to see which precision is faster


def masking(
    fields: NGramConfig, candidate: Candidate, context: RunContext, *, chunk_rows: int = 256, workers: int = 1
) -> Prepared:
    """Return the n-gram transform for a candidate's task.

    Args:
        fields: How words are masked and swapped.
        candidate: Gives the texts and the mask token.
        context: Receives a note where words cannot be swapped, and may have texts tagged elsewhere.
        chunk_rows: Texts that are tagged together.
        workers: Processes that tag.
    """
    tagger = fields.used_tagger
    if fields.part_of_speech_probability and tagger is None:
        context.log("no tagger: no words are swapped for others of the same part of speech")
    rule = fields.transform(candidate.tokenizer.mask_token)
    return tagged(rule, candidate.task, tagger, chunk_rows=chunk_rows, workers=workers, spread=context.spread)


def substituting(fields: SubstitutionConfig, candidate: Candidate, context: RunContext) -> Prepared:
    """Return the transform that replaces words, for a candidate's task.

    Args:
        fields: How words are replaced.
        candidate: Gives the texts, and the vectors of words where no file is named.
        context: Keeps measured times, and receives notes.
    """
    from limbeck.augmentation.word_vectors import embedding_vectors, read_vectors

    own = partial(embedding_vectors, candidate.model, candidate.tokenizer)
    vectors = partial(read_vectors, fields.vectors) if fields.vectors else own
    masked = masked_model(fields, candidate.task, context.memo, context.log)
    top_k, probability = fields.top_k, fields.replace_probability
    return substitution(candidate.task, vectors, masked, top_k=top_k, replace_probability=probability)


def tagged(
    rule: NGram,
    task: Task,
    tagger: str | None,
    *,
    chunk_rows: int = 256,
    workers: int = 1,
    spread: Spread | None = None,
) -> Prepared:
    """Return the n-gram transform with the words of every part of speech, and what tags the words of rows.

    Args:
        rule: The transform, which swaps no words yet.
        task: Gives the texts.
        tagger: Who finds parts of speech; None finds none, and no words are swapped.
        chunk_rows: Texts that are tagged together.
        workers: Processes that tag, where ``spread`` is None.
        spread: Has texts tagged by the workers of a run.
    """
    if tagger is None:
        return rule, lambda rows: rows
    train = task.split("train")
    words = [split_words(side)[0] for row in rows_of(train, task.labeled_rows) for side in row.sides]
    if spread is None:
        tags = tag_rows(tagger, words, chunk_rows, workers)
    else:
        tags = tag_elsewhere(spread, tagger, words, chunk_rows)
    sides = 1 if train.pairs is None else 2

    def annotate(rows: Sequence[Row]) -> list[Row]:
        return [row._replace(notes=tuple(tags[row.number * sides : (row.number + 1) * sides])) for row in rows]

    return replace(rule, bags=words_by_tag(words, tags)), annotate


def masked_model(fields: SubstitutionConfig, task: Task, memo: Memo, log: Log) -> MaskedModel | None:
    """Return the masked language model, in the arithmetic that is asked for or is the faster one on some of the texts.

    Args:
        fields: How words are replaced.
        task: Gives the texts.
        memo: Keeps the measured times.
        log: Called with a message about the choice.

    Returns:
        The model; None if none is named.
    """
    masked = open_masked_model(fields, task, fields.mixed_precision == "bf16")
    if masked is None or fields.mixed_precision != "auto":
        return masked
    rows = rows_of(task.split("train"), task.labeled_rows)
    some = rows[:: max(1, len(rows) // TIMED)]
    texts = [split_words(side) for row in some for side in row.sides]
    wanted = [[replaceable(word) for word in words] for words, _ in texts]
    return masked.in_faster_precision(texts, wanted, len(rows) / max(1, len(some)), memo, log)


def open_masked_model(fields: SubstitutionConfig, task: Task, half: bool) -> MaskedModel | None:
    """Return the masked language model; None if none is named.

    Args:
        fields: How words are replaced.
        task: Gives the length of texts.
        half: Whether to compute in bfloat16.
    """
    from limbeck.augmentation.word_candidates import MaskedModel, load_masked_model

    if fields.mlm is None:
        return None
    model, tokenizer = load_masked_model(fields.mlm)
    most, width = task.max_length, fields.positions_per_pass
    return MaskedModel(model, tokenizer, fields.top_k, width, half=half, max_length=most)


@dataclass(frozen=True)
class CandidateNotes:
    """Adds the candidates of each word to rows."""

    lexicon: Lexicon

    @classmethod
    def of(cls, nearest: Mapping[str, Sequence[str]], masked: MaskedModel | None) -> CandidateNotes:
        """Return what adds candidates that are known already.

        Args:
            nearest: The nearest words of each word.
            masked: Proposes words of one piece; None leaves all to ``nearest``.
        """
        from limbeck.augmentation.word_candidates import Lexicon

        return cls(Lexicon({word: tuple(others) for word, others in nearest.items()}, masked))

    def __call__(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows with candidates."""
        texts = [split_words(side) for row in rows for side in row.sides]
        notes = iter(self.lexicon.candidates(texts, [[replaceable(word) for word in words] for words, _ in texts]))
        return [row._replace(notes=tuple(next(notes) for _ in row.sides)) for row in rows]


def substitution(
    task: Task,
    vectors: Callable[[Sequence[str]], WordVectors],
    masked: MaskedModel | None,
    *,
    top_k: int = 15,
    replace_probability: float = 0.4,
) -> Prepared:
    """Return the transform that replaces words, and what adds the candidates of each word to rows.

    Args:
        task: Gives the texts.
        vectors: Returns the vectors of words.
        masked: Proposes words of one piece; None leaves all to the vectors.
        top_k: Candidates for each word.
        replace_probability: Probability that a word is replaced.
    """
    rows = rows_of(task.split("train"), task.labeled_rows)
    texts = (split_words(side)[0] for row in rows for side in row.sides)
    words = sorted({word for text in texts for word in text if replaceable(word)})
    return Substitute(replace_probability), CandidateNotes.of(vectors(words).nearest(words, top_k), masked)


def tag_elsewhere(spread: Spread, tagger: str, texts: Sequence[Sequence[str]], chunk: int) -> list[list[str]]:
    """Have texts tagged by the workers of a run.

    Args:
        spread: ``context.spread``.
        tagger: Name of the tagger.
        texts: Words of each text.
        chunk: Texts in a piece.

    Returns:
        A tag per word of each text.
    """
    pieces = [{"tag": [list(texts[index]) for index in part]} for part in chunked(len(texts), chunk)]
    return [tags for result in spread(pieces, {"tagger": tagger}) for tags in result["tags"]]
