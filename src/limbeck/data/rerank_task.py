"""A task for rerankers from a folder in BEIR's form: queries with the candidates of a first stage, and judgments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from limbeck.core.kinds import find
from limbeck.core.requests import requests_of
from limbeck.core.task import Split, Task
from limbeck.data.beir import Retrieval, by_split, read_splits, whole_split
from limbeck.data.config import Options
from limbeck.data.first_stage import Ranker, candidates_of, check_first_stage
from limbeck.data.readers import plural
from limbeck.data.requests import check_contrast, request_rows
from limbeck.data.task_builder import find_oddities, hold_out_validation
from limbeck.errors import InputError, nearest, shown

KIND = "rerank"
CANDIDATES = 50
"""Documents of each query unless the user says how many."""
FOLDS = 5
"""Parts that the queries are divided into where there is one list of judgments."""
ALLOWED = frozenset(
    {"path", "name", "kind", "metric", "max_length", "limit", "seed", "candidates", "first_stage", "folds", "fold"}
)
"""Options that have a meaning for such a folder."""


def refuse_options(options: Options) -> None:
    """Refuse options that have a meaning for a folder in BEIR's form alone, where the rows come from elsewhere."""
    for name in ("candidates", "first_stage", "folds", "fold"):
        if (value := getattr(options, name)) is not None:
            raise InputError(
                f"data option '{name}': is for a folder in BEIR's form (corpus.jsonl, queries.jsonl, qrels.tsv), got "
                f"{shown(value)} for other data; leave it out"
            )


def check_options(folder: Path, options: Options, given: frozenset[str], base: Path = Path()) -> None:
    """Refuse options without a meaning for a folder in BEIR's form, and a first stage that cannot be used.

    Args:
        folder: The folder.
        options: The options.
        given: Names of those that the user gave.
        base: Folder that paths are relative to.
    """
    if unsuited := sorted(given - ALLOWED):
        raise InputError(
            f"{folder} is a retrieval task in BEIR's form; data option '{unsuited[0]}' has no meaning for it; "
            f"{nearest(unsuited[0], ALLOWED)}"
        )
    if options.kind not in (None, KIND):
        form = f"{folder} is a retrieval task in BEIR's form"
        raise InputError(f"{form}, which is of kind {KIND} or embedding, not {options.kind}")
    folds = options.folds or FOLDS
    if options.fold is not None and options.fold >= folds:
        raise InputError(f"data option 'fold': should be at most {folds - 1}, of {folds} folds, got {options.fold}")
    check_first_stage(options.first_stage or "bm25", base)


def rerank_task(
    name: str,
    folder: Path,
    options: Options,
    base: Path = Path(),
    *,
    evaluated: str | None = None,
    rank: Ranker | None = None,
) -> Task:
    """Read a folder and let the first stage choose the documents of each query.

    Judgments by split (``qrels/train.tsv``, ``dev.tsv``, ``test.tsv``) are used as they are. One list of judgments is
    divided: the queries into folds by the seed, one of which is for testing and one for validation. Relevant documents
    that the first stage does not find are added to the training split alone; in the others they count in the best
    possible ranking.

    Args:
        name: Name of the task.
        folder: The folder.
        options: How to read it.
        base: Folder that paths are relative to.
        evaluated: The split, if the task is only to evaluate a model on: its judgments are taken whole, unless
            ``folds`` or ``fold`` divides them, and nothing is added.
        rank: Ranks by the embedding model that is the first stage.

    Raises:
        InputError: A file is missing or unusable, or there is nothing to train on.
    """
    first_stage, count = options.first_stage or "bm25", options.candidates or CANDIDATES
    notes: list[str] = []
    parts = _parts(folder, options, notes, evaluated)
    trains = parts.keys() != {evaluated}
    ranked = candidates_of(_together(parts), first_stage, count, base, rank)
    splits = {}
    for split, retrieval in parts.items():
        splits[split], recall = _rows(retrieval, ranked, complete=trains and split == "train")
        requests = len(requests_of(splits[split].labels))
        notes.append(
            f"{split}: {plural(requests, 'request')} of up to {count} documents; the first stage {first_stage} finds "
            f"{recall:.1%} of the relevant documents"
        )
    kind = find(KIND)
    if trains:
        check_contrast(splits["train"], str(folder))
    if trains and "validation" not in splits:
        splits = hold_out_validation(kind, splits, options.seed, notes)
        candidates = [len(ranked[query]) for query in parts["train"].queries]
        splits["validation"] = _without_added(splits["validation"], candidates)
    if trains and "test" not in splits:
        notes.append("there is no test split; results are measured on validation")
    notes += find_oddities(splits)
    metric = options.metric or kind.usual_metric(())
    length = kind.usual_length if options.max_length is None else options.max_length
    task = Task(name, KIND, splits, (), metric, length, tuple(notes)).checked()
    return task.limit(options.seed, **options.limit) if options.limit else task


def _parts(folder: Path, options: Options, notes: list[str], evaluated: str | None) -> dict[str, Retrieval]:
    """Return the judged queries of each split, or of the one that is evaluated.

    Args:
        folder: The folder.
        options: Perhaps with folds.
        notes: Receives a note about the queries.
        evaluated: The only split that is needed; if it has no list of its own, all are returned.
    """
    judged = read_splits(folder)
    splits = by_split(judged)
    divided = options.folds is not None or options.fold is not None
    if len(judged) > 1 and divided:
        names = ", ".join(judged)
        raise InputError(f"data option 'folds': {folder} has judgments by split ({names}); leave it out")
    if evaluated is not None and not divided and (whole := whole_split(judged, evaluated)):
        if len(judged) == 1:  # the list that a training divides
            notes.append(
                f"{evaluated}: all judged queries; a reranker that was trained on this folder has learned from most of "
                "them, and fold: 0 takes those that it has not seen"
            )
        return whole
    if len(judged) > 1:
        if "train" not in splits:
            raise InputError(f"{folder}: there is no qrels/train.tsv; {nearest('train', judged)}")
        return splits
    (retrieval,) = judged.values()
    folds, fold = options.folds or FOLDS, options.fold or 0
    if len(retrieval.queries) < max(folds, 3):
        raise InputError(f"{folder}: {len(retrieval.queries)} judged queries cannot be divided into {folds} folds")
    order = retrieval.shuffled(options.seed)
    held_out = {"validation": set(order[(fold + 1) % folds :: folds]), "test": set(order[fold::folds])}
    notes.append(
        f"the queries are divided into {folds} folds (seed {options.seed}): fold {fold} for testing, the next one for "
        "validation"
    )
    parts = {split: retrieval.only(queries) for split, queries in held_out.items()}
    return {"train": retrieval.only(retrieval.queries.keys() - set().union(*held_out.values())), **parts}


def _together(parts: Mapping[str, Retrieval]) -> Retrieval:
    """Return the queries of all splits, which the first stage searches for at once."""
    queries = {query: text for part in parts.values() for query, text in part.queries.items()}
    judgments = {query: scores for part in parts.values() for query, scores in part.judgments.items()}
    return Retrieval(next(iter(parts.values())).documents, dict(sorted(queries.items())), judgments)


def _rows(retrieval: Retrieval, ranked: dict[str, list[str]], *, complete: bool) -> tuple[Split, float]:
    """Return the rows of a split, and the share of the relevant documents that the first stage finds.

    Args:
        retrieval: Texts and judgments.
        ranked: Candidates of each query.
        complete: Whether relevant documents that are no candidates are added, after these.
    """
    candidates, retrieved, relevant = {}, 0, 0
    for query in retrieval.queries:
        documents, judged_relevant = ranked[query], retrieval.relevant(query)
        missing = sorted(judged_relevant - set(documents))
        retrieved += len(judged_relevant) - len(missing)
        relevant += len(judged_relevant)
        added = [document for document in missing if complete and retrieval.documents[document]]
        candidates[query] = [*documents, *added]
    texts = retrieval.queries.__getitem__, retrieval.documents.__getitem__
    return request_rows(candidates, retrieval.judgments, *texts), retrieved / max(1, relevant)


def _without_added(split: Split, candidates: Sequence[int]) -> Split:
    """Return the rows without the documents that were added to training requests, after the candidates.

    Args:
        split: Rows of training requests.
        candidates: Number of candidates of each query, by its index.
    """
    requests = requests_of(split.labels)
    return split.take(sorted(row for rows in requests for row in rows[: candidates[split.labels[rows[0]][0]]]))
