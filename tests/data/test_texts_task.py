from __future__ import annotations

import csv
import json

import pytest

from limbeck.core.kinds import KINDS
from limbeck.data.config import Options
from limbeck.data.corpus.documents import normal
from limbeck.data.loading import check_task, load_task
from limbeck.data.texts_task import LEAST, MOST_HELD_OUT, check_options, texts_task
from limbeck.errors import InputError

TEXTS = tuple(f"text number {number}" for number in range(200))


def options(**changes):
    return Options.parse({"texts": TEXTS, **changes})


def read(*given):
    return texts_task(*given, load_task)


def test_texts_are_divided_by_the_seed_and_none_is_in_two_splits():
    task = read(options(), "classification", ("no", "yes"))
    assert {name: len(rows) for name, rows in task.splits.items()} == {"train": 160, "validation": 20, "test": 20}
    assert sorted(text for rows in task.splits.values() for text in rows.texts) == sorted(TEXTS)
    assert read(options(), "classification", ("no", "yes")).fingerprint == task.fingerprint
    assert read(options(seed=1), "classification", ("no", "yes")).fingerprint != task.fingerprint
    assert task.metric == "agreement"


def test_repeated_and_empty_texts_are_left_out():
    task = read(options(texts=(*TEXTS, "", " ", *TEXTS[:7])), "classification", ("no", "yes"))
    assert sum(map(len, task.splits.values())) == len(TEXTS)
    assert any("9 repeated or empty texts left out" in note for note in task.notes)


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_are_never_in_two_splits(seed):
    near = tuple(variant for text in TEXTS for variant in (text, text.upper(), f" {text}!", text.replace(" ", "  ")))
    task = read(options(texts=near, seed=seed), "classification", ("no", "yes"))
    keys = {name: [normal(text) for text in rows.texts] for name, rows in task.splits.items()}
    assert {name: len(rows) for name, rows in keys.items()} == {"train": 4 * 160, "validation": 20, "test": 20}
    assert sum(len(set(rows)) for rows in keys.values()) == len(set().union(*keys.values())) == len(TEXTS)
    assert any("120 repeated or empty texts left out" in note for note in task.notes)


def test_not_more_is_held_out_than_needed():
    texts = tuple(map(str, range(20 * MOST_HELD_OUT)))
    task = read(options(texts=texts), "regression", ())
    assert len(task.split("test")) == len(task.split("validation")) == MOST_HELD_OUT


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KINDS[kind].grouped])
def test_every_kind_takes_texts(kind):
    names = () if KINDS[kind].numeric else ("O", "B-PER", "I-PER")
    task = read(options(), kind, names)
    assert task.metric == KINDS[kind].fidelity_metric(names)
    if KINDS[kind].per_token:
        assert task.split("train").texts[0][:2] == ("text", "number")


def test_requests_are_held_out_whole(tmp_path):
    rows = [f"query {row // 12}\tdocument {row}" for row in range(120)]
    (tmp_path / "pairs.txt").write_text("\n".join(rows))
    task = read(options(texts=str(tmp_path / "pairs.txt"), text="0", pair="1"), "rerank", ())
    assert task.metric == "overlap_at_10"
    queries = [set(split.texts) for split in task.splits.values()]
    assert sum(map(len, queries)) == len(set().union(*queries)) == 10
    assert len(task.split("test")) == len(task.split("validation")) == 12
    with pytest.raises(InputError, match="a query and a document in each row"):
        read(options(), "rerank", ())


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
def test_files_are_read_as_other_texts_are(tmp_path, suffix):
    path = tmp_path / f"calls{suffix}"
    with open(path, "w", newline="") as file:
        if suffix == ".txt":
            file.write("\n".join(TEXTS) + "\n\n")
        elif suffix == ".csv":
            csv.writer(file).writerows([["id", "text"], *enumerate(TEXTS)])
        else:
            file.writelines(json.dumps({"text": text}) + "\n" for text in TEXTS)
    task = read(options(texts=str(path)), "classification", ("no", "yes"))
    assert sorted(text for rows in task.splits.values() for text in rows.texts) == sorted(TEXTS)
    assert task.name == "calls"


def test_pairs_have_two_columns(tmp_path):
    path = tmp_path / "pairs.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["question", "answer"], *((text, text[::-1]) for text in TEXTS)])
    task = read(options(texts=str(path), text="question", pair="answer"), "classification", ("no", "yes"))
    assert task.split("test").pairs == tuple(text[::-1] for text in task.split("test").texts)


def test_each_text_of_a_pair_has_a_vector_of_its_own(tmp_path):
    (tmp_path / "pairs.txt").write_text("\n".join(f"{TEXTS[row % 7]}\tanswer {row}" for row in range(100)))
    task = read(options(texts=str(tmp_path / "pairs.txt"), text="0", pair="1"), "embedding", ())
    assert all(split.pairs is None for split in task.splits.values())
    texts = [text for split in task.splits.values() for text in split.texts]
    assert sorted(texts) == sorted([*TEXTS[:7], *(f"answer {row}" for row in range(100))])
    assert "pairs.txt: 93 repeated or empty texts left out" in task.notes


@pytest.mark.parametrize(
    ("kind", "metric", "message"),
    [
        ("embedding", "spearman", "labels that are the vectors of a model; .*'mean_cosine', 'neighbor_overlap'"),
        ("embedding", "probe_accuracy", "labels that are the vectors of a model; .*'mean_cosine', 'neighbor_overlap'"),
        ("rerank", "ndcg_at_10", "scores by which no document is relevant; .*'overlap_at_10'"),
        ("rerank", "mrr_at_10", "scores by which no document is relevant; .*'overlap_at_10'"),
    ],
)
def test_a_metric_of_other_labels_is_refused(tmp_path, kind, metric, message):
    (tmp_path / "pairs.txt").write_text("\n".join(f"query {row // 12}\tdocument {row}" for row in range(60)))
    given = {"texts": str(tmp_path / "pairs.txt"), "text": "0", "pair": "1"} if kind == "rerank" else {}
    with pytest.raises(InputError, match=message):
        read(options(**given, metric=metric), kind, ())


def test_a_metric_that_too_few_texts_make_the_same_for_all_vectors_is_refused():
    assert read(options(metric="neighbor_overlap"), "embedding", ()).metric == "neighbor_overlap"
    for few in ({"texts": TEXTS[:110]}, {"limit": {"validation": 11}}):
        with pytest.raises(InputError, match=r"split validation: neighbor_overlap.* at most 11 texts, got 11"):
            read(options(**few, metric="neighbor_overlap"), "embedding", ())


def test_few_texts_are_refused():
    with pytest.raises(InputError, match=f"has 3 different texts; at least {LEAST} are needed"):
        read(options(texts=("a", "b", "c", "a")), "classification", ("no", "yes"))


def test_options_without_a_meaning_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(InputError, match="'label': has no meaning for texts without labels"):
        check_options(options(label="stars"), ["texts", "label"])
    with pytest.raises(InputError, match="nowhere"):
        check_task({"texts": "nowhere.txt"}, base=tmp_path)
    with pytest.raises(InputError, match="need a model that answers them"):
        load_task({"texts": "nowhere.txt"}, base=tmp_path)
