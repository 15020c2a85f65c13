"""Augment a task: sample new rows in chunks stored on disk, remove duplicates, filter their labels, and record it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from limbeck.augmentation.label_filter import LabelFilter
from limbeck.augmentation.transforms import Deduplicator, Row, Sides, Transform, rewrite_rows, text_key
from limbeck.core.task import Split, Task
from limbeck.core.task_kind import Label
from limbeck.storage.parallel import chunked, in_order, kept_lines, read_lines, write_lines

if TYPE_CHECKING:
    from limbeck.augmentation.pieces import Elsewhere

Prepare = Callable[[], tuple[Transform, Callable[[Sequence[Row]], Sequence[Row]]]]
"""Returns the transform, and a function that adds notes to rows; called only if samples are missing."""
MAX_EXAMPLES, MAX_CHARACTERS = 8, 240  # new texts in the history, and characters of each


def rows_of(split: Split, count: int | None = None) -> list[Row]:
    """Return the first ``count`` rows (all if None), to be rewritten."""
    pairs = split.pairs or (None,) * len(split)
    return [Row(index, *sides) for index, sides in enumerate(zip(split.texts, pairs, strict=True))][:count]


def text_keys(split: Split) -> list[int]:
    """Return the keys by which the texts of a split are compared."""
    return [text_key(row.text, row.pair) for row in rows_of(split)]


class Sample(NamedTuple):
    """A new row: the number of its original, its texts, its label."""

    number: int
    sides: Sides
    label: Label


@dataclass(frozen=True)
class AugmentationPipeline:
    """One augmentation of a task.

    The samples of a row depend on ``seed`` and the row alone. Each chunk is written to ``scratch`` when it is sampled
    and again when it is reviewed, so an interrupted run resumes.

    Attributes:
        task: The task to augment.
        prepare: Returns the transform and what it needs.
        count: Samples per row (per text, of pairs).
        seed: Seed of the samples.
        scratch: Folder for finished chunks.
        label_filter: Reviews the labels of new rows; they are kept unless given.
        chunk_rows: Rows per chunk.
        workers: Processes that transform rows.
        log: Reports progress.
        mask_token: What the transform writes in place of a word.
        elsewhere: Rewrites and reviews rows by the workers of a run, in place of ``workers``.
    """

    task: Task
    prepare: Prepare
    count: int
    seed: int
    scratch: Path
    label_filter: LabelFilter | None = None
    chunk_rows: int = 256
    workers: int = 1
    log: Callable[..., None] = lambda message, **numbers: None
    mask_token: str | None = None
    elsewhere: Elsewhere | None = None

    def run(self, **heading: str) -> Task:
        """Return the augmented task; its history gets an entry that begins with ``heading``, even if no row is new."""
        self.write_samples()
        samples = self.filtered()
        entry = {**heading, **self.history_entry(samples)}
        self.log(f"{heading.get('summary', '')}: " + ", ".join(f"{name} {n:,}" for name, n in entry["counts"].items()))
        train = self.task.split("train")
        larger = Split(
            (*train.texts, *(sample.sides[0] for sample in samples)),
            (*train.labels, *(sample.label for sample in samples)),
            None if train.pairs is None else (*train.pairs, *(sample.sides[1] for sample in samples)),
        )
        return replace(self.task, splits={**self.task.splits, "train": larger}, history=(*self.task.history, entry))

    @cached_property
    def rows(self) -> list[Row]:
        """The original rows, by number."""
        return rows_of(self.task.split("train"), self.task.labeled_rows)

    @cached_property
    def overlapping(self) -> frozenset[int]:
        """Numbers of the original rows that another split also has: they stay, but are not rewritten."""
        forbidden = self.deduplicator.forbidden
        return frozenset(row.number for row in self.rows if text_key(row.text, row.pair) in forbidden)

    @cached_property
    def chunks(self) -> list[list[int]]:
        """Numbers of the other rows, by chunk."""
        numbers = [row.number for row in self.rows if row.number not in self.overlapping]
        return [numbers[part.start : part.stop] for part in chunked(len(numbers), self.chunk_rows)]

    @cached_property
    def deduplicator(self) -> Deduplicator:
        """Rejects texts of another split, texts of the training split, and repeats."""
        others = (split for name, split in self.task.splits.items() if name != "train")
        return Deduplicator(text_keys(self.task.split("train")), (key for split in others for key in text_keys(split)))

    def _path(self, kind: str, number: int) -> Path:
        return self.scratch / f"{kind}-{number:06d}.jsonl"

    def write_samples(self) -> None:
        """Write the samples of every chunk that is not in the scratch folder yet."""
        missing = [number for number in range(len(self.chunks)) if not self._path("drawn", number).is_file()]
        done = len(self.chunks) - len(missing)
        if done and self.elsewhere is None:  # with workers the step itself begins again
            self.log(f"resumed: {done:,} of {len(self.chunks):,} chunks were drawn already")
        if not missing:
            return
        transform, add_notes = self.prepare()
        chunks = ([self.rows[row] for row in self.chunks[number]] for number in missing)
        if self.elsewhere is not None:
            rewritten = self.elsewhere.rewrite((transform, add_notes), list(chunks))
        else:
            jobs = ((add_notes(rows), transform, self.count, self.seed) for rows in chunks)
            rewritten = in_order(rewrite_rows, jobs, self.workers)
        for number, samples in zip(missing, rewritten, strict=True):
            write_lines(self._path("drawn", number), samples)
            done += 1
            self.log("", step=done, total=len(self.chunks))

    def filtered(self) -> list[Sample]:
        """Return the new rows that stay; in the order of the chunks, since an earlier row wins over its repeat."""
        unique: Iterable[list[Sample]] = (self.unique(number) for number in range(len(self.chunks)))
        if self.label_filter is not None and self.elsewhere is not None:
            unique = list(unique)
            self._review_elsewhere(self.elsewhere, unique)
        return [sample for number, rows in enumerate(unique) for sample in self.reviewed(number, rows)]

    def unique(self, number: int) -> list[Sample]:
        """Return the new rows of a chunk that no other row has; chunks in order."""
        labels = self.task.split("train").labels
        sampled = zip(self.chunks[number], read_lines(self._path("drawn", number)), strict=True)
        return [
            Sample(row, _as_tuples(sides), labels[row])
            for row, texts in sampled
            for sides in self.deduplicator.filter(texts)
        ]

    def reviewed(self, number: int, unique: Sequence[Sample]) -> Iterator[Sample]:
        """Yield the new rows of a chunk that stay, with the labels that they have then.

        Args:
            number: The chunk.
            unique: Its new rows.
        """
        if self.label_filter is None:
            yield from unique
            return
        reviews = kept_lines(self._path("judged", number), lambda: self.review(self._split(unique)))
        self.log("", step=number + 1, total=len(self.chunks))
        for sample, review in zip(unique, reviews, strict=True):
            label = self.label_filter.resolve(sample.label, review)
            if label is not None:
                yield sample._replace(label=label)

    def _review_elsewhere(self, elsewhere: Elsewhere, chunks: Sequence[Sequence[Sample]]) -> None:
        missing = [number for number in range(len(chunks)) if not self._path("judged", number).is_file()]
        rows = [([sample.number for sample in chunks[number]], self._split(chunks[number])) for number in missing]
        for number, reviews in zip(missing, elsewhere.review(rows), strict=True):
            write_lines(self._path("judged", number), reviews)

    def review(self, rows: Split) -> list[tuple[Label, Label]]:
        """Return what the teacher says of new rows."""
        assert self.label_filter is not None
        return self.label_filter.review(replace(self.task, history=({"mask_token": self.mask_token},)), rows)

    def new_rows(self, originals: Sequence[int], texts: Sequence[Any], pairs: Sequence[str] | None) -> Split:
        """Return new rows with the labels of their originals.

        Args:
            originals: Numbers of the originals.
            texts: Texts of the new rows, perhaps from JSON.
            pairs: The second texts of pairs.
        """
        labels = self.task.split("train").labels
        second = None if pairs is None else tuple(pairs)
        return Split(tuple(_as_tuples(list(texts))), tuple(labels[number] for number in originals), second)

    def _split(self, samples: Sequence[Sample]) -> Split:
        pairs = None if self.task.split("train").pairs is None else tuple(sample.sides[1] for sample in samples)
        return Split(tuple(sample.sides[0] for sample in samples), tuple(sample.label for sample in samples), pairs)

    def history_entry(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the numbers of the augmentation, with examples, as plain JSON values."""
        before, deduplicated = len(self.task.split("train")), self.deduplicator.counts
        counts = {
            "original texts": len(self.rows),
            "originals kept but not rewritten, for they stand in validation or test": len(self.overlapping),
            "samples drawn": deduplicated["drawn"],
            "duplicates left out": deduplicated["duplicates"],
            "left out, for they stand in validation or test": deduplicated["leaks"],
        }
        if self.label_filter is not None:
            counts["labels the teacher objected to"] = self.label_filter.counts["flipped"]
            counts["dropped by the guard"] = self.label_filter.counts["dropped"]
            counts["relabelled by the guard"] = self.label_filter.counts["relabelled"]
        after = before + len(samples)
        counts |= {"new texts kept": len(samples), "training texts now": after}
        examples = [self.describe(sample) for sample in samples[:: max(1, len(samples) // MAX_EXAMPLES)][:MAX_EXAMPLES]]
        totals = {"before": before, "after": after, "mask_token": self.mask_token}
        return {**totals, "counts": counts, "samples": examples}

    def describe(self, sample: Sample) -> dict[str, str]:
        """Return the text of a new row, of its original, and of its label."""
        return {
            "original": _cut(self.rows[sample.number].sides),
            "new": _cut(sample.sides),
            "label": format_label(self.task, sample.label)[:MAX_CHARACTERS],
        }


def format_label(task: Task, label: Label) -> str:
    """Format a label by the names of the task.

    >>> from limbeck.data.synthetic import toy_task
    >>> format_label(toy_task("tokens", train=2), (0, 2)), format_label(toy_task("multilabel", train=2), (0, 0))
    ('O place', 'none')
    """
    return task.task_kind.describe(label, task.label_names)


def _as_tuples(sides: Sides) -> Sides:
    """Turn words that were read from JSON into tuples again."""
    return [tuple(side) if isinstance(side, list) else side for side in sides]


def _cut(sides: Sequence[str | Sequence[str]]) -> str:
    text = " / ".join(side if isinstance(side, str) else " ".join(side) for side in sides)
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
