"""The options of a data source, checked by name and by type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from limbeck.core.kinds import Kind
from limbeck.errors import InputError, nearest, shown

Column = str | int | None
Columns = str | int | tuple[str | int, ...] | None


LONGEST = 1000
"""Most characters of a path, a name or a label in the options; texts given in place of a file have no limit."""


def _names_in(option: str, value: object) -> Iterator[object]:
    """Yield the value of an option, and what is in it if it is a list or a mapping; texts themselves are left out."""
    yield value
    if isinstance(value, (list, tuple, Mapping)) and option != "texts":
        yield from value


@dataclass(frozen=True)
class Options:
    """Where rows are and how to read them; everything but the location has a default or is detected.

    The location is one of: ``path`` (a named task, a folder or a file), files for ``train``, ``validation`` and
    ``test``, ``dataset`` with an optional ``config`` (then train, validation and test name its splits), or ``texts``, a
    file of texts without labels, or the texts themselves, which the model of the recipe answers.
    """

    path: str | None = None
    texts: str | tuple[str, ...] | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    dataset: str | None = None
    config: str | None = None
    name: str | None = None
    kind: Kind | None = None
    #: columns by name, or by number from 0
    text: Column = None
    pair: Column = None
    label: Columns = None  #: or several columns of 0 and 1, one for each label
    #: the order of the labels; labels that are numbers from 0 in the data index into it
    label_names: tuple[str | int | float, ...] | None = None
    #: separates the labels of one row (multilabel) where they are one string
    label_separator: str | None = None
    metric: str | None = None
    header: bool | None = None
    delimiter: str | None = None
    #: error: refuse rows without text; drop: leave them out and count them; keep: an empty text is a text
    on_empty: Literal["error", "drop", "keep"] = "error"
    #: rows without a label (empty, 'nan', -1 in a test split). error: refuse them; drop: leave them out and count them
    on_unlabelled: Literal["error", "drop"] = "error"
    #: tokens after which texts are cut; 128 unless given, or as many as the model reads where answers are vectors
    max_length: int | None = None
    limit: Mapping[str, int] = field(default_factory=dict)
    #: chooses the rows for ``limit`` and for a validation split carved out of train
    seed: int = 0
    #: of a folder in BEIR's form: documents that a request has, and what finds them: bm25, a file of results, or an
    #: embedding model
    candidates: int | None = None
    first_stage: str | None = None
    #: of vectors: what they are judged by in place of held-out rows, a folder in BEIR's form or texts with classes, and
    #: how many texts of each class a probe learns from
    judge: str | None = None
    shots: int | None = None
    #: folds that its queries are divided into, where judgments are not divided, and which of them is the test split
    folds: int | None = None
    fold: int | None = None

    @property
    def splits(self) -> dict[str, str | None]:
        """The file, or the split of the data set, for each split of the task."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Options:
        """Check the names and types of options that a user wrote.

        Args:
            given: Options by name.

        Raises:
            InputError: A name is unknown, or a value has the wrong type or is out of range.
        """
        from pydantic import TypeAdapter, ValidationError

        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise InputError(f"data: there is no option {shown(name)}; {nearest(name, names)}")
        plain = {name: str(value) if hasattr(value, "__fspath__") else value for name, value in given.items()}
        for name, value in plain.items():
            if any(isinstance(text, str) and len(text) > LONGEST for text in _names_in(name, value)):
                raise InputError(f"data option '{name}': has more than {LONGEST:,} characters: {shown(value)}")
        try:
            options = TypeAdapter(cls).validate_python(plain)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            raise InputError(f"data option '{name}': {first['msg']}, got {shown(first['input'])}") from None
        if options.delimiter == "\\t":  # as a shell passes it on
            options = replace(options, delimiter="\t")
        if options.delimiter is not None and len(options.delimiter) != 1:
            raise InputError(f"data option 'delimiter': should be one character, got {shown(options.delimiter)}")
        if options.label == () or (isinstance(options.label, tuple) and len(set(options.label)) < len(options.label)):
            raise InputError(f"data option 'label': should name each column once, got {list(options.label)}")
        if isinstance(options.label, tuple) and len(options.label) == 1:
            options = replace(options, label=options.label[0])
        bounds = {"max_length": (2, 100_000), "seed": (0, 2**32 - 1), "candidates": (2, 10_000)}
        bounds |= {"folds": (2, 1_000), "fold": (0, 999), "shots": (1, 10_000)}
        for name, (low, high) in bounds.items():
            if (value := getattr(options, name)) is not None and not low <= value <= high:
                raise InputError(f"data option '{name}': should be at least {low} and at most {high:,}, got {value}")
        return options
