"""Held-out splits that judge vectors: a search in BEIR's form, or classes that a probe learns from a few texts.

They replace held-out rows of the training data in a task for embeddings (data option ``judge``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from limbeck.core.judged_texts import BY_ROW, Document, Example, Judged, Query, metrics_for
from limbeck.core.kinds import find
from limbeck.core.paths import exists, user_path
from limbeck.core.search_score import SearchScore
from limbeck.core.task import Split, Task, choose
from limbeck.data.beir import Retrieval, by_split, is_beir, read_splits, whole_split
from limbeck.data.config import Options
from limbeck.data.hub import SPLIT_NAMES
from limbeck.data.readers import missing_file, plural
from limbeck.errors import InputError, nearest

SHOTS = 8
"""Texts of each class that a probe learns from unless the user says how many."""
HELD_OUT = ("validation", "test")
OF_A_SEARCH = frozenset({"path", "name", "kind", "metric", "max_length", "limit", "seed"})
"""Options that have a meaning for embeddings on a folder in BEIR's form."""


def check_judge(options: Options, base: Path = Path(), kind: str | None = None) -> None:
    """Refuse options that do not go together, and a path where nothing is; reads nothing.

    Args:
        options: The options.
        base: Folder that paths are relative to.
        kind: Kind of the task, if it is known; that of the options unless given.
    """
    kind = kind or options.kind
    if options.judge is None:
        if options.shots is not None:
            raise InputError(f"data option 'shots': is for a probe that 'judge' names, got {options.shots} without it")
        if options.metric in BY_ROW and (kind is None or find(kind).vectors):
            raise InputError(
                f"data: metric '{options.metric}' of vectors needs 'judge', a folder in BEIR's form or labeled texts"
            )
        return
    if kind is not None and not find(kind).vectors:
        raise InputError(f"data option 'judge': is for vectors (kind: embedding); this task is a {kind}")
    if unsuited := sorted(set(options.limit) & set(HELD_OUT)):
        raise InputError(f"data option 'limit': {unsuited[0]} is what 'judge' says, whole; limit train alone")
    path = base / user_path(options.judge)
    if not exists(path):
        raise InputError(f"data option 'judge': {missing_file(path)}")


Load = Callable[[Path], Task]
"""Loads the texts with classes by which vectors are judged; they may be any task."""


def judged_by(task: Task, options: Options, load: Load, base: Path = Path()) -> Task:
    """Replace the held-out splits of a task for embeddings by what ``judge`` names.

    Args:
        task: The task, with a training split.
        options: Has ``judge``; perhaps ``metric``, ``shots`` and ``seed``.
        load: Loads what ``judge`` names.
        base: Folder that paths are relative to.

    Raises:
        InputError: It cannot be read, or the metric does not fit it.
    """
    if options.judge is None:
        return task
    check_judge(options, base, task.kind)
    splits, notes = judged_splits(base / user_path(options.judge), options, load)
    metric = options.metric or _usual_metric(splits)
    splits = {"train": task.split("train"), **splits}
    return replace(task, splits=splits, metric=metric, notes=(*task.notes, *notes)).checked()


def check_search(folder: Path, given: Collection[str]) -> None:
    """Refuse options without a meaning for embeddings on a folder in BEIR's form.

    Args:
        folder: The folder.
        given: Names of the options that the user gave.
    """
    if unsuited := sorted(set(given) - OF_A_SEARCH):
        raise InputError(
            f"{folder} is a retrieval task in BEIR's form; for embeddings, data option '{unsuited[0]}' has no meaning; "
            f"{nearest(unsuited[0], OF_A_SEARCH)}"
        )


def search_task(name: str, folder: Path, options: Options, *, evaluated: str | None = None) -> Task:
    """Build a task for embeddings from a folder in BEIR's form alone: to judge by, and to train on if it has judgments.

    Judgments of a training split become pairs of a query and a relevant document.

    Args:
        name: Name of the task.
        folder: The folder.
        options: May have ``metric``, ``max_length``, ``limit`` and ``seed``.
        evaluated: The split, if the task is only to evaluate a model on: its judgments are taken whole.

    Raises:
        InputError: There is nothing to train on, or the folder cannot be read.
    """
    judged = read_splits(folder)
    splits, notes = _searches(folder, judged, options.seed, evaluated)
    metric = options.metric or _usual_metric(splits)
    if evaluated is None and (train := by_split(judged).get("train")) is not None:
        splits = {"train": _positive_pairs(train), **splits}
    elif evaluated is None:
        raise InputError(
            f"{folder}: there is no qrels/train.tsv to learn from; train on texts or pairs, with judge: {folder}"
        )
    kind = find("embedding")
    length = kind.usual_length if options.max_length is None else options.max_length
    task = Task(name, "embedding", splits, (), metric, length, tuple(notes)).checked()
    return task.limit(options.seed, **options.limit) if options.limit else task


def judged_splits(path: Path, options: Options, load: Load) -> tuple[dict[str, Split], list[str]]:
    """Read validation and test splits to judge vectors by, and notes about them.

    Args:
        path: A folder in BEIR's form, or a file or folder with texts and classes.
        options: May have ``shots`` and ``seed``.
        load: Loads texts with classes.
    """
    if path.is_dir() and is_beir(path):
        if options.shots is not None:
            raise InputError(f"data option 'shots': is for texts with classes, but {path} is a search in BEIR's form")
        return _searches(path, read_splits(path), options.seed)
    return _probes(path, options, load)


def _usual_metric(splits: Mapping[str, Split]) -> str:
    return metrics_for(next(iter(splits.values())).labels[0])[0]


def _searches(
    folder: Path, judged: Mapping[str, Retrieval], seed: int, evaluated: str | None = None
) -> tuple[dict[str, Split], list[str]]:
    """Return searches by the judgments of validation and test, or by one list of judgments in two halves.

    Args:
        folder: The folder.
        judged: Its judgments, by the names of their files.
        seed: Divides the queries.
        evaluated: The only split that is needed, undivided; if it has no list of its own, both are returned.
    """
    whole_parts = {} if evaluated is None else whole_split(judged, evaluated)
    parts = whole_parts or {split: part for split, part in by_split(judged).items() if split in HELD_OUT}
    notes = []
    if len(parts) < len(HELD_OUT) and not whole_parts:
        whole = _to_divide(folder, judged)
        if len(whole.queries) < len(HELD_OUT):
            raise InputError(f"{folder}: one judged query cannot be divided into validation and test")
        ordered = whole.shuffled(seed)
        parts = {split: whole.only(ordered[index::2]) for index, split in enumerate(HELD_OUT)}
        notes.append(f"{folder.name}: the queries are divided into halves (seed {seed}), for validation and for test")
    for split, part in parts.items():
        notes.append(f"{split}: {len(part.queries):,} queries search {plural(len(part.documents), 'document')}")
    return {split: _search(part) for split, part in parts.items()}, notes


def _to_divide(folder: Path, judged: Mapping[str, Retrieval]) -> Retrieval:
    """Return the judgments that validation and test share; never those to train on, which a model has seen."""
    names = [name for name in judged if name not in SPLIT_NAMES["train"]]
    if not names:
        raise InputError(
            f"{folder}: the only judgments are qrels/{next(iter(judged))}.tsv, to train on; vectors are judged by "
            "other queries: give qrels/test.tsv"
        )
    return judged[next(name for name in ("", "test", *SPLIT_NAMES["validation"], *names) if name in names)]


def _search(retrieval: Retrieval) -> Split:
    """Return the documents and then the queries; an empty document is a text that nothing is like."""
    numbers = {document: number for number, document in enumerate(retrieval.documents)}
    labels: list[Judged] = [Document(number) for number in numbers.values()]
    for query in retrieval.queries:
        gains = tuple((numbers[key], gain) for key, gain in retrieval.judgments[query].items())
        itself = retrieval.itself(query)
        labels.append(Query(gains, None if itself is None else numbers[itself]))
    texts = (*(text or "." for text in retrieval.documents.values()), *retrieval.queries.values())
    return Split(texts, tuple(labels))


def _positive_pairs(retrieval: Retrieval) -> Split:
    pairs = [
        (retrieval.queries[query], retrieval.documents[document] or ".")
        for query in retrieval.queries
        for document, gain in retrieval.judgments[query].items()
        if gain > 0
    ]
    queries, documents = zip(*pairs, strict=True)
    return Split(queries, (SearchScore(1.0),) * len(pairs), documents)


def _probes(path: Path, options: Options, load: Load) -> tuple[dict[str, Split], list[str]]:
    """Return for validation and test a few texts of each class to learn from, the same, and the texts to answer."""
    task = load(path)
    if not task.task_kind.single_class or task.task_kind.per_token or task.split("train").pairs is not None:
        raise InputError(f"data option 'judge': should be a search or texts with classes, got {task.kind} in {path}")
    if "test" not in task.splits:
        raise InputError(f"data option 'judge': {path} has no test split, only {', '.join(task.splits)}")
    train, shots = task.split("train"), options.shots or SHOTS
    learned = train.take(_few(train.labels, shots, options.seed))
    splits = {name: _joined(learned, task.split(name)) for name in HELD_OUT}
    note = (
        f"{path.name}: a probe learns {task.num_labels} classes from up to {plural(shots, 'text')} of each (seed "
        f"{options.seed})"
    )
    return splits, [note, *(f"{name}: it answers {plural(len(task.split(name)), 'text')}" for name in HELD_OUT)]


def _few(labels: Sequence[int], shots: int, seed: int) -> list[int]:
    """Choose at most so many rows of each class."""
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    chosen = []
    for own in rows.values():
        chosen += [own[index] for index in choose([0] * len(own), shots, seed, stratified=False)]
    return sorted(chosen)


def _joined(learned: Split, answered: Split) -> Split:
    labels = [Example(int(label), True) for label in learned.labels]
    labels += [Example(int(label), False) for label in answered.labels]
    return Split((*learned.texts, *answered.texts), tuple(labels))
