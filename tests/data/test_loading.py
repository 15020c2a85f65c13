"""What a person can name as data, and what is said when there is no such thing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from limbeck.data.loading import NAMED, check_task, load_judged, load_task
from limbeck.errors import InputError

ROWS = "a good one,up\na bad one,down\nanother,up\n"
HEADED = "text,label\n" + ROWS


@pytest.fixture(scope="module")
def reviews():
    return load_task("movie-reviews")


def test_movie_reviews_are_embedded(reviews):
    assert {name: len(split) for name, split in reviews.splits.items()} == {
        "train": 7570,
        "validation": 1000,
        "test": 1500,
    }
    assert (reviews.name, reviews.metric, reviews.label_names) == (
        "movie-reviews",
        "accuracy",
        ("negative", "positive"),
    )
    assert set(reviews.split("test").labels) == {0, 1}
    assert reviews.notes == ()
    assert reviews.fingerprint == "6c80906513423d1c"


def test_their_origin_is_stated(reviews):
    folder = Path(NAMED["movie-reviews"]["train"]).parent
    text = (folder / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert all(word in text for word in ("Pang", "Hutto", "ICWSM 2014", "MIT", "SST-2"))


def test_options_change_a_named_task(reviews):
    task = load_task({"path": "movie_reviews", "limit": {"train": 100, "test": 10}, "max_length": 64, "name": "few"})
    assert (task.name, task.max_length, len(task.split("train")), len(task.split("test"))) == ("few", 64, 100, 10)
    assert set(task.split("train").texts) < set(reviews.split("train").texts)


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "dev"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
def test_a_folder_of_splits(tmp_path, validation, suffix):
    for name in ("train", validation, "test"):
        text = HEADED if suffix == ".csv" else HEADED.replace(",", "\t")
        (tmp_path / f"{name}{suffix}").write_text(text)
    task = load_task(tmp_path.name, base=tmp_path.parent)
    assert sorted(task.splits) == ["test", "train", "validation"]
    assert task.name == tmp_path.name
    assert task == load_task(tmp_path)


def test_files_without_header_by_number(tmp_path):
    (tmp_path / "a.tsv").write_text(ROWS.replace(",", "\t"))
    (tmp_path / "b.tsv").write_text("down\ta bad one\nup\tmore\n")
    task = load_task({"train": "a.tsv", "validation": "a.tsv", "test": "a.tsv"}, base=tmp_path)
    assert task.split("test").texts == ("a good one", "a bad one", "another")
    task = load_task({"train": "b.tsv", "validation": "b.tsv", "text": 1, "label": "0"}, base=tmp_path)
    assert task.split("train").texts == ("a bad one", "more")
    assert task.label_names == ("down", "up")


def test_header_false_is_respected(tmp_path):
    (tmp_path / "train.csv").write_text(HEADED)
    task = load_task({"path": str(tmp_path / "train.csv"), "header": False, "kind": "classification"})
    assert task.label_names == ("down", "label", "up")


def test_a_single_file_gets_a_validation_part(tmp_path):
    (tmp_path / "mine.csv").write_text(HEADED)
    task = load_task(tmp_path / "mine.csv")
    assert task.name == "mine"
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 2, "validation": 1}


def test_a_delimiter(tmp_path):
    (tmp_path / "train.csv").write_text('text;label\n"semi;colon";up\nb;down\n')
    task = load_task({"path": str(tmp_path / "train.csv"), "delimiter": ";"})
    assert "semi;colon" in (*task.split("train").texts, *task.split("validation").texts)


def test_a_stored_task_is_opened_again(tmp_path, reviews):
    small = reviews.limit(train=20, validation=10, test=5)
    small.to_folder(tmp_path)
    assert load_task(tmp_path) == small
    again = load_task({"path": str(tmp_path), "limit": {"train": 10}, "name": "smaller"})
    assert (again.name, len(again.split("train"))) == ("smaller", 10)
    with pytest.raises(InputError, match="takes limit, seed and name, not metric"):
        load_task({"path": str(tmp_path), "metric": "f1"})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("movie-review", r"no task and no folder 'movie-review'; did you mean 'movie-reviews'\?"),
        ("qnly", "did you mean 'qnli'"),
        ("mydatta", "did you mean 'mydata'"),
        ("zzzzzzzz", "choose from 'cola'"),
        ("mydata/trian.csv", "did you mean 'train.csv'"),
        ("nowhere/train.csv", "nor a folder"),
        ("empty", "it holds no data files"),
        ({}, "no train split, no path"),
        ({"test": "mydata/train.csv"}, "no train split, only test"),
        ({"train": "mydata/train.csv", "test": "mydata/tset.csv"}, "tset.csv: there is no such file"),
        ({"train": "mydata/train.csv", "validation": "mydata"}, "is a folder"),
        ({"path": "mydata", "train": "x.csv"}, "give either path or train, not both"),
        ({"path": "mydata", "metrik": "x"}, "no option 'metrik'; did you mean 'metric'"),
        ({"path": "mydata", "header": "perhaps"}, "data option 'header': .* got 'perhaps'"),
        ({"path": "mydata", "kind": "regresion"}, "data option 'kind'.*'regression'"),
        ({"path": "mydata", "limit": {"train": "many"}}, "data option 'limit'"),
        ({"path": "mydata", "limit": {"trian": 3}}, "did you mean 'train'"),
        ({"path": "mydata", "metric": "akkuracy"}, "did you mean 'accuracy'"),
        ({"path": "mydata", "max_length": 0}, "max_length"),
    ],
)
def test_what_cannot_be_found(tmp_path, spec, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "mydata").mkdir()
    (tmp_path / "mydata" / "train.csv").write_text(HEADED)
    (tmp_path / "mydata" / "dev.csv").write_text(HEADED)
    for call in (check_task, load_task):
        with pytest.raises(InputError, match=message):
            call(spec, base=tmp_path)


@pytest.mark.parametrize("name", NAMED)
def test_every_named_task_checks_without_reading(name):
    check_task(name)
    check_task({"path": name, "limit": {"train": 10}})


def test_checking_reads_nothing(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"\xff\xff")
    check_task(str(tmp_path))
    shutil.rmtree(tmp_path)
    with pytest.raises(InputError):
        check_task(str(tmp_path))


def test_a_single_file_is_judged_whole(tmp_path):
    (tmp_path / "rows.csv").write_text(HEADED)
    task, split = load_judged(tmp_path / "rows.csv")
    assert (split, len(task.split("test")), sorted(task.splits)) == ("test", 3, ["test"])
    task, split = load_judged(tmp_path / "rows.csv", "train")
    assert (split, len(task.split("train"))) == ("train", 2)
    (tmp_path / "rows.csv").write_text("text,label\na good one,up\n")
    task, _ = load_judged(tmp_path / "rows.csv")
    assert task.label_names == ("up",)
    with pytest.raises(InputError, match="a single row"):
        load_task(tmp_path / "rows.csv")


def test_a_folder_is_judged_by_its_test_split(tmp_path, reviews):
    (tmp_path / "test.csv").write_text(HEADED)
    task, split = load_judged(tmp_path)
    assert (split, len(task.split(split))) == ("test", 3)
    assert len(load_judged({"test": "test.csv"}, base=tmp_path)[0].split("test")) == 3
    for spec, split in ((tmp_path, "validation"), (tmp_path, "train")):
        with pytest.raises(InputError, match=f"no split '{split}'"):
            load_judged(spec, split)
    with pytest.raises(InputError, match="no train split"):
        load_task(tmp_path)
    assert load_judged("movie-reviews") == (reviews, "test")
