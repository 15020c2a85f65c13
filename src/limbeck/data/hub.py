"""Load data sets through the library ``datasets``: presets for common ones, and any other by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from limbeck.data.config import Options
from limbeck.data.readers import Table, table_of_columns
from limbeck.errors import InputError, nearest

_GLUE = {"dataset": "nyu-mll/glue", "train": "train"}
# GLUE hides the labels of its test splits: its validation is our test, and validation is carved out of train
_GLUE_PLAIN = {**_GLUE, "test": "validation"}

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "cola": {**_GLUE_PLAIN, "config": "cola", "text": "sentence", "label": "label", "metric": "matthews"},
        "sst2": {**_GLUE_PLAIN, "config": "sst2", "text": "sentence", "label": "label", "metric": "accuracy"},
        "mrpc": {
            **_GLUE_PLAIN,
            "config": "mrpc",
            "text": "sentence1",
            "pair": "sentence2",
            "label": "label",
            "metric": "f1",
        },
        "stsb": {
            **_GLUE_PLAIN,
            "config": "stsb",
            "text": "sentence1",
            "pair": "sentence2",
            "label": "label",
            "kind": "regression",
            "metric": "pearson_spearman",
        },
        "qqp": {
            **_GLUE_PLAIN,
            "config": "qqp",
            "text": "question1",
            "pair": "question2",
            "label": "label",
            "metric": "f1",
            "on_empty": "drop",  # a handful of its questions are empty
        },
        "mnli": {
            **_GLUE,
            "config": "mnli",
            "test": "validation_matched",
            "text": "premise",
            "pair": "hypothesis",
            "label": "label",
            "metric": "accuracy",
        },
        "qnli": {
            **_GLUE_PLAIN,
            "config": "qnli",
            "text": "question",
            "pair": "sentence",
            "label": "label",
            "metric": "accuracy",
        },
        "rte": {
            **_GLUE_PLAIN,
            "config": "rte",
            "text": "sentence1",
            "pair": "sentence2",
            "label": "label",
            "metric": "accuracy",
        },
        "imdb": {
            "dataset": "stanfordnlp/imdb",
            "train": "train",
            "test": "test",
            "text": "text",
            "label": "label",
            "metric": "accuracy",
            "max_length": 512,
        },
        "snips": {
            "dataset": "benayas/snips",
            "train": "train",
            "test": "test",
            "text": "text",
            "label": "category",
            "metric": "accuracy",
        },
    }
)

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""Customary names of each split, of a data set or of files."""


def load_tables(
    options: Options, *, evaluation: bool = False
) -> tuple[dict[str, Table], tuple[str, ...] | None, list[str]]:
    """Load a data set.

    Args:
        options: What to load, and how.
        evaluation: Whether it is only to evaluate a model on: then it needs no training split.

    Returns:
        Its tables by split, its label names if it declares them, and notes.

    Raises:
        InputError: It cannot be loaded, lacks a split, or hides the labels of the training split.
    """
    assert options.dataset is not None
    return tables_of(_load(options.dataset, options.config), options, evaluation=evaluation)


def tables_of(
    loaded: Mapping[str, Any], options: Options, *, evaluation: bool = False
) -> tuple[dict[str, Table], tuple[str, ...] | None, list[str]]:
    """Do the same as :func:`load_tables` for a data set that is loaded already.

    Args:
        loaded: Its splits by name.
        options: What to read, and how.
        evaluation: As for :func:`load_tables`.

    Returns:
        The same.

    Raises:
        InputError: It lacks a split, or hides the labels of the training split or of all splits.
    """
    tables: dict[str, Table] = {}
    names: tuple[str, ...] | None = None
    notes: list[str] = []
    for split, requested in options.splits.items():
        source = _choose_split(split, requested, loaded, options, evaluation)
        if source is None:
            continue
        rows = loaded[source]
        columns = {name: rows[name][:] for name in rows.column_names}
        table = table_of_columns(f"data set '{options.dataset}', split '{source}'", columns)
        if _labels_hidden(table, options):
            if split == "train":
                raise InputError(f"{table.where}: every label is -1, which means hidden; choose another split")
            notes.append(f"{split}: left out, because its labels are hidden (every one is -1)")
            continue
        tables[split] = table
        names = names or _declared_names(rows.features, table, options)
    if not tables:
        raise InputError(
            f"data set '{options.dataset}' has no train, validation or test split with labels, only {', '.join(loaded)}"
        )
    return tables, names, notes


def stream(dataset: str, config: str | None, split: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a split, fetched as they are read; nothing is stored.

    Args:
        dataset: Name of the data set.
        config: Its configuration, if it has several.
        split: Name of the split.
    """
    import datasets

    with _explained(dataset, config):
        yield from datasets.load_dataset(dataset, config, split=split, streaming=True)


def _load(dataset: str, config: str | None) -> Mapping[str, Any]:
    import datasets

    with _explained(dataset, config):
        return dict(datasets.load_dataset(dataset, config))


@contextmanager
def _explained(dataset: str, config: str | None) -> Iterator[None]:
    try:
        yield
    # the type depends on the network, the hub's response and the builder; whatever it is, it concerns this data set
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        shown = f"'{dataset}'" + (f" (config '{config}')" if config else "")
        raise InputError(
            f"the data set {shown} cannot be loaded: {type(error).__name__}: {reason}; check the name and the "
            "network, or give local files (train: …, validation: …, test: …)"
        ) from error


def _choose_split(
    split: str, requested: str | None, loaded: Mapping[str, Any], options: Options, evaluation: bool
) -> str | None:
    """Choose the split of the data set that serves as this split of the task."""
    if requested is not None:
        if requested not in loaded:
            raise InputError(f"data set '{options.dataset}' has no split '{requested}'; {nearest(requested, loaded)}")
        return requested
    if options.train or options.validation or options.test:
        return None  # the splits were named one by one, and this one was not
    name = next((name for name in SPLIT_NAMES[split] if name in loaded), None)
    if name is None and split == "train" and not evaluation:
        raise InputError(f"data set '{options.dataset}' has no split 'train'; {nearest('train', loaded)}")
    return name


def _label_column(table: Table, options: Options) -> str | None:
    name = str(options.label) if options.label is not None else "label"
    return name if name in table.columns else None


def _labels_hidden(table: Table, options: Options) -> bool:
    column = _label_column(table, options)
    if column is None or not table.rows:
        return False
    index = table.columns.index(column)
    return all(row[index] in (-1, -1.0) for row in table.rows)


def _declared_names(features: Mapping[str, Any], table: Table, options: Options) -> tuple[str, ...] | None:
    """Return the names of a ClassLabel column (also inside a list), in order."""
    column = _label_column(table, options)
    feature = features[column] if column is not None else None
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return tuple(names) if names else None
