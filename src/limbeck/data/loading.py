"""Find the data that a person names: an embedded task, a preset, a folder, files, or a data set of the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from limbeck.data.config import Options
from limbeck.data.hub import PRESETS, load_tables
from limbeck.data.readers import READERS, Reading, Table, check_file, missing_file, read_table, table_of_columns
from limbeck.data.task import METRICS, METRICS_OF, SPLITS, Task
from limbeck.data.task_builder import build_task
from limbeck.data.task_file import SUFFIXES as TASK_FILES
from limbeck.data.task_file import read_task_file
from limbeck.errors import InputError, nearest

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
"""Tasks that have a name, as the options that load them."""

_STEMS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class _Place:
    """Where a task comes from: files for its splits, a folder that limbeck wrote, or neither (the hub)."""

    options: Options
    name: str
    files: Mapping[str, Path] = field(default_factory=dict)
    folder: Path | None = None
    single: bool = False  #: whether the task is one file that nobody called a split


def load_task(spec: str | Path | Mapping[str, Any], *, base: str | Path | None = None) -> Task:
    """Load and check a task.

    ``spec`` is a name (``movie-reviews``, ``qnli``, …), a path (a folder with train, validation and test files, one
    file, a folder that ``Task.to_folder`` wrote, or a task file: YAML with options), or a mapping of
    :class:`Options`; ``path: NAME`` there takes a
    named task and changes some of its options. Paths are relative to ``base``. A folder with the name of a task is
    meant by ``./NAME``.
    """
    return _load(_find(spec, Path(base) if base is not None else Path()))


def load_judged(
    spec: str | Path | Mapping[str, Any], split: str | None = None, *, base: str | Path | None = None
) -> tuple[Task, str]:
    """Load a task to judge a model on, and the split to judge it on.

    Args:
        spec: As for :func:`load_task`; files without a training split will do.
        split: The split; None for all rows of a single file, and for 'test' of anything else.
        base: Folder that paths are relative to.

    Raises:
        InputError: The task cannot be read, or has no such split.
    """
    place = _find(spec, Path(base) if base is not None else Path(), judge=True)
    if split is None and place.single:
        place = replace(place, files={"test": place.files["train"]})
    judge = bool(place.files) and "train" not in place.files
    split = split or "test"
    if judge and split not in place.files:
        raise InputError(f"task '{place.name}' has no split '{split}'; {nearest(split, place.files)}")
    task = _load(place, judge=judge)
    task.split(split)
    return task, split


def _load(place: _Place, *, judge: bool = False) -> Task:
    options = place.options
    if place.folder is not None:
        task = (
            replace(Task.from_folder(place.folder), name=place.name) if options.name else Task.from_folder(place.folder)
        )
        return task.limit(options.seed, **options.limit)
    if options.dataset is None:
        return build_task(place.name, _read_files(place.files, options), options, judge=judge)
    tables, names, notes = load_tables(options)
    if options.label_names is None and options.kind != "regression":
        options = replace(options, label_names=names)
    return build_task(place.name, tables, options, notes)


def check_task(spec: str | Path | Mapping[str, Any], *, base: str | Path | None = None) -> None:
    """Raise what can be known to be wrong without reading a row: options, names, missing files and splits."""
    options = _find(spec, Path(base) if base is not None else Path()).options
    for split in options.limit:
        if split not in SPLITS:
            raise InputError(f"data option 'limit': there is no split '{split}'; {nearest(split, SPLITS)}")
    if options.metric is not None:
        allowed = METRICS if options.kind is None else METRICS_OF[options.kind]
        if options.metric not in allowed:
            raise InputError(f"data: there is no metric '{options.metric}'; {nearest(options.metric, allowed)}")


def _find(spec: str | Path | Mapping[str, Any], base: Path, *, judge: bool = False) -> _Place:
    """Find out what a specification means; files are looked for and not read. To judge needs no training split."""
    given = dict(spec) if isinstance(spec, Mapping) else {"path": str(spec)}
    for _ in range(10):  # a task file may name another one
        if not isinstance(given.get("path"), (str, Path)) or Path(given["path"]).suffix.lower() not in TASK_FILES:
            break
        file = base / Path(given.pop("path")).expanduser()
        inside = read_task_file(file)
        given = {**inside, **given, **_merged_limit(inside, given)}
    options = Options.parse(given)
    if options.path is not None:
        if mixed := given.keys() & {*SPLITS, "dataset"}:
            raise InputError(f"data: give either path or {', '.join(sorted(mixed))}, not both")
        name = options.path.replace("_", "-").lower()
        if name not in NAMED:
            return _find_path(options, base, given.keys() - {"path"}, judge)
        del given["path"]
        options = Options.parse({"name": name, **NAMED[name], **given})
    if options.dataset is not None:
        return _Place(options, options.name or options.config or options.dataset.rstrip("/").rsplit("/", 1)[-1])
    files = {split: base / Path(file).expanduser() for split in SPLITS if (file := getattr(options, split))}
    if "train" not in files and not (judge and files):
        found = f"only {', '.join(files)}" if files else "no path, no files and no data set"
        raise InputError(f"data: there is no train split, {found}; give path: or train: a file")
    for path in files.values():
        check_file(path)
    first = next(iter(files.values()))
    return _Place(options, options.name or files.get("train", first).resolve().parent.name, files)


def _merged_limit(inside: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Limits of both a task file and what changes it; other options are replaced as a whole."""
    both = (inside.get("limit"), given.get("limit"))
    return {"limit": {**both[0], **both[1]}} if isinstance(both[0], dict) and isinstance(both[1], dict) else {}


def _find_path(options: Options, base: Path, others: Set[str], judge: bool) -> _Place:
    """A task of a folder or of a single file."""
    assert options.path is not None
    path = base / Path(options.path).expanduser()
    if path.is_file():
        check_file(path)
        return _Place(options, options.name or path.stem, {"train": path}, single=True)
    if not path.is_dir():
        raise InputError(_unknown(options.path, path))
    if not (path / "task.json").is_file():
        return _Place(options, options.name or path.resolve().name, find_splits(path, judge=judge))
    if extra := others - {"limit", "seed", "name"}:
        raise InputError(
            f"{path} is a task that limbeck wrote; it takes limit, seed and name, not {', '.join(sorted(extra))}"
        )
    return _Place(options, options.name or path.name, folder=path)


def task_from_columns(name: str, splits: Mapping[str, Sequence[Sequence[Any]]], **options: Any) -> Task:
    """The work of :meth:`Task.from_lists`."""
    tables = {}
    for split, columns in splits.items():
        where = f"{name}, {split}"
        if len(columns) not in (2, 3) or any(isinstance(column, str) for column in columns):
            raise InputError(f"{where}: expected (texts, labels) or (texts, pairs, labels), got {len(columns)} parts")
        roles = ("text", "label") if len(columns) == 2 else ("text", "pair", "label")
        tables[split] = table_of_columns(where, dict(zip(roles, columns, strict=True)))
        if not tables[split].rows:
            raise InputError(f"{where}: there are no rows in it")
    has_pair = "train" in tables and "pair" in tables["train"].columns
    columns_given = {"text": "text", "label": "label", **({"pair": "pair"} if has_pair else {})}
    return build_task(name, tables, Options.parse({**columns_given, **options}))


def _unknown(spec: str, path: Path) -> str:
    """Say that neither a task nor a path has this name."""
    if "/" in spec or path.suffix:
        return missing_file(path)
    siblings = [each.name for each in path.parent.iterdir() if each.is_dir()] if path.parent.is_dir() else []
    hint = nearest(spec, {*NAMED, *siblings})
    if hint.startswith("choose"):
        hint = nearest(spec, NAMED)
    return f"there is no task and no folder '{spec}'; {hint}"


def find_splits(folder: Path, *, judge: bool = False) -> dict[str, Path]:
    """The files of a folder that hold its splits, by their names; to judge on, any of them will do."""
    files = sorted(each for each in folder.iterdir() if each.is_file() and each.suffix.lower() in READERS)
    found: dict[str, Path] = {}
    for split, stems in _STEMS.items():
        fitting = [each for each in files if each.stem.lower() in stems]
        if len(fitting) > 1:
            raise InputError(
                f"{folder}: which one is the {split} split, {' or '.join(each.name for each in fitting)}? "
                f"name the files one by one ({split}: {fitting[0].name})"
            )
        if fitting:
            found[split] = fitting[0]
    if "train" not in found and not (judge and found):
        names = [each.name for each in files]
        raise InputError(
            f"{folder}: there is no train split (a file train.csv, .tsv, .jsonl, .parquet, …); "
            + (f"among its files {nearest('train.csv', names)}" if names else "it holds no data files")
        )
    return found


def _read_files(files: Mapping[str, Path], options: Options) -> dict[str, Table]:
    labels = options.label if isinstance(options.label, tuple) else (options.label,)
    asked = (options.text, options.pair, *labels)
    names = frozenset(str(column) for column in asked if column is not None and not str(column).isdecimal())
    reading = Reading(
        options.header,
        options.delimiter,
        names,
        tokens=options.kind == "tokens",
        sentences=options.kind in (None, "tokens"),
    )
    tables: dict[str, Table] = {}
    for split, path in files.items():
        tables[split] = read_table(path, replace(reading, like=tables.get("train")))
    return tables
