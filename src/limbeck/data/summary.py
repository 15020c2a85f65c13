"""Summarize a task in a few lines: columns, kind, classes, ignored columns, truncated texts, and notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from limbeck.core.kinds import KINDS
from limbeck.core.task import SPLITS, Split, Task

CountTokens = Callable[[Sequence[Any], Sequence[str] | None], Sequence[int]]
"""Counts the tokens of every text (a string, or a tuple of words) with its second text, special tokens included."""
SAMPLE = 2_000  #: texts per split whose tokens are counted


@dataclass(frozen=True)
class Truncation:
    """How much of a split is truncated.

    Attributes:
        split: The split.
        max_length: Maximum tokens of a text.
        counted: Texts whose tokens were counted.
        cut: Counted texts that are longer.
        tokens: Tokens in the counted texts.
        lost: Tokens beyond ``max_length``.
        rows: Texts of the split.
    """

    split: str
    max_length: int
    counted: int
    cut: int
    tokens: int
    lost: int
    rows: int

    def __str__(self) -> str:
        of = f"{self.counted:,}" if self.counted == self.rows else f"a sample of {self.counted:,}"
        if not self.cut:
            return f"{self.split}: none of {of} texts"
        share, lost = 100 * self.cut / self.counted, 100 * self.lost / self.tokens
        return f"{self.split}: {self.cut:,} of {of} texts ({share:.1f} %), {lost:.1f} % of their tokens"


@dataclass(frozen=True)
class Summary:
    """A task in numbers.

    Attributes:
        name: Name of the task.
        kind: Kind of task.
        metric: Its metric.
        rows: Rows of every split.
        text: Text column; None where the task does not come from columns, as for the other columns.
        pair: Column of second texts.
        label: Label columns; none where pairs have no scores.
        unread: Columns that are ignored.
        labels: Rows of each label in the first split (words in a token task); empty for regression.
        range: Smallest, mean and largest target of a regression in the first split.
        truncation: Truncated texts by split; empty without a tokenizer.
        notes: Notes about the data.
    """

    name: str
    kind: str
    metric: str
    rows: Mapping[str, int]
    text: str | None
    pair: str | None
    label: tuple[str, ...]
    unread: tuple[str, ...]
    labels: Mapping[str, int]
    range: tuple[float, float, float] | None
    truncation: tuple[Truncation, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"classes": len(self.labels)}

    def lines(self) -> list[str]:
        """Format the summary as lines of text."""
        return [f"data: {self.name}", *(f"  {line}" for line in self._body())]

    def _body(self) -> list[str]:
        rows = ", ".join(f"{count:,} {split}" for split, count in self.rows.items())
        lines = [f"{self._columns()}{self._kind()}, metric {self.metric}", f"rows: {rows}"]
        if counts := self._counts():
            lines.append(counts)
        if self.truncation:
            cut = "; ".join(map(str, self.truncation))
            lines.append(f"longer than {self.truncation[0].max_length} tokens and cut: {cut}")
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def _columns(self) -> str:
        if self.text is None:
            return ""
        label = f"{'label' if len(self.label) == 1 else 'labels'}: {_listed(self.label)}" if self.label else "no scores"
        pair = f", pair: {_named(self.pair)}" if self.pair is not None else ""
        unread = f", not read: {_listed(self.unread)}" if self.unread else ""
        return f"text: {_named(self.text)}{pair}, {label}{unread}; "

    def _kind(self) -> str:
        nouns = KINDS[self.kind].label_noun
        if nouns is None:
            return self.kind
        noun = nouns[len(self.labels) != 1]
        return f"{self.kind} ({len(self.labels):,} {noun})"

    def _counts(self) -> str:
        first = next(iter(self.rows), "")
        if self.range is not None:
            low, mean, high = self.range
            return f"targets in {first}: {low:g} to {high:g}, {mean:g} on average"
        if not self.labels:
            return ""
        noun = "words" if KINDS[self.kind].per_token else "rows"
        ordered = sorted(self.labels.items(), key=lambda item: -item[1])
        shown = ordered if len(ordered) <= 4 else [ordered[0], ordered[-1]]
        counts = ", ".join(f"'{name}' {count:,}" for name, count in shown)
        if len(ordered) <= 4:
            return f"{noun} in {first}: {counts}"
        return f"{noun} in {first}: largest and smallest label {counts}"


def summarize(task: Task, count_tokens: CountTokens | None = None, splits: Sequence[str] | None = None) -> Summary:
    """Summarize a task.

    Args:
        task: A task.
        count_tokens: Counts tokens as the model does; without it the summary has no truncation.
        splits: Splits whose tokens are counted; all if None.
    """
    rows = {name: len(task.splits[name]) for name in (*SPLITS, *task.splits) if name in task.splits}
    columns = task.columns
    first = task.splits[next(iter(rows))]
    targets = [float(label) for label in first.labels if not isinstance(label, tuple)] if task.task_kind.numeric else []
    counted = [name for name in rows if splits is None or name in splits] if count_tokens else []
    return Summary(
        name=task.name,
        kind=task.kind,
        metric=task.metric,
        rows=rows,
        text=columns.text if columns else None,
        pair=columns.pair if columns else None,
        label=columns.label if columns else (),
        unread=columns.unread if columns else (),
        labels=_label_counts(task, first),
        range=(min(targets), sum(targets) / len(targets), max(targets)) if targets else None,
        truncation=tuple(_truncation(task, name, count_tokens) for name in counted if count_tokens),
        notes=task.notes,
    )


def _label_counts(task: Task, split: Split) -> dict[str, int]:
    counts = task.task_kind.label_counts(split.labels)
    return {name: counts[index] for index, name in enumerate(task.label_names)}


def _truncation(task: Task, name: str, count_tokens: CountTokens) -> Truncation:
    split = task.splits[name]
    step = max(1, -(-len(split) // SAMPLE))
    part = split.take(range(0, len(split), step))
    apart = task.task_kind.vectors  # then no text is cut for the sake of the other
    lengths = count_tokens((*part.texts, *(part.pairs or ())), None) if apart else count_tokens(part.texts, part.pairs)
    cut = [length for length in lengths if length > task.max_length]
    lost = sum(cut) - task.max_length * len(cut)
    return Truncation(name, task.max_length, len(lengths), len(cut), sum(lengths), lost, len(split))


def _named(name: str) -> str:
    return f"'{name}'"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_named, names))
