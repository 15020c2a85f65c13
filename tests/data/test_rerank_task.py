from __future__ import annotations

import json

import pytest

from limbeck.core.requests import ideal_gain, requests_of
from limbeck.data.loading import check_task, load_judged, load_task
from limbeck.errors import InputError

pytest.importorskip("bm25s")
TOPICS = ("wing", "heat", "shell", "plate", "jet", "rotor", "nozzle", "cone", "wake", "shock")


@pytest.fixture(autouse=True)
def _store(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LIMBECK_STORE", str(tmp_path_factory.mktemp("store") / "store"))


@pytest.fixture
def folder(tmp_path):
    """Ten topics with a query and five documents each; one relevant document does not have the topic's word."""
    documents = [{"_id": f"{t}{i}", "text": f"the {t} and part {i} of it"} for t in TOPICS for i in range(4)]
    documents += [{"_id": f"{t}-hidden", "text": f"nothing like number {n}"} for n, t in enumerate(TOPICS)]
    queries = [{"_id": f"q-{t}", "text": f"about a {t}"} for t in TOPICS]
    judgments = [f"q-{t}\t{t}{i}\t{4 - i}" for t in TOPICS for i in range(3)] + [
        f"q-{t}\t{t}-hidden\t2" for t in TOPICS
    ]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(judgments))
    return tmp_path


def spec(folder, **options):
    return {"path": str(folder), "candidates": 4, **options}


def by_split(folder, **topics):
    """Divide the one list of judgments into a file for each split."""
    lines = (folder / "qrels.tsv").read_text().splitlines()
    (folder / "qrels.tsv").unlink()
    (folder / "qrels").mkdir()
    for name, chosen in topics.items():
        own = [line for line in lines if line.split("\t")[0].removeprefix("q-") in chosen]
        (folder / "qrels" / f"{name}.tsv").write_text("\n".join(own))


def test_requests_have_the_candidates_of_the_first_stage(folder):
    task = load_task(spec(folder))
    assert (task.kind, task.metric) == ("rerank", "ndcg_at_10")
    assert [len(requests_of(task.split(name).labels)) for name in ("train", "validation", "test")] == [6, 2, 2]
    test = task.split("test")
    for rows in requests_of(test.labels):
        topic = test.texts[rows[0]].split()[-1]
        assert len(rows) == 4
        assert all(topic in test.pairs[row] for row in rows)
        assert {test.labels[row][1] for row in rows} == {4.0, 3.0, 2.0, 0.0}
        # the relevant document that is no candidate counts in the best ranking
        assert all(test.labels[row][2] == pytest.approx(ideal_gain([4, 3, 2, 2])) for row in rows)


def test_relevant_documents_are_added_to_training_alone(folder):
    task = load_task(spec(folder))
    train = task.split("train")
    assert all(len(rows) == 5 for rows in requests_of(train.labels))
    assert sum("nothing like" in text for text in train.pairs) == 6
    assert not any("nothing like" in text for name in ("validation", "test") for text in task.split(name).pairs)
    assert any("finds 75.0% of the relevant documents" in note for note in task.notes)


def test_every_query_is_tested_in_one_fold(folder):
    tested = [set(load_task(spec(folder, fold=fold)).split("test").texts) for fold in range(5)]
    assert sorted(query for queries in tested for query in queries) == sorted(f"about a {topic}" for topic in TOPICS)
    assert set(load_task(spec(folder, seed=1)).split("test").texts) != tested[0]
    for fold in range(5):
        task = load_task(spec(folder, fold=fold))
        queries = [set(task.split(name).texts) for name in task.splits]
        assert not any(a & b for i, a in enumerate(queries) for b in queries[:i])


def test_judgments_by_split_are_taken_as_they_are(folder):
    by_split(folder, train=TOPICS[:8], test=TOPICS[8:])
    task = load_task(spec(folder))
    assert set(task.split("test").texts) == {f"about a {topic}" for topic in TOPICS[8:]}
    assert len(requests_of(task.split("train").labels)) == 7  # one is held out, without what was added
    assert len(task.split("validation")) == 4
    with pytest.raises(InputError, match="judgments by split"):
        load_task(spec(folder, folds=3))


@pytest.mark.parametrize("seed", range(3))
def test_a_validation_split_held_out_of_train_has_the_candidates_alone(folder, seed):
    """The first stage gives fewer documents than are asked for, and not as many for each query."""
    by_split(folder, train=TOPICS[:8], test=TOPICS[8:])
    results = {topic: [f"{topic}{i}" for i in range(2 + number % 2)] for number, topic in enumerate(TOPICS)}
    lines = [
        f"q-{topic} Q0 {d} 1 {9 - i} mine" for topic, documents in results.items() for i, d in enumerate(documents)
    ]
    (folder / "run.trec").write_text("\n".join(lines))
    task = load_task({"path": str(folder), "first_stage": str(folder / "run.trec"), "seed": seed})
    for name in ("validation", "test"):
        split = task.split(name)
        for rows in requests_of(split.labels):
            documents = results[split.texts[rows[0]].split()[-1]]
            assert [split.pairs[row] for row in rows] == [f"the {d[:-1]} and part {d[-1]} of it" for d in documents]
    assert sum("nothing like" in text for text in task.split("train").pairs) == 7


def test_evaluation_reads_the_same_fold(folder):
    task, split = load_judged(spec(folder, fold=2))
    assert split == "test"
    assert task.split("test") == load_task(spec(folder, fold=2)).split("test")


def test_evaluation_takes_one_list_of_judgments_whole(folder):
    task, split = load_judged(spec(folder, limit={"train": 8}))
    assert (split, sorted(task.splits)) == ("test", ["test"])
    assert set(task.split("test").texts) == {f"about a {topic}" for topic in TOPICS}
    assert not any("nothing like" in text for text in task.split("test").pairs)
    assert any("fold: 0 takes those that it has not seen" in note for note in task.notes)
    held_out, _ = load_judged(spec(folder), "validation")
    assert held_out.split("validation") == load_task(spec(folder)).split("validation")


@pytest.mark.parametrize(
    ("lists", "split", "topics"),
    [
        ({"dev": TOPICS[:3], "test": TOPICS[3:8]}, "test", TOPICS[3:8]),
        ({"dev": TOPICS[:3], "test": TOPICS[3:8]}, "validation", TOPICS[:3]),
        ({"train": TOPICS[:6], "test": TOPICS[6:]}, "test", TOPICS[6:]),
        ({"train": TOPICS[:6], "test": TOPICS[6:]}, "train", TOPICS[:6]),
    ],
)
def test_evaluation_needs_the_judgments_of_its_split_alone(folder, lists, split, topics):
    by_split(folder, **lists)
    task, _ = load_judged(spec(folder), split)
    assert set(task.split(split).texts) == {f"about a {topic}" for topic in topics}
    assert not any("nothing like" in text for text in task.split(split).pairs)
    with pytest.raises(InputError, match="judgments by split"):
        load_judged(spec(folder, folds=3), split)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "score"}, "data option 'label' has no meaning for it"),
        ({"kind": "regression"}, "is of kind rerank or embedding, not regression"),
        ({"fold": 5}, "'fold': should be at most 4, of 5 folds, got 5"),
        ({"candidates": 1}, "'candidates': should be at least 2"),
        ({"folds": 1}, "'folds': should be at least 2"),
        ({"metric": "accuracy"}, "metric 'accuracy' does not fit a rerank task"),
        ({"folds": 200}, "10 judged queries cannot be divided into 200 folds"),
    ],
)
def test_bad_options_are_named(folder, options, message):
    with pytest.raises(InputError, match=message):
        load_task(spec(folder, **options))


def test_options_are_checked_before_anything_is_read(folder):
    check_task(spec(folder, metric="mrr_at_10"))
    (folder / "qrels.tsv").unlink()
    with pytest.raises(InputError, match="'pair' has no meaning"):
        check_task(spec(folder, pair="text"))


def test_other_data_take_none_of_these_options(tmp_path):
    lines = [json.dumps({"query": f"q{row // 2}", "document": f"d{row}", "score": row % 2}) for row in range(8)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    given = {"path": str(tmp_path), "kind": "rerank", "candidates": 5}
    for load in (load_task, check_task):
        with pytest.raises(InputError, match="'candidates': is for a folder in BEIR's form"):
            load(given)
