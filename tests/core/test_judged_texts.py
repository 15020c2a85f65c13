from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from limbeck.core.judged_texts import Document, Example, Query, by_row, column, is_judged, metrics_for


def search(rng, documents=40, queries=9, width=6):
    """Vectors and labels of a search, in random order, and the gains of each query."""
    gains = [
        {int(d): float(rng.integers(0, 4)) for d in rng.choice(documents, 5, replace=False)} for _ in range(queries)
    ]
    labels = [Document(number) for number in range(documents)] + [Query(tuple(own.items())) for own in gains]
    order = rng.permutation(len(labels))
    vectors = rng.normal(size=(len(labels), width))
    return vectors[order], [labels[row] for row in order]


def test_ndcg_and_recall_equal_a_loop_over_queries():
    vectors, labels = search(np.random.default_rng(0))
    documents = {
        label.number: vector for label, vector in zip(labels, vectors, strict=True) if isinstance(label, Document)
    }
    ndcgs, recalls = [], []
    for label, vector in zip(labels, vectors, strict=True):
        if not isinstance(label, Query) or not any(gain > 0 for _, gain in label.gains):
            continue
        cosine = {n: v @ vector / np.linalg.norm(v) / np.linalg.norm(vector) for n, v in documents.items()}
        ranked = sorted(cosine, key=lambda number: -cosine[number])
        gains = dict(label.gains)
        ideal = sorted(gains.values(), reverse=True)
        discounted = [
            sum(g / np.log2(i + 2) for i, g in enumerate(row[:10]))
            for row in ([gains.get(number, 0.0) for number in ranked], ideal)
        ]
        ndcgs.append(discounted[0] / discounted[1])
        relevant = {number for number, gain in gains.items() if gain > 0}
        recalls.append(len(relevant & set(ranked[:100])) / len(relevant))
    np.testing.assert_allclose(by_row("ndcg_at_10", vectors, labels), ndcgs)
    np.testing.assert_allclose(by_row("recall_at_100", vectors, labels), recalls)


def test_metrics_equal_those_of_sentence_transformers():
    evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
    vectors, labels = search(np.random.default_rng(1), documents=150)
    names = {str(n): ("d", label.number) if isinstance(label, Document) else ("q", n) for n, label in enumerate(labels)}
    documents = {str(label.number): "" for label in labels if isinstance(label, Document)}
    queries = {
        key: "" for key, (form, _) in names.items() if form == "q" and any(g > 0 for _, g in labels[int(key)].gains)
    }
    binary = [
        Query(tuple((n, float(g > 0)) for n, g in label.gains)) if isinstance(label, Query) else label
        for label in labels
    ]
    relevant = {key: {str(n) for n, gain in labels[int(key)].gains if gain > 0} for key in queries}
    evaluator = evaluation.InformationRetrievalEvaluator(
        queries,
        documents,
        relevant,
        ndcg_at_k=[10],
        precision_recall_at_k=[100],
        mrr_at_k=[1],
        accuracy_at_k=[1],
        map_at_k=[1],
    )
    ranked = [
        [
            {
                "corpus_id": str(label.number),
                "score": float(vectors[row] @ vectors[int(key)] / np.linalg.norm(vectors[row])),
            }
            for row, label in enumerate(labels)
            if isinstance(label, Document)
        ]
        for key in queries
    ]
    ranked = [sorted(hits, key=lambda hit: -hit["score"]) for hits in ranked]
    scores = evaluator.compute_metrics(ranked)
    assert by_row("ndcg_at_10", vectors, binary).mean() == pytest.approx(scores["ndcg@k"][10])
    assert by_row("recall_at_100", vectors, binary).mean() == pytest.approx(scores["recall@k"][100])


def test_a_probe_learns_from_some_texts_and_answers_the_others():
    rng = np.random.default_rng(2)
    classes = rng.integers(0, 3, size=90)
    vectors = rng.normal(size=(90, 4)) + 1.5 * np.eye(3, 4)[classes]
    labels = [Example(int(label), row < 24) for row, label in enumerate(classes)]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    model = LogisticRegression(max_iter=1000).fit(unit[:24], classes[:24])
    rows = by_row("probe_accuracy", vectors, labels)
    assert len(rows) == 66
    assert rows.mean() == pytest.approx(model.score(unit[24:], classes[24:]))


def test_documents_that_are_left_out_are_not_found():
    vectors = np.eye(3)
    labels = [Document(5), Query(((5, 1.0), (9, 1.0))), Document(2)]
    assert by_row("recall_at_100", vectors, labels).tolist() == [0.5]


def test_a_query_that_is_a_document_does_not_find_itself():
    """The other queries do."""
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.0], [0.9, 0.1]])
    labels = [*map(Document, range(3)), Query(((1, 1.0),), 0), Query(((0, 1.0), (2, 0.0)))]
    assert by_row("ndcg_at_10", vectors, labels).tolist() == [1.0, pytest.approx(1 / np.log2(3))]
    assert by_row("ndcg_at_10", vectors[:4], [*labels[:3], Query(((1, 1.0),))]).tolist()[0] < 1


def test_labels_are_told_apart():
    assert is_judged(Document(0))
    assert not is_judged((0.1, 0.2))
    assert column([Document(0), Query(())]).shape == (2,)
    assert metrics_for(Example(0, True)) == ("probe_accuracy",)
