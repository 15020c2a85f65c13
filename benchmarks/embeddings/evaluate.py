"""Compare embedding models on three tasks: STS-B, retrieval on Cranfield, and Banking77 from eight examples an intent.

    python benchmarks/embeddings/evaluate.py benchmarks/data full=minilm-l6 small=runs/embeddings-minilm/artefact

Each model is a name and a folder: of limbeck (its ONNX file, if config.json names one) or of sentence-transformers. The
first is the reference. Texts are answered one by one in INT8, since a batch shares ranges.

- STS-B test: Spearman of cosines and scores, 1,379 pairs.
- Cranfield: nDCG@10 and recall@100 over 1,400 documents, binary relevance, 225 queries.
- Banking77: accuracy of a logistic regression on 8 training vectors for each of 77 intents, 3,080 test texts; mean of
  ten draws of the 8.

Prints a table with 95 % intervals (bootstrap over pairs, queries or texts), and of what remains of the reference's
value, paired on the same rows. ``--json FILE`` keeps the figures.
"""

import argparse
import csv
import json
import os
import random
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from limbeck.core.retrieval import ndcg, order, recall
from limbeck.core.task import Split, Task
from limbeck.data.batching import encode, predict
from limbeck.data.beir import read_beir
from limbeck.model.checkpoints import open_model, peek

SHOTS, DRAWS, RESAMPLES = 8, 10, 1000


class Model:
    """Vectors of texts, of length 1."""

    def __init__(self, folder: str) -> None:
        self.model, self.tokenizer = open_model(folder)
        self.most = peek(folder)["max_length"]

    def __call__(self, texts: list[str]) -> np.ndarray:
        split = Split(tuple(text or "." for text in texts), (0.0,) * len(texts))
        length = min(self.most, self.tokenizer.model_max_length)
        task = Task("texts", "embedding", {"test": split}, (), "spearman", max_length=length)
        encoded = encode(task, "test", self.tokenizer)
        return normalize(np.stack(list(predict(self.model, encoded, 1 if self.model.int8 else 32))))


def similarity(model: Model, data: Path) -> tuple[np.ndarray, np.ndarray]:
    with open(data / "stsb" / "test.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    first, second = (model([row[side] for row in rows]) for side in (0, 1))
    return (first * second).sum(1), np.array([float(row[2]) for row in rows])


def retrieval(model: Model, data: Path) -> dict[str, np.ndarray]:
    task = read_beir(data / "cranfield").binary()
    documents = model(list(task.documents.values()))
    queries = model(list(task.queries.values()))
    names, scores = np.array(list(task.documents)), queries @ documents.T
    ranked = [names[order(row)].tolist() for row in scores]
    pairs = list(zip(task.queries, ranked, strict=True))
    return {
        "ndcg@10": np.array([ndcg(row, task.judgments[query]) for query, row in pairs]),
        "recall@100": np.array([recall(row, task.relevant(query)) for query, row in pairs]),
    }


def probe(model: Model, data: Path) -> np.ndarray:
    splits = {}
    for name in ("train", "test"):
        with open(data / "banking77" / f"{name}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[1:]
        splits[name] = (model([row[0] for row in rows]), np.array([row[1] for row in rows]))
    (vectors, labels), (test, truth) = splits["train"], splits["test"]
    right = np.zeros(len(truth))
    for draw in range(DRAWS):
        choose = random.Random(draw)
        rows = [
            row
            for label in sorted(set(labels))
            for row in choose.sample(np.flatnonzero(labels == label).tolist(), SHOTS)
        ]
        learned = LogisticRegression(max_iter=1000, C=10.0).fit(vectors[rows], labels[rows])
        right += learned.predict(test) == truth
    return right / DRAWS


def figures(rows: dict[str, dict[str, np.ndarray]], scores: np.ndarray, reference: str) -> dict[str, dict[str, list]]:
    """Return, for each model and figure, the value with its interval and what remains of the reference's."""
    statistics = {
        "stsb": lambda values, index: spearmanr(values[index], scores[index]).statistic,
        **{name: (lambda values, index: values[index].mean()) for name in ("ndcg@10", "recall@100", "probe")},
    }
    results: dict[str, dict[str, list]] = {name: {} for name in rows}
    for figure, statistic in statistics.items():
        count = len(rows[reference][figure])
        rng = np.random.default_rng(0)
        draws = [np.arange(count), *(rng.integers(0, count, count) for _ in range(RESAMPLES))]
        base = np.array([statistic(rows[reference][figure], index) for index in draws])
        for name, values in rows.items():
            own = np.array([statistic(values[figure], index) for index in draws])
            spans = [[each[0], *np.quantile(each[1:], [0.025, 0.975])] for each in (own, own / base)]
            results[name][figure] = [[round(float(value), 4) for value in span] for span in spans]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, scores = {}, np.empty(0)
    for given in arguments.models:
        name, _, folder = given.partition("=")
        model = Model(folder)
        cosines, scores = similarity(model, arguments.data)
        rows[name] = {"stsb": cosines, **retrieval(model, arguments.data), "probe": probe(model, arguments.data)}
        print(f"{name}: done", flush=True)
    results = figures(rows, scores, next(iter(rows)))
    for name, values in results.items():
        for figure, ((value, low, high), (share, least, most)) in values.items():
            print(
                f"{name:20} {figure:12} {100 * value:5.1f} [{100 * low:.1f}, {100 * high:.1f}]   "
                f"{100 * share:5.1f} % of the reference [{100 * least:.1f}, {100 * most:.1f}]"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
