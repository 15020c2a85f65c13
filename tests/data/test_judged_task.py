from __future__ import annotations

import json

import pytest

from limbeck.core.judged_texts import Document, Example, Query
from limbeck.core.sentence_embedding import SentenceEmbedding
from limbeck.core.tokenizer import fit_embedding
from limbeck.data.baseline import baseline
from limbeck.data.batching import encode
from limbeck.data.config import Options
from limbeck.data.judged_task import judged_splits
from limbeck.data.loading import check_task, load_judged, load_task
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError

DOCUMENTS = [{"_id": f"d{n}", "title": "", "text": f"text {n}" if n else ""} for n in range(6)]
HALVES = ("validation", "test")
QUERIES = [{"_id": f"q{n}", "text": f"query {n}"} for n in range(5)]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "beir"
    folder.mkdir()
    for name, records in (("corpus", DOCUMENTS), ("queries", QUERIES)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    (folder / "qrels.tsv").write_text("".join(f"q{n}\td{n}\t2\nq{n}\td5\t1\n" for n in range(4)))
    return folder


@pytest.fixture
def classes(tmp_path):
    folder = tmp_path / "classes"
    folder.mkdir()
    for name, count in (("train", 30), ("validation", 6), ("test", 9)):
        rows = [f"{name} text {n},{'abc'[n % 3]}" for n in range(count)]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return folder


@pytest.fixture
def pairs(tmp_path):
    rows = [{"first": f"one {n}", "second": f"two {n}", "score": n / 4} for n in range(12)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {
        "path": str(tmp_path / "pairs.jsonl"),
        "kind": "embedding",
        "text": "first",
        "pair": "second",
        "label": "score",
    }


def test_one_list_of_judgments_is_divided_into_halves(folder):
    splits, notes = judged_splits(folder, Options(), load_task)
    assert "halves" in notes[0]
    queries = {name: set(split.texts[6:]) for name, split in splits.items()}
    assert queries["validation"] | queries["test"] == {f"query {n}" for n in range(4)}
    assert not queries["validation"] & queries["test"]
    for split in splits.values():
        assert split.labels[:6] == tuple(map(Document, range(6)))
        assert split.texts[0] == "."  # an empty document is still one that may be found
        for text, label in zip(split.texts[6:], split.labels[6:], strict=True):
            assert label == Query(((int(text[-1]), 2.0), (5, 1.0)))


def test_judgments_by_split_are_used_as_they_are(folder):
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").unlink()
    for name, query in (("train", 0), ("dev", 1), ("test", 2)):
        (folder / "qrels" / f"{name}.tsv").write_text(f"q{query}\td{query}\t1\nq{query}\td5\t0\n")
    task = load_task({"path": str(folder), "kind": "embedding"})
    assert task.metric == "ndcg_at_10"
    assert task.split("train").to_rows() == [{"text": "query 0", "pair": ".", "label": {"search": 1.0}}]
    assert task.split("validation").texts[6:] == ("query 1",)
    assert task.split("test").texts[6:] == ("query 2",)


def test_a_query_that_is_a_document_does_not_find_itself(folder):
    queries = [{"_id": "d1", "text": "text 1"}, {"_id": "d2", "text": "another text"}]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "qrels.tsv").write_text("d1\td3\t1\nd2\td3\t1\n")
    task, _ = load_judged({"path": str(folder), "kind": "embedding"})
    assert task.split("test").labels[6:] == (Query(((3, 1.0),), 1), Query(((3, 1.0),)))


def by_split(folder, **queries):
    """Give each split a list of judgments of its own: document n is relevant to query n."""
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").unlink()
    for name, numbers in queries.items():
        lines = [f"q{number}\td{number}\t1\n" for number in numbers]
        (folder / "qrels" / f"{name}.tsv").write_text("".join(lines))


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "test", "others"])
def test_queries_to_train_on_never_judge(folder, pairs, name):
    by_split(folder, train=[0, 4], **{name: [1, 2, 3]})
    task = load_task({"path": str(folder), "kind": "embedding"})
    assert task.split("train").texts == ("query 0", "query 4")
    judged = load_task({**pairs, "judge": str(folder)})
    for splits in (task.splits, judged.splits):
        queries = [text for part in ("validation", "test") for text in splits[part].texts[6:]]
        assert sorted(queries) == ["query 1", "query 2", "query 3"]


def test_pairs_to_train_on_have_the_prompts_of_queries_and_documents(folder, tmp_path):
    by_split(folder, train=[0, 4], test=[1, 2])
    task = load_task({"path": str(folder), "kind": "embedding"})
    tokenizer = toy_tokenizer(toy_task())
    encoded = {}
    for name, prompts in (("none", {}), ("both", {"query": "good ", "document": "bad ", "other": "sunny "})):
        fit_embedding(tokenizer, SentenceEmbedding(prompts=prompts))
        encoded[name] = encode(task, "train", tokenizer)
    good, bad = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("good", "bad"))
    for kind, word in (("input_ids", good), ("pairs", bad)):
        before, after = (getattr(encoded[name], kind) for name in ("none", "both"))
        assert [[ids[0], *word, *ids[1:]] for ids in before] == after
    kept = type(task).from_folder(task.to_folder(tmp_path / "stored"))
    assert encode(kept, "train", tokenizer).pairs == encoded["both"].pairs


def test_judgments_to_train_on_alone_are_refused(folder, pairs):
    by_split(folder, train=range(4))
    for given in ({"path": str(folder), "kind": "embedding"}, {**pairs, "judge": str(folder)}):
        with pytest.raises(InputError, match=r"only judgments are qrels/train.tsv, to train on.*give qrels/test.tsv"):
            load_task(given)


def test_a_probe_learns_from_a_few_texts_of_each_class(classes):
    splits, _ = judged_splits(classes, Options(shots=2), load_task)
    for name, count in (("validation", 6), ("test", 9)):
        labels = splits[name].labels
        learned = [label for label in labels if label.learned]
        assert sorted(label.label for label in learned) == [0, 0, 1, 1, 2, 2]
        assert len(labels) == 6 + count
        assert all(text.startswith("train") for text in splits[name].texts[:6])
        assert isinstance(labels[0], Example)


def test_it_replaces_held_out_rows(pairs, folder, classes):
    task = load_task({**pairs, "judge": str(folder)})
    assert len(task.split("train")) == 12  # nothing is held out
    assert task.metric == "ndcg_at_10"
    assert len(task.split("validation")) == len(task.split("test")) == 8
    assert load_task({**pairs, "judge": str(classes)}).metric == "probe_accuracy"


def test_recall_needs_more_documents_than_it_counts(pairs, folder):
    recall = {**pairs, "judge": str(folder), "metric": "recall_at_100"}
    with pytest.raises(InputError, match="split validation: no query searches more than 100 documents"):
        load_task(recall)
    more = [*DOCUMENTS, *({"_id": f"more{n}", "title": "", "text": f"more {n}"} for n in range(95))]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, more)) + "\n")
    assert load_task(recall).metric == "recall_at_100"


def test_a_task_survives_a_folder(pairs, folder, tmp_path):
    task = load_task({**pairs, "judge": str(folder)})
    again = type(task).from_folder(task.to_folder(tmp_path / "stored"))
    assert again.splits == task.splits


def test_the_baseline_is_one_vector_for_all(pairs, folder, classes):
    score = baseline(load_task({**pairs, "judge": str(folder)}))
    assert score.answer == "always the same vector"
    assert score.quality["test"].n == 2
    probed = baseline(load_task({**pairs, "judge": str(classes)}))
    assert probed.quality["test"].value == pytest.approx(1 / 3)
    assert probed.quality["test"].n == 9


def test_a_search_alone_evaluates_a_model(folder):
    task, split = load_judged({"path": str(folder), "kind": "embedding"})
    assert (split, sorted(task.splits)) == ("test", ["test"])
    assert task.split("test").texts[6:] == tuple(f"query {n}" for n in range(4))
    halves = [load_judged({"path": str(folder), "kind": "embedding"}, "validation")[0].split(name) for name in HALVES]
    assert sorted(text for half in halves for text in half.texts[6:]) == [f"query {n}" for n in range(4)]
    with pytest.raises(InputError, match=r"no qrels/train.tsv to learn from; train on texts or pairs, with judge"):
        load_task({"path": str(folder), "kind": "embedding"})


@pytest.mark.parametrize(
    ("lists", "split", "queries"),
    [
        ({"train": [0], "test": [1, 2, 3]}, "test", [1, 2, 3]),
        ({"train": [0], "dev": [1, 2, 3]}, "test", [1, 2, 3]),
        ({"dev": [1], "test": [2, 3]}, "test", [2, 3]),
        ({"dev": [1, 4], "test": [2, 3]}, "validation", [1, 4]),
        ({"train": [0, 4], "test": [2, 3]}, "train", [0, 4]),
    ],
)
def test_evaluation_takes_the_judgments_of_a_split_whole(folder, lists, split, queries):
    by_split(folder, **lists)
    limit = {"test" if split == "train" else "train": 1}  # of rows that are not read
    task, judged = load_judged({"path": str(folder), "kind": "embedding", "limit": limit}, split)
    assert judged == split
    assert task.split(split).texts[6:] == tuple(f"query {number}" for number in queries)
    assert task.metric == "ndcg_at_10"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "ndcg_at_10"}, "'ndcg_at_10' of vectors needs 'judge'"),
        ({"shots": 4}, "'shots': is for a probe"),
        ({"judge": "nowhere"}, "'judge'.*nowhere"),
        ({"judge": "BEIR", "limit": {"test": 3}}, "limit train alone"),
        ({"judge": "BEIR", "kind": "regression"}, "'judge': is for vectors .*this task is a regression"),
        ({"judge": "BEIR", "candidates": 5}, "'candidates': is for a folder in BEIR's form"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_row_is_read(pairs, folder, options, message):
    given = {**pairs, **options}
    if given.get("judge") == "BEIR":
        given["judge"] = str(folder)
    with pytest.raises(InputError, match=message):
        check_task(given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"judge": "BEIR", "metric": "spearman"}, "'spearman' does not fit labels that are the judgments"),
        ({"judge": "BEIR", "shots": 4}, "'shots': is for texts with classes"),
    ],
)
def test_a_judge_that_does_not_fit_is_refused(pairs, folder, options, message):
    with pytest.raises(InputError, match=message):
        load_task({**pairs, **options, "judge": str(folder)})


def test_a_metric_that_does_not_fit_the_split_to_evaluate_is_refused(pairs, folder):
    given = {"train": pairs.pop("path"), **pairs, "judge": str(folder)}
    assert load_judged(given, "test")[0].metric == "ndcg_at_10"
    with pytest.raises(InputError, match="'ndcg_at_10' does not fit labels that are scores of pairs; choose"):
        load_judged(given, "train")


def test_options_without_a_meaning_for_a_search_are_refused(folder):
    with pytest.raises(InputError, match="for embeddings, data option 'candidates' has no meaning"):
        load_judged({"path": str(folder), "kind": "embedding", "candidates": 5})
