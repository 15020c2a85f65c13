"""Load the data that a user names: an embedded task, a preset, a folder, files, or a data set of the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from limbeck.core.kinds import KINDS
from limbeck.core.metrics import check_form, check_informative, metrics_of
from limbeck.core.paths import exists, user_path
from limbeck.core.task import SPLITS, Task
from limbeck.data.beir import is_beir
from limbeck.data.config import Options
from limbeck.data.first_stage import Ranker
from limbeck.data.hub import PRESETS, SPLIT_NAMES, load_tables
from limbeck.data.judged_task import check_judge, check_search, judged_by, search_task
from limbeck.data.readers import READERS, Reading, Table, check_file, missing_file, read_table, table_of_columns
from limbeck.data.rerank_task import check_options as check_retrieval
from limbeck.data.rerank_task import refuse_options, rerank_task
from limbeck.data.task_builder import build_task
from limbeck.data.task_file import SUFFIXES as TASK_FILES
from limbeck.data.task_file import read_task_file
from limbeck.data.texts_task import check_options, has_no_labels
from limbeck.errors import InputError, nearest, shown

EMBEDDING = "embedding"
_EMBEDDED = Path(__file__).parent / "embedded"

NAMED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "movie-reviews": {
            **{split: str(_EMBEDDED / "movie_reviews" / f"{split}.csv") for split in SPLITS},
            "text": "text",
            "label": "label",
            "label_names": ("negative", "positive"),
            "header": True,
        },
        **PRESETS,
    }
)
"""The options of each named task."""


@dataclass(frozen=True)
class _Location:
    """Where a task comes from: files for its splits, a folder written by limbeck, or neither (the hub)."""

    options: Options
    name: str
    files: Mapping[str, Path] = field(default_factory=dict)
    folder: Path | None = None
    retrieval: Path | None = None  #: a folder in BEIR's form
    base: Path = Path()
    single: bool = False  #: whether the task is one file that was not named as a split


def load_task(
    spec: str | Path | Mapping[str, Any], *, base: str | Path | None = None, rank: Ranker | None = None
) -> Task:
    """Load and check a task.

    Args:
        spec: A name (``movie-reviews``, ``qnli``, …), a path (a folder with train, validation and test files, one
            file, a folder written by ``Task.to_folder``, or a task file: YAML with options), or a mapping of
            :class:`Options`, where ``path: NAME`` changes some options of a named task. A folder that has the name of
            a task is written ``./NAME``.
        base: Folder that paths are relative to.
        rank: Ranks by an embedding model that is a ``first_stage``; ``limbeck.load_task`` has one.

    Raises:
        InputError: The task cannot be found or read, or its data are unusable or ambiguous.
    """
    return _load(_find(spec, Path(base) if base is not None else Path()), rank=rank)


def load_judged(
    spec: str | Path | Mapping[str, Any],
    split: str | None = None,
    *,
    base: str | Path | None = None,
    rank: Ranker | None = None,
) -> tuple[Task, str]:
    """Load a task to evaluate a model on, and choose the split to evaluate it on.

    Args:
        spec: As for :func:`load_task`, but files and judgments need no training split.
        split: The split; None means all rows of a single file, and 'test' otherwise.
        base: Folder that paths are relative to.
        rank: As for :func:`load_task`.

    Raises:
        InputError: The task cannot be read, or has no such split.
    """
    location = _find(spec, Path(base) if base is not None else Path(), evaluation=True)
    if split is None and location.single:
        location = replace(location, files={"test": location.files["train"]})
    hub = location.options.dataset is not None  # a data set tells its splits when it is loaded
    evaluation = location.retrieval is not None or hub or (bool(location.files) and "train" not in location.files)
    split = split or "test"
    if location.files and evaluation and split not in location.files:
        raise InputError(f"task '{location.name}' has no split '{split}'; {nearest(split, location.files)}")
    if location.retrieval is not None:  # the other splits are not there to be limited
        limit = {name: count for name, count in location.options.limit.items() if name == split or name not in SPLITS}
        location = replace(location, options=replace(location.options, limit=limit))
    task = _load(location, split if evaluation else None, rank)
    check_form(task.kind, task.metric, task.split(split).labels)
    check_informative(task.kind, task.metric, split, task.split(split).labels)
    return task, split


def _load(location: _Location, evaluated: str | None = None, rank: Ranker | None = None) -> Task:
    """Load a task; of one that is only to evaluate a model on, ``evaluated`` names the split.

    A data set of the hub that has a training split is loaded in full, since its labels are those of training.
    """
    options = location.options
    if location.folder is not None:
        task = Task.from_folder(location.folder)
        task = replace(task, name=location.name) if options.name else task
        return task.limit(options.seed, **options.limit)
    if location.retrieval is not None and options.kind == EMBEDDING:
        return search_task(location.name, location.retrieval, options, evaluated=evaluated)
    if location.retrieval is not None:
        folder, base = location.retrieval, location.base
        return rerank_task(location.name, folder, options, base, evaluated=evaluated, rank=rank)
    refuse_options(options)
    if options.dataset is None:
        tables = _read_files(location.files, options)
        task = build_task(location.name, tables, options, evaluation=evaluated is not None)
        return judged_by(task, options, load_task, location.base)
    tables, names, notes = load_tables(options, evaluation=evaluated is not None)
    if options.label_names is None and (options.kind is None or not KINDS[options.kind].numeric):
        options = replace(options, label_names=names)
    evaluation = evaluated is not None and "train" not in tables
    task = build_task(location.name, tables, options, notes, evaluation=evaluation)
    return judged_by(task, options, load_task, location.base)


def check_task(spec: str | Path | Mapping[str, Any], *, base: str | Path | None = None) -> None:
    """Raise any error that shows without reading a row: options, names, missing files and splits."""
    if has_no_labels(spec):
        options = Options.parse(spec)
        check_options(options, tuple(spec), Path(base) if base is not None else Path())
    else:
        location = _find(spec, Path(base) if base is not None else Path())
        options = location.options
        if location.retrieval is None:
            refuse_options(options)
            check_judge(options, location.base)
    for split in options.limit:
        if split not in SPLITS:
            raise InputError(f"data option 'limit': there is no split '{split}'; {nearest(split, SPLITS)}")
    if options.metric is not None:
        kinds = KINDS if options.kind is None else (options.kind,)
        allowed = dict.fromkeys(metric for kind in kinds for metric in metrics_of(kind))
        if options.metric not in allowed:
            raise InputError(f"data: there is no metric '{options.metric}'; {nearest(options.metric, allowed)}")


def _find(spec: str | Path | Mapping[str, Any], base: Path, *, evaluation: bool = False) -> _Location:
    """Resolve a specification; files are looked up but not read. Evaluation needs no training split."""
    given = dict(spec) if isinstance(spec, Mapping) else {"path": str(spec)}
    for _ in range(10):  # a task file may name another one
        if not isinstance(given.get("path"), (str, Path)) or Path(given["path"]).suffix.lower() not in TASK_FILES:
            break
        file = base / user_path(given.pop("path"))
        inside = read_task_file(file)
        given = {**inside, **given, **_merged_limit(inside, given)}
    options = Options.parse(given)
    if options.path is not None:
        if mixed := given.keys() & {*SPLITS, "dataset"}:
            raise InputError(f"data: give either path or {', '.join(sorted(mixed))}, not both")
        name = options.path.replace("_", "-").lower()
        if name not in NAMED:
            return _find_path(options, base, given.keys() - {"path"}, evaluation)
        del given["path"]
        options = Options.parse({"name": name, **NAMED[name], **given})
    if options.texts is not None:
        raise InputError("data: 'texts' have no labels, so they need a model that answers them; use compress or run")
    if options.dataset is not None:
        name = options.name or options.config or options.dataset.rstrip("/").rsplit("/", 1)[-1]
        return _Location(options, name, base=base)
    files = {split: base / user_path(file) for split, file in options.splits.items() if file}
    if "train" not in files and not (evaluation and files):
        present = f"only {', '.join(files)}" if files else "no path, no files and no data set"
        raise InputError(f"data: there is no train split, {present}; give 'path: …' or 'train: FILE'")
    for path in files.values():
        check_file(path)
    first = next(iter(files.values()))
    return _Location(options, options.name or files.get("train", first).resolve().parent.name, files, base=base)


def _merged_limit(inside: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the limits of a task file and of the options over it; other options are replaced as a whole."""
    both = (inside.get("limit"), given.get("limit"))
    return {"limit": {**both[0], **both[1]}} if isinstance(both[0], dict) and isinstance(both[1], dict) else {}


def _find_path(options: Options, base: Path, others: Set[str], evaluation: bool) -> _Location:
    """Resolve a path to a folder or to a single file."""
    assert options.path is not None
    path = base / user_path(options.path)
    if exists(path) and not path.is_dir():
        check_file(path)
        return _Location(options, options.name or path.stem, {"train": path}, base=base, single=True)
    if not exists(path):
        raise InputError(_unknown(options.path, path))
    if is_beir(path) and options.kind == EMBEDDING:
        check_search(path, others | {"path"})
        return _Location(options, options.name or path.resolve().name, retrieval=path, base=base)
    if is_beir(path):
        check_retrieval(path, options, frozenset(others | {"path"}), base)
        return _Location(options, options.name or path.resolve().name, retrieval=path, base=base)
    if not (path / "task.json").is_file():
        files = find_splits(path, evaluation=evaluation)
        return _Location(options, options.name or path.resolve().name, files, base=base)
    if extra := others - {"limit", "seed", "name"}:
        raise InputError(
            f"{path} is a task that limbeck wrote; it takes limit, seed and name, not {', '.join(sorted(extra))}"
        )
    return _Location(options, options.name or path.name, folder=path)


def task_from_lists(
    name: str,
    *,
    train: Sequence[Sequence[Any]],
    validation: Sequence[Sequence[Any]] | None = None,
    test: Sequence[Sequence[Any]] | None = None,
    **options: object,
) -> Task:
    """Build a task from lists: each split is ``(texts, labels)`` or ``(texts, pairs, labels)``.

    Args:
        name: Name of the task.
        train: The training split.
        validation: The validation split; a part of train is set aside for it unless given.
        test: The test split.
        **options: As for a data source: kind, metric, label_names, label_separator, max_length, on_empty, limit, seed.

    Returns:
        The task.

    Raises:
        InputError: The lists fail a check; the checks are those of files, and messages count rows from 1.
    """
    splits = {"train": train, "validation": validation, "test": test}
    given = {split: rows for split, rows in splits.items() if rows is not None}
    return task_from_columns(name, given, evaluation=False, **options)


def task_from_columns(
    name: str, splits: Mapping[str, Sequence[Sequence[Any]]], *, evaluation: bool = False, **options: object
) -> Task:
    """Build a task from lists by split; see :func:`task_from_lists`.

    Args:
        name: Name of the task.
        splits: ``(texts, labels)`` or ``(texts, pairs, labels)`` of each split, by its name.
        evaluation: As for :func:`build_task`.
        **options: As for :func:`task_from_lists`.

    Returns:
        The task.

    Raises:
        InputError: The lists fail a check.
    """
    tables = {}
    for split, columns in splits.items():
        where = f"{name}, {split}"
        if len(columns) not in (2, 3) or any(isinstance(column, str) for column in columns):
            raise InputError(f"{where}: expected (texts, labels) or (texts, pairs, labels), got {len(columns)} parts")
        roles = ("text", "label") if len(columns) == 2 else ("text", "pair", "label")
        tables[split] = table_of_columns(where, dict(zip(roles, columns, strict=True)))
        if not tables[split].rows:
            raise InputError(f"{where}: there are no rows in it")
    main = tables.get("train") or next(iter(tables.values()), None)
    has_pair = main is not None and "pair" in main.columns
    columns_given = {"text": "text", "label": "label", **({"pair": "pair"} if has_pair else {})}
    return build_task(name, tables, Options.parse({**columns_given, **options}), evaluation=evaluation)


def _unknown(spec: str, path: Path) -> str:
    """Describe that neither a task nor a path has this name."""
    if "/" in spec or path.suffix:
        return missing_file(path)
    siblings = [folder.name for folder in path.parent.iterdir() if folder.is_dir()] if exists(path.parent) else []
    hint = nearest(spec, {*NAMED, *siblings})
    if hint.startswith("choose"):
        hint = nearest(spec, NAMED)
    return f"there is no task and no folder {shown(spec)}; {hint}"


def find_splits(folder: Path, *, evaluation: bool = False) -> dict[str, Path]:
    """Find the files of a folder that hold its splits, by their names; evaluation needs no training split."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in READERS)
    splits: dict[str, Path] = {}
    for split, stems in SPLIT_NAMES.items():
        fitting = [path for path in files if path.stem.lower() in stems]
        if len(fitting) > 1:
            raise InputError(
                f"{folder}: which one is the {split} split, {' or '.join(path.name for path in fitting)}? "
                f"name the files one by one ({split}: {fitting[0].name})"
            )
        if fitting:
            splits[split] = fitting[0]
    if "train" not in splits and not (evaluation and splits):
        names = [path.name for path in files]
        raise InputError(
            f"{folder}: there is no train split (a file train.csv, .tsv, .jsonl, .parquet, …); "
            + (f"among its files {nearest('train.csv', names)}" if names else "it holds no data files")
        )
    return splits


def _read_files(files: Mapping[str, Path], options: Options) -> dict[str, Table]:
    labels = options.label if isinstance(options.label, tuple) else (options.label,)
    columns = (options.text, options.pair, *labels)
    names = frozenset(str(column) for column in columns if column is not None and not str(column).isdecimal())
    reading = Reading(
        options.header,
        options.delimiter,
        names,
        tokens=options.kind is not None and KINDS[options.kind].per_token,
        sentences=options.kind is None or KINDS[options.kind].per_token,
    )
    tables: dict[str, Table] = {}
    for split, path in files.items():
        tables[split] = read_table(path, replace(reading, like=tables.get("train")))
    return tables
