from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from limbeck.core.judged_texts import Document, Example, Query
from limbeck.core.kinds import find
from limbeck.core.kinds.embedding import mean_cosine, neighbor_overlap
from limbeck.core.metrics import check_form, check_informative, metrics_of
from limbeck.core.vector_storage import int8, signs
from limbeck.errors import InputError

KIND = find("embedding")


def test_cosines_of_joined_vectors_equal_a_loop():
    rows = np.random.default_rng(0).normal(size=(5, 8))
    expected = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(rows[:, :4], rows[:, 4:], strict=True)]
    np.testing.assert_allclose(KIND.decode(rows), expected)


def test_spearman_reads_the_order_of_the_scores_alone():
    rows = np.array([[1, 0, 1, 0], [1, 0, 1, 1], [1, 0, 0, 1]], dtype=float)
    assert KIND.score("spearman", (), rows, [5.0, 4.9, -3.0]) == pytest.approx(1)
    assert KIND.score("spearman", (), rows, [0.0, 1.0, 2.0]) == pytest.approx(-1)


def test_fidelity_of_the_same_vectors_in_another_length_is_whole():
    vectors = np.random.default_rng(0).normal(size=(30, 6))
    assert mean_cosine(3 * vectors, vectors) == pytest.approx(1)
    assert neighbor_overlap(3 * vectors, vectors) == 1
    result = KIND.assess("mean_cosine", (), list(3 * vectors), [tuple(row) for row in vectors])
    assert result.quality.value == pytest.approx(1)
    assert result.beside["neighbor_overlap"].value == 1


def test_neighbors_equal_a_search_text_by_text():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 25, 4))

    def near(vectors, row):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        others = [other for other in range(len(unit)) if other != row]
        return set(sorted(others, key=lambda other: -float(unit[row] @ unit[other]))[:10])

    expected = np.mean([len(near(first, row) & near(second, row)) / 10 for row in range(25)])
    assert neighbor_overlap(first, second) == pytest.approx(expected)


def test_a_single_text_has_no_neighbors_to_lose():
    assert neighbor_overlap([[1.0, 2.0]], [[3.0, 1.0]]) == 1


def search(documents, itself=None):
    """The labels of a search by one query."""
    return [*map(Document, range(documents)), Query(((0, 1.0),), itself)]


@pytest.mark.parametrize(
    ("metric", "few", "enough"),
    [
        ("neighbor_overlap", [()] * 11, [()] * 12),
        ("recall_at_100", search(100), search(101)),
        ("recall_at_100", search(101, itself=5), search(102, itself=5)),
    ],
)
def test_a_metric_that_is_the_same_for_all_vectors_is_refused(metric, few, enough):
    with pytest.raises(InputError, match=f"split test: .*{metric}, the share .* is 1 for any vectors"):
        check_informative("embedding", metric, "test", few)
    check_informative("embedding", metric, "test", enough)
    for other in {"mean_cosine", "ndcg_at_10"}:
        check_informative("embedding", other, "test", few)
    rng = np.random.default_rng(6)
    values = []
    for labels in (few, enough):
        vectors = rng.normal(size=(3, len(labels), 4))
        truths = [tuple(row) for row in rng.normal(size=(len(labels), 4))] if metric == "neighbor_overlap" else labels
        values.append([KIND.score(metric, (), each, truths) for each in vectors])
    assert values[0] == [1, 1, 1]
    assert metric == "recall_at_100" or min(values[1]) < 1


@pytest.mark.parametrize("size", [11, 12])
def test_stored_vectors_lose_nothing_that_a_few_texts_could_show(size):
    rng = np.random.default_rng(5)
    labels = [tuple(row) for row in rng.normal(size=(size, 80))]
    result = KIND.assess("mean_cosine", (), rng.normal(size=(size, 80)), labels)
    assert bool(result.detail["stored"]) == ("neighbor_overlap" in result.beside) == (size == 12)


@pytest.mark.parametrize("documents", [100, 101])
def test_a_search_in_few_documents_has_no_recall(documents):
    labels = search(documents)
    vectors = np.random.default_rng(5).normal(size=(len(labels), 80))
    result = KIND.assess("ndcg_at_10", (), vectors, labels)
    assert result.detail["stored"]
    assert ("recall_at_100" in result.beside) == (documents == 101)
    assert bool(KIND.assess("recall_at_100", (), vectors, labels).detail["stored"]) == (documents == 101)


RNG = np.random.default_rng(4)
FORMS = {
    "scores": ([0.5, 1.0, 3.0, 2.0, 0.0], RNG.normal(size=(5, 8))),
    "vectors": ([tuple(row) for row in RNG.normal(size=(5, 4))], RNG.normal(size=(5, 4))),
    "search": ([*map(Document, range(3)), Query(((1, 1.0),)), Query(((0, 2.0),))], RNG.normal(size=(5, 4))),
    "probe": ([Example(row % 2, row < 3) for row in range(5)], RNG.normal(size=(5, 4))),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_metric_is_accepted_where_it_can_be_computed(form):
    labels, vectors = FORMS[form]
    fitting = KIND.form_of(labels).metrics
    assert len(fitting) == {"scores": 3, "probe": 1}.get(form, 2)
    for name in metrics_of("embedding"):
        if name in fitting:
            check_form("embedding", name, labels)
            assert -1 <= KIND.score(name, (), vectors, labels) <= 1
            assert np.isfinite(KIND.assess(name, (), list(vectors), labels).quality.value)
        else:
            with pytest.raises(InputError, match=f"metric '{name}' does not fit labels that are "):
                check_form("embedding", name, labels)


def test_every_metric_fits_some_labels():
    assert {name for labels, _ in FORMS.values() for name in KIND.form_of(labels).metrics} == set(
        metrics_of("embedding")
    )


def test_answers_are_alike_up_to_a_small_angle():
    same = KIND.same_answers([np.array([1.0, 0.0])] * 2, [np.array([1.0, 0.01]), np.array([0.0, 1.0])], [0, 0])
    assert same.tolist() == [True, False]


def test_what_stored_vectors_lose_is_measured_on_the_same_rows():
    rng = np.random.default_rng(2)
    rows, scores = rng.normal(size=(60, 2 * 80)), rng.normal(size=60)
    assessed = KIND.assess("spearman", (), rows, scores)
    stored = assessed.detail["stored"]
    assert [(name, row["bytes"]) for name, row in stored.items()] == [("int8", 80), ("binary", 10), ("first 64", 256)]
    for name, read in (("int8", int8), ("binary", signs), ("first 64", lambda vectors: vectors[:, :64])):
        value = KIND.score("spearman", (), read(rows.reshape(120, 80)).reshape(60, -1), scores)
        assert stored[name]["value"] == pytest.approx(value)
        assert stored[name]["loss"] == pytest.approx(assessed.quality.value - value)
        assert stored[name]["loss_low"] <= stored[name]["loss"] <= stored[name]["loss_high"]
    assert abs(stored["int8"]["loss"]) < 0.02 < stored["binary"]["loss_high"]


def test_stored_vectors_are_compared_with_the_neighbors_of_whole_ones():
    vectors = np.random.default_rng(3).normal(size=(60, 80))
    stored = KIND.assess("mean_cosine", (), list(vectors), [tuple(row) for row in vectors]).detail["stored"]
    assert {row["metric"] for row in stored.values()} == {"neighbor_overlap"}
    assert stored["binary"]["value"] == pytest.approx(neighbor_overlap(signs(vectors), vectors))
    assert stored["int8"]["loss"] < stored["binary"]["loss"]


def test_the_metrics_of_a_search_are_there_before_any_other_kind_was_used():
    code = "from limbeck.core.metrics import metrics_of; print(*metrics_of('embedding'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"ndcg_at_10", "recall_at_100"} <= set(done.stdout.split())
