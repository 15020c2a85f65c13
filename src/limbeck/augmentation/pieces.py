"""Pieces of an augmentation for the workers of a run: texts to tag, rows to rewrite, new rows to review.

Each piece has the rows of a chunk, and a row's samples depend on the seed and the row alone: the texts are those that
one process makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from limbeck.augmentation.pos_taggers import tag_texts
from limbeck.augmentation.preparation import CandidateNotes, Prepared
from limbeck.augmentation.transforms import NGram, Row, Sides, Transform, WordDistribution, rewrite_rows
from limbeck.core.pieces import Piece, Result, Spread

if TYPE_CHECKING:
    from limbeck.augmentation.pipeline import AugmentationPipeline
    from limbeck.augmentation.word_candidates import MaskedModel
    from limbeck.core.task import Split
    from limbeck.core.task_kind import Label

OpenMasked = Callable[[bool], "MaskedModel | None"]
"""Opens the masked language model that proposes words, in bfloat16 or not; None where there is none."""


@dataclass(frozen=True)
class Elsewhere:
    """Rewrites and reviews rows by the workers of a run.

    Attributes:
        spread: ``context.spread``.
    """

    spread: Spread

    def rewrite(self, prepared: Prepared, chunks: Sequence[Sequence[Row]]) -> Iterator[list[list[Sides]]]:
        """Yield the samples of the rows of each chunk.

        Args:
            prepared: The transform, and what annotates rows for it.
            chunks: The rows.
        """
        transform, annotate = prepared
        shared: dict[str, Any]
        pieces: list[Piece]
        if isinstance(transform, NGram):  # the words of all texts are known here, so notes are, too
            shared = {"bags": {tag: [list(part) for part in bag] for tag, bag in transform.bags.items()}}
            pieces = [
                {"rows": [row.number for row in rows], "notes": [list(row.notes) for row in annotate(rows)]}
                for rows in chunks
            ]
        else:
            assert isinstance(annotate, CandidateNotes)
            masked = annotate.lexicon.masked
            shared = {"nearest": {word: list(others) for word, others in annotate.lexicon.nearest.items()}}
            shared |= {"half": masked is not None and masked.half}
            pieces = [{"rows": [row.number for row in rows]} for rows in chunks]
        return (result["samples"] for result in self.spread(pieces, shared))

    def review(self, chunks: Sequence[tuple[Sequence[int], Split]]) -> Iterator[list[tuple[Label, Label]]]:
        """Yield what the teacher says of the new rows of each chunk.

        Args:
            chunks: For each chunk, the numbers of the originals, and the new rows.
        """
        pieces = [
            {"originals": list(numbers), "texts": list(rows.texts), "pairs": rows.pairs and list(rows.pairs)}
            for numbers, rows in chunks
        ]
        return (result["reviews"] for result in self.spread(pieces))


def work_on(
    pieces: Sequence[Piece],
    shared: Mapping[str, Any],
    pipeline: AugmentationPipeline,
    transform: Transform,
    open_masked: OpenMasked,
) -> Iterator[Result]:
    """Yield the results of pieces.

    Args:
        pieces: The pieces.
        shared: What all of them read.
        pipeline: The augmentation that they are of.
        transform: The random change, without what the shared data have.
        open_masked: Opens the masked language model that proposes words.
    """
    if "tagger" in shared:
        yield from ({"tags": tag_texts((shared["tagger"], piece["tag"]))} for piece in pieces)
    elif "bags" in shared:
        assert isinstance(transform, NGram)
        bags = {tag: WordDistribution(*map(tuple, parts)) for tag, parts in shared["bags"].items()}
        transform = replace(transform, bags=bags)
        for piece in pieces:
            rows = [
                pipeline.rows[number]._replace(notes=tuple(notes))
                for number, notes in zip(piece["rows"], piece["notes"], strict=True)
            ]
            yield {"samples": rewrite_rows((rows, transform, pipeline.count, pipeline.seed))}
    elif "nearest" in shared:
        annotate = CandidateNotes.of(shared["nearest"], open_masked(shared["half"]))
        for piece in pieces:
            rows = annotate([pipeline.rows[number] for number in piece["rows"]])
            yield {"samples": rewrite_rows((rows, transform, pipeline.count, pipeline.seed))}
    else:
        for piece in pieces:
            yield {"reviews": pipeline.review(pipeline.new_rows(piece["originals"], piece["texts"], piece["pairs"]))}
