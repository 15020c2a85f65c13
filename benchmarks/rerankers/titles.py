"""Write pairs of titles and abstracts, to train a cross-encoder on before judgments of queries, which are few.

    python benchmarks/rerankers/titles.py benchmarks/data/cranfield benchmarks/rerankers/titles.jsonl
    limbeck run benchmarks/rerankers/titles.yaml --out benchmarks/rerankers/titles-model

A title stands for a query. The abstract that it belongs to, without the title, is the relevant document; those that
BM25 ranks first beside it are the others. No query and no judgment of the retrieval task is read.
"""

import argparse
import json
from pathlib import Path

from limbeck.data.beir import Retrieval
from limbeck.data.first_stage import candidates_of

LEAST = 40
"""Characters of a title and of an abstract that say enough."""


def without_title(title: str, text: str) -> str:
    """The text after its title, with which many abstracts begin."""
    start = " ".join(title.split()).casefold()
    text = " ".join(text.split())
    return text[len(start) :].lstrip(" .") if text.casefold().startswith(start) else text


def pairs(folder: Path, others: int) -> list[dict[str, object]]:
    """Scored pairs: each title with its own abstract, and with the others that BM25 finds for it."""
    lines = (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    records = {record["_id"]: record for record in map(json.loads, lines)}
    documents = {key: without_title(record.get("title", ""), record.get("text", "")) for key, record in records.items()}
    titles = {key: record.get("title", "").strip() for key, record in records.items()}
    titles = {key: title for key, title in titles.items() if min(len(title), len(documents[key])) >= LEAST}
    ranked = candidates_of(Retrieval(documents, titles, {key: {key: 1.0} for key in titles}), "bm25", others + 1)
    return [
        {"query": title, "document": documents[document], "score": int(document == key)}
        for key, title in titles.items()
        for document in [key, *(found for found in ranked[key] if found != key)][: others + 1]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--others", type=int, default=7)
    arguments = parser.parse_args()
    rows = pairs(arguments.folder, arguments.others)
    arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} pairs")


if __name__ == "__main__":
    main()
