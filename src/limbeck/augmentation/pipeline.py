"""A task with more training rows: drawn in chunks that are kept on disk, sifted, judged, counted and told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from limbeck.augmentation.label_filter import LabelFilter
from limbeck.augmentation.transforms import Deduplicator, Made, Row, Transform, rewrite_rows, text_key
from limbeck.data.task import Split, Task
from limbeck.storage.parallel import chunked, in_order, kept_lines, read_lines, write_lines

Prepare = Callable[[], tuple[Transform, Callable[[Sequence[Row]], Sequence[Row]]]]
"""Gives the rule that draws, and what adds notes to rows; called only when something is left to draw."""
SHOWN, LETTERS = 8, 240  # new texts in the history, and letters of each


def rows_of(split: Split, count: int | None = None) -> list[Row]:
    """The first ``count`` rows, to be rewritten."""
    pairs = split.pairs or (None,) * len(split)
    return [Row(place, *sides) for place, sides in enumerate(zip(split.texts, pairs, strict=True))][:count]


def keys_of(split: Split) -> list[int]:
    """What texts are compared by: letters and digits."""
    return [text_key(row.text, row.pair) for row in rows_of(split)]


class New(NamedTuple):
    """A new row: which row it was made of, its texts, its label."""

    number: int
    sides: Made
    label: Any


@dataclass(frozen=True)
class AugmentationPipeline:
    """One augmentation of a task.

    Samples of a row depend on ``seed`` and the row alone; each chunk of ``chunk_rows`` rows is written to ``scratch``
    when it is drawn and when the judge has read it, and found there again.
    """

    task: Task
    prepare: Prepare
    count: int
    seed: int
    scratch: Path
    judge: LabelFilter | None = None
    chunk_rows: int = 256
    workers: int = 1
    log: Callable[..., None] = lambda message, **numbers: None
    mask_token: str | None = None  #: what the rule writes in place of a word

    def grown(self, **about: str) -> Task:
        """The larger task, with an entry in its history that begins with ``about``, also if no row is new."""
        self.draw()
        made = [new for number in range(len(self.chunks)) for new in self.sift(number)]
        entry = {**about, **self.entry(made)}
        self.log(f"{about.get('summary', '')}: " + ", ".join(f"{name} {n:,}" for name, n in entry["counts"].items()))
        train = self.task.split("train")
        larger = Split(
            (*train.texts, *(new.sides[0] for new in made)),
            (*train.labels, *(new.label for new in made)),
            None if train.pairs is None else (*train.pairs, *(new.sides[1] for new in made)),
        )
        return replace(self.task, splits={**self.task.splits, "train": larger}, history=(*self.task.history, entry))

    @cached_property
    def rows(self) -> list[Row]:
        """The original rows, by number."""
        return rows_of(self.task.split("train"), self.task.labelled_rows)

    @cached_property
    def leaked(self) -> frozenset[int]:
        """The numbers of those that stand in another split too: they stay, and nothing is made of them."""
        return frozenset(row.number for row in self.rows if text_key(row.text, row.pair) in self.sieve.forbidden)

    @cached_property
    def chunks(self) -> list[list[int]]:
        """The numbers of the others, chunk by chunk."""
        places = [row.number for row in self.rows if row.number not in self.leaked]
        return [places[part.start : part.stop] for part in chunked(len(places), self.chunk_rows)]

    @cached_property
    def sieve(self) -> Deduplicator:
        """Lets no text through that stands in another split, in train, or was made before."""
        others = (split for name, split in self.task.splits.items() if name != "train")
        return Deduplicator(keys_of(self.task.split("train")), (key for split in others for key in keys_of(split)))

    def _path(self, kind: str, number: int) -> Path:
        return self.scratch / f"{kind}-{number:06d}.jsonl"

    def draw(self) -> None:
        """See that the samples of every chunk lie in the scratch folder."""
        missing = [number for number in range(len(self.chunks)) if not self._path("drawn", number).is_file()]
        done = len(self.chunks) - len(missing)
        if done:
            self.log(f"resumed: {done:,} of {len(self.chunks):,} chunks were drawn already")
        if not missing:
            return
        rule, noted = self.prepare()
        texts = ([self.rows[place] for place in self.chunks[number]] for number in missing)
        jobs = ((noted(rows), rule, self.count, self.seed) for rows in texts)
        for number, made in zip(missing, in_order(rewrite_rows, jobs, self.workers), strict=True):
            write_lines(self._path("drawn", number), made)
            done += 1
            self.log("", step=done, total=len(self.chunks))

    def sift(self, number: int) -> Iterator[New]:
        """The new rows of a chunk that stay. Chunks come in their order, since an earlier row wins over its repeat."""
        labels = self.task.split("train").labels
        drawn = zip(self.chunks[number], read_lines(self._path("drawn", number)), strict=True)
        fresh = [New(row, _frozen(one), labels[row]) for row, made in drawn for one in self.sieve.pass_on(made)]
        if self.judge is None:
            yield from fresh
            return
        judge, task = self.judge, replace(self.task, history=({"mask_token": self.mask_token},))
        opinions = kept_lines(self._path("judged", number), lambda: judge.opinions(task, self._split(fresh)))
        self.log("", step=number + 1, total=len(self.chunks))
        for new, said in zip(fresh, opinions, strict=True):
            label = judge.settle(new.label, said)
            if label is not None:
                yield new._replace(label=label)

    def _split(self, rows: Sequence[New]) -> Split:
        pairs = None if self.task.split("train").pairs is None else tuple(new.sides[1] for new in rows)
        return Split(tuple(new.sides[0] for new in rows), tuple(new.label for new in rows), pairs)

    def entry(self, made: Sequence[New]) -> dict[str, Any]:
        """What was made, in numbers and in examples, as plain JSON values."""
        before, sifted = len(self.task.split("train")), self.sieve.counts
        counts = {
            "original texts": len(self.rows),
            "originals kept but not rewritten, for they stand in validation or test": len(self.leaked),
            "samples drawn": sifted["drawn"],
            "duplicates left out": sifted["duplicates"],
            "left out, for they stand in validation or test": sifted["leaks"],
        }
        if self.judge is not None:
            counts["labels the teacher objected to"] = self.judge.counts["flipped"]
            counts["dropped by the guard"] = self.judge.counts["dropped"]
            counts["relabelled by the guard"] = self.judge.counts["relabelled"]
        counts |= {"new texts kept": len(made), "training texts now": before + len(made)}
        every = max(1, len(made) // SHOWN)
        samples = [self.shown(new) for new in made[::every][:SHOWN]]
        about = {"before": before, "after": before + len(made), "mask_token": self.mask_token}
        return {**about, "counts": counts, "samples": samples}

    def shown(self, new: New) -> dict[str, str]:
        """A new row beside its original, in words."""
        return {
            "original": _cut(self.rows[new.number].sides),
            "new": _cut(new.sides),
            "label": label_in_words(self.task, new.label)[:LETTERS],
        }


def label_in_words(task: Task, label: Any) -> str:
    """A label by its names.

    >>> from limbeck.data.synthetic import toy_task
    >>> label_in_words(toy_task("tokens", train=2), (0, 2)), label_in_words(toy_task("multilabel", train=2), (0, 0))
    ('O place', 'none')
    """
    names = task.label_names
    if task.kind == "regression":
        return f"{label:g}"
    if task.kind == "multilabel":
        return ", ".join(name for name, present in zip(names, label, strict=True) if present) or "none"
    return " ".join(names[one] for one in (label if task.kind == "tokens" else (label,)))


def _frozen(made: Made) -> Made:
    """Words that came from JSON as a tuple again."""
    return [tuple(side) if isinstance(side, list) else side for side in made]


def _cut(sides: Sequence[Any]) -> str:
    text = " / ".join(side if isinstance(side, str) else " ".join(side) for side in sides)
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
