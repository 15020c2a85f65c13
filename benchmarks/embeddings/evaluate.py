"""Compare embedding models on three tasks: STS-B, retrieval on Cranfield, and Banking77 from eight examples an intent.

    python benchmarks/embeddings/evaluate.py benchmarks/data full=minilm-l6 small=runs/embeddings-minilm/artefact

Each model is a name and a folder, of limbeck (its ONNX file, if config.json names one) or of sentence-transformers, or
a file of make_peers.py, as ``openvino:FILE``. The first is the reference of quality, ``--over NAME`` that of speed.

- STS-B test: Spearman of cosines and scores, 1,379 pairs.
- Cranfield: nDCG@10 and recall@100 over 1,400 documents, binary relevance, 225 queries.
- Banking77: accuracy of a logistic regression on 8 training vectors for each of 77 intents, 3,080 test texts; mean of
  ten draws of the 8.

Prints a table with 95 % intervals (bootstrap over pairs, queries or texts), and of what remains of the reference's
value, paired on the same rows. With ``--rounds N`` all models are then timed alternately on sentences of STS-B: one
thread, batch 1, real lengths, from token ids (of model2vec: from the text). ``--json FILE`` keeps the figures.
"""

import argparse
import csv
import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from models import opened, vectors_of
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from limbeck.core.retrieval import ndcg, order, recall
from limbeck.core.statistics import paired_ratio
from limbeck.data.beir import read_beir
from limbeck.measure.timing import alternate

SHOTS, DRAWS, RESAMPLES, TIMED = 8, 10, 1000, 60
Vectors = Callable[[list[str]], np.ndarray]


def similarity(vectors: Vectors, data: Path) -> tuple[np.ndarray, np.ndarray]:
    with open(data / "stsb" / "test.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    first, second = (vectors([row[side] for row in rows]) for side in (0, 1))
    return (first * second).sum(1), np.array([float(row[2]) for row in rows])


def retrieval(vectors: Vectors, data: Path) -> dict[str, np.ndarray]:
    task = read_beir(data / "cranfield").binary()
    documents = vectors(list(task.documents.values()))
    queries = vectors(list(task.queries.values()))
    names, scores = np.array(list(task.documents)), queries @ documents.T
    ranked = [names[order(row)].tolist() for row in scores]
    pairs = list(zip(task.queries, ranked, strict=True))
    return {
        "ndcg@10": np.array([ndcg(row, task.judgments[query]) for query, row in pairs]),
        "recall@100": np.array([recall(row, task.relevant(query)) for query, row in pairs]),
    }


def probe(vectors: Vectors, data: Path) -> np.ndarray:
    splits = {}
    for name in ("train", "test"):
        with open(data / "banking77" / f"{name}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[1:]
        splits[name] = (vectors([row[0] for row in rows]), np.array([row[1] for row in rows]))
    (train, labels), (test, truth) = splits["train"], splits["test"]
    right = np.zeros(len(truth))
    for draw in range(DRAWS):
        choose = random.Random(draw)
        rows = [
            row
            for label in sorted(set(labels))
            for row in choose.sample(np.flatnonzero(labels == label).tolist(), SHOTS)
        ]
        learned = LogisticRegression(max_iter=1000).fit(train[rows], labels[rows])
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


def timed(models: dict[str, object], data: Path, rounds: int, over: str) -> dict[str, list]:
    """Return milliseconds of each model, and the times as fast as another one, each with its interval."""
    with open(data / "stsb" / "test.csv", encoding="utf-8", newline="") as file:
        texts = [row[0] for row in csv.reader(file) if row]
    texts = sorted(texts, key=len)[:: len(texts) // TIMED][:TIMED]
    prepared = [[model.timed(text) for text in texts] for model in models.values()]
    calls = [lambda index, own=own: own[index]() for own in prepared]
    timings = dict(zip(models, alternate(calls, len(texts), rounds, warmup=2), strict=True))
    results = {}
    for name, timing in timings.items():
        times = [1e3 * value for value in timing.p50]
        results[name] = [times, list(paired_ratio(timings[over].rounds, timing.rounds))]
        (value, low, high), (ratio, least, most) = results[name]
        print(
            f"{name:20} {value:8.3f} ms [{low:.3f}, {high:.3f}]   {ratio:6.2f}x [{least:.2f}, {most:.2f}] over {over}"
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of timing")
    parser.add_argument("--over", help="name of the model that speed is compared with; the first unless given")
    parser.add_argument("--time-only", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    models = {name: opened(place) for name, _, place in (given.partition("=") for given in arguments.models)}
    first, results = next(iter(models)), {}
    if not arguments.time_only:
        rows, scores = {}, np.empty(0)
        for name, model in models.items():
            vectors = partial(vectors_of, model)
            cosines, scores = similarity(vectors, arguments.data)
            rows[name] = {
                "stsb": cosines,
                **retrieval(vectors, arguments.data),
                "probe": probe(vectors, arguments.data),
            }
            print(f"{name}: done", flush=True)
        results = figures(rows, scores, first)
    for name, values in results.items():
        for figure, ((value, low, high), (share, least, most)) in values.items():
            print(
                f"{name:20} {figure:12} {100 * value:5.1f} [{100 * low:.1f}, {100 * high:.1f}]   "
                f"{100 * share:5.1f} % of the reference [{100 * least:.1f}, {100 * most:.1f}]"
            )
    if arguments.rounds:
        times = timed(models, arguments.data, arguments.rounds, arguments.over or first)
        results = {name: {**results.get(name, {}), "time": times[name]} for name in models}
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
