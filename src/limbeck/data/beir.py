"""Read a retrieval task in the form of BEIR (Thakur et al., 2021, arXiv:2104.08663): documents, queries, judgments.

A folder has ``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``) and ``qrels.tsv`` or
``qrels/test.tsv`` and the like, with three columns and perhaps a header: query, document, score.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.core.paths import exists
from limbeck.data.corpus.documents import normal, numbered_lines
from limbeck.data.hub import SPLIT_NAMES
from limbeck.data.readers import parse_json
from limbeck.errors import InputError, nearest, shown


@dataclass(frozen=True)
class Retrieval:
    """Documents and queries by their ids, and the judgments of each query.

    Attributes:
        documents: Title and text of each document, as one text.
        queries: The queries that have a judgment, in the order of the file.
        judgments: For each of these queries, the score of every judged document.
    """

    documents: Mapping[str, str]
    queries: Mapping[str, str]
    judgments: Mapping[str, Mapping[str, float]]

    def relevant(self, query: str) -> set[str]:
        """Return the documents with a positive judgment."""
        return {document for document, score in self.judgments[query].items() if score > 0}

    def itself(self, query: str) -> str | None:
        """Return the document that is the query, which no search should find; None if there is none.

        In ArguAna and Quora queries are documents, too. BEIR leaves out what has the query's id
        (``ignore_identical_ids``). Differs: only if it also has the query's text and was not judged relevant, because
        other folders number queries and documents independently.
        """
        text = self.queries[query]
        if not text or query not in self.documents or query in self.relevant(query):
            return None
        return query if normal(self.documents[query]).endswith(normal(text)) else None  # perhaps after a title

    def only(self, chosen: Collection[str]) -> Retrieval:
        """Return the same for some of the queries, in the order of the file."""
        queries = {query: text for query, text in self.queries.items() if query in chosen}
        return Retrieval(self.documents, queries, {query: self.judgments[query] for query in queries})

    def shuffled(self, seed: int) -> list[str]:
        """Return the queries in an order that depends on the seed alone, never on the version of a random generator."""
        return sorted(self.queries, key=lambda query: hashlib.sha256(f"{seed}/{query}".encode()).digest())

    def binary(self) -> Retrieval:
        """Return the same with judgments of 0 and 1."""
        judgments = {
            query: {document: float(score > 0) for document, score in scores.items()}
            for query, scores in self.judgments.items()
        }
        return Retrieval(self.documents, self.queries, judgments)


def is_beir(folder: Path) -> bool:
    """Return whether a folder is a retrieval task."""
    return all((folder / name).is_file() for name in ("corpus.jsonl", "queries.jsonl"))


def read_beir(folder: Path, split: str = "test") -> Retrieval:
    """Read a retrieval task.

    Args:
        folder: The folder.
        split: Name of the judgments in ``qrels/``, where there are several.

    Raises:
        InputError: A file is missing, or a line of it is unusable; the message names it.
    """
    return _judged(_judgments_file(folder, split), *_texts(folder))


def read_splits(folder: Path) -> dict[str, Retrieval]:
    """Read the judgments of all splits, by their names in ``qrels/``; those of ``qrels.tsv`` alone have the name ''.

    Args:
        folder: The folder.

    Raises:
        InputError: As for :func:`read_beir`.
    """
    texts = _texts(folder)
    if names := _judgment_names(folder):
        return {name: _judged(_judgments_file(folder, name), *texts) for name in names}
    return {"": _judged(_judgments_file(folder, ""), *texts)}


def by_split(judged: Mapping[str, Retrieval]) -> dict[str, Retrieval]:
    """Return the judgments of each split of a task, by the customary names of their files."""
    return {split: judged[name] for split, names in SPLIT_NAMES.items() for name in names if name in judged}


def whole_split(judged: Mapping[str, Retrieval], split: str) -> dict[str, Retrieval]:
    """Return the judgments to evaluate a model by, as those of the split; empty if it has no list of its own.

    The only list that is not to train on is that of 'test', whatever its name.

    Args:
        judged: Judgments by the names of their files.
        split: Name of the split.
    """
    if split in (own := by_split(judged)):
        return {split: own[split]}
    others = [part for name, part in judged.items() if name not in SPLIT_NAMES["train"]]
    return {split: others[0]} if split == "test" and len(others) == 1 else {}


def _texts(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return documents and queries by their ids."""
    return tuple(  # type: ignore[return-value]  # there are two
        {key: _text(record) for key, record in _records(folder / name).items()}
        for name in ("corpus.jsonl", "queries.jsonl")
    )


def _judged(path: Path, documents: dict[str, str], queries: dict[str, str]) -> Retrieval:
    judgments: dict[str, dict[str, float]] = {}
    for number, line in numbered_lines(path):
        cells = line.rstrip("\r\n").split("\t")
        where = f"{path}, line {number}"
        if not line.strip() or (number == 1 and cells[-1:] == ["score"]):
            continue
        if len(cells) != 3:
            raise InputError(f"{where}: expected query, document and score separated by tabs, got {shown(line)}")
        query, document, score = cells
        for key, present, file in ((query, queries, "queries"), (document, documents, "corpus")):
            if key not in present:
                raise InputError(f"{where}: {file}.jsonl has no _id {shown(key)}; {nearest(key, present)}")
        if document in judgments.setdefault(query, {}):
            raise InputError(f"{where}: query {shown(query)} and document {shown(document)} were judged before")
        judgments[query][document] = _number(score, where)
    if not any(score > 0 for scores in judgments.values() for score in scores.values()):
        raise InputError(f"{path}: no document is relevant to any query")
    judged = {key: text for key, text in queries.items() if key in judgments}
    return Retrieval(documents, judged, judgments)


def _judgment_names(folder: Path) -> list[str]:
    several = folder / "qrels"
    return sorted(entry.stem for entry in several.glob("*.tsv")) if several.is_dir() else []


def _judgments_file(folder: Path, split: str) -> Path:
    single, several, names = folder / "qrels.tsv", folder / "qrels", _judgment_names(folder)
    if exists(single):
        if names:
            raise InputError(f"{folder}: has qrels.tsv and judgments in qrels/ ({', '.join(names)}); keep one")
        return single
    path = several / f"{split}.tsv"
    if not exists(path):
        raise InputError(
            f"{folder}: there are no judgments '{split}': neither qrels.tsv nor qrels/{split}.tsv; "
            f"{nearest(split, names)}"
        )
    return path


def _records(path: Path) -> dict[str, dict[str, Any]]:
    if not exists(path):
        raise InputError(f"{path.parent}: there is no {path.name}, which a retrieval task in BEIR's form has")
    records: dict[str, dict[str, Any]] = {}
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        record = parse_json(where, line)
        if not isinstance(record, dict) or not isinstance(record.get("_id"), str):
            raise InputError(f'{where}: expected an object with "_id" and "text", got {shown(record)}')
        if not all(isinstance(record.get(key, ""), str) for key in ("title", "text")):
            raise InputError(f"{where}: title and text should be text, got {shown(record)}")
        if record["_id"] in records:
            raise InputError(f"{where}: the _id {shown(record['_id'])} occurs before")
        records[record["_id"]] = record
    return records


def _text(record: Mapping[str, Any]) -> str:
    return f"{record.get('title', '')} {record.get('text', '')}".strip()


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e9:
        raise InputError(f"{where}: the score should be a number, got {shown(text)}")
    return value
