"""Data sets through the library ``datasets``: really loaded from a local folder, and faked where the hub is needed."""

from __future__ import annotations

import pytest

from limbeck.core.metrics import METRICS
from limbeck.data import hub
from limbeck.data.config import Options
from limbeck.data.loading import load_judged, load_task
from limbeck.errors import InputError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def test_a_local_data_set_is_loaded(tmp_path):
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\ngood,up\nbad,down\nfine,up\n")
    (folder / "test.csv").write_text("text,label\nfair,up\n")
    task = load_task({"dataset": str(folder)})
    assert task.name == "reviews"
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 2, "validation": 1, "test": 1}
    assert task.label_names == ("down", "up")
    with pytest.raises(InputError, match=r"no split 'trian'; did you mean 'train'\?"):
        load_task({"dataset": str(folder), "train": "trian"})
    with pytest.raises(InputError, match="split 'train': there is no column 'txt'; did you mean 'text'"):
        load_task({"dataset": str(folder), "text": "txt"})


def test_a_test_split_alone_is_enough_to_evaluate_on(tmp_path):
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "test.csv").write_text("text,label\nfair,up\nfine,up\n")
    task, split = load_judged({"dataset": str(folder)})
    assert (split, list(task.splits), len(task.split("test"))) == ("test", ["test"], 2)
    with pytest.raises(InputError, match="no split 'validation'"):
        load_judged({"dataset": str(folder)}, "validation")
    with pytest.raises(InputError, match="has no split 'train'"):
        load_task({"dataset": str(folder)})
    (folder / "train.csv").write_text("text,label\ngood,up\nbad,down\npoor,down\n")
    task, _ = load_judged({"dataset": str(folder)})
    assert (task.label_names, sorted(task.splits)) == (("down", "up"), ["test", "train", "validation"])


def test_a_data_set_that_cannot_be_had():
    with pytest.raises(InputError, match=r"the data set 'nobody/nothing' \(config 'x'\) cannot be loaded.*local files"):
        load_task({"dataset": "nobody/nothing", "config": "x"})


def _data_set(rows, names=None, value="int64"):
    label = datasets.ClassLabel(names=names) if names else datasets.Value(value)
    features = {name: datasets.Value("string") for name in rows if name not in ("label", "idx", "category")}
    features |= {"label": label} if "label" in rows else {"category": datasets.Value("string")}
    features |= {"idx": datasets.Value("int32")} if "idx" in rows else {}
    return datasets.Dataset.from_dict(rows, features=datasets.Features({name: features[name] for name in rows}))


def _glue_like(name):
    """A data set with the columns and splits of the real one."""
    preset = hub.PRESETS[name]
    number = preset.get("kind") == "regression"
    names = None if number or preset["label"] != "label" else ["zero", "one", "two"][: 3 if name == "mnli" else 2]

    def part(count, hidden=False):
        if number:
            labels = [-1.0 if hidden else row / 2 for row in range(count)]
        elif names is None:
            labels = ["second" if row % 2 else "first" for row in range(count)]
        else:
            labels = [-1 if hidden else row % len(names) for row in range(count)]
        rows = {preset["text"]: [f"text {row}" for row in range(count)]}
        if "pair" in preset:
            rows[preset["pair"]] = [f"pair {row}" for row in range(count)]
        return _data_set({**rows, preset["label"]: labels}, names, "float32")

    if name == "mnli":
        return {"train": part(40), "validation_matched": part(9), "test_matched": part(9, hidden=True)}
    if name in ("imdb", "snips"):
        return {"train": part(40), "test": part(9), "unsupervised": part(5)}
    return {"train": part(40), "validation": part(9), "test": part(7, hidden=True)}


@pytest.mark.parametrize("name", hub.PRESETS)
def test_presets(name, monkeypatch):
    calls = []

    def load_dataset(dataset, config):
        calls.append((dataset, config))
        return datasets.DatasetDict(_glue_like(name))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task, preset = load_task(name), hub.PRESETS[name]
    assert calls == [(preset["dataset"], preset.get("config"))]
    assert {split: len(rows) for split, rows in task.splits.items()} == {"train": 36, "validation": 4, "test": 9}
    assert (task.name, task.metric, task.metric in METRICS) == (name, preset["metric"], True)
    assert (task.split("train").pairs is not None) == ("pair" in preset)
    expected = {"stsb": (), "mnli": ("zero", "one", "two"), "snips": ("first", "second")}
    assert task.label_names == expected.get(name, ("zero", "one"))


def test_hidden_test_labels_are_left_out_and_told(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: datasets.DatasetDict(_glue_like("rte")))
    task = load_task({"dataset": "nyu-mll/glue", "config": "rte"})
    assert (task.name, sorted(task.splits)) == ("rte", ["train", "validation"])
    assert "test: left out, because its labels are hidden (every one is -1)" in task.notes
    with pytest.raises(InputError, match="every label is -1"):
        load_task({"dataset": "nyu-mll/glue", "train": "test"})


def test_presets_are_valid_options():
    assert all(Options.parse(preset).dataset for preset in hub.PRESETS.values())
    assert set(hub.PRESETS) == {"qnli", "qqp", "sst2", "mnli", "rte", "mrpc", "cola", "stsb", "imdb", "snips"}
