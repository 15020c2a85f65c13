"""What is measured before a recipe is planned: which core and which runtime suit the machine."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import pytest

from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.core.task import Split, Task
from limbeck.data.loading import load_task
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.planning.runtime_selection import Case, faster_core, faster_runtime
from limbeck.engine.store.store import Store
from limbeck.errors import LimbeckError
from limbeck.measure import paying
from limbeck.model import checkpoints
from limbeck.model.checkpoints import save_model

TASK = toy_task(train=24, validation=8, test=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_model):
    """A task of short texts as files, and a model."""
    folder = tmp_path_factory.mktemp("suited")
    (folder / "task").mkdir()
    for split in ("train", "validation", "test"):
        rows = [{**row, "label": TASK.label_names[row["label"]]} for row in TASK.split(split).to_rows()]
        (folder / "task" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    save_model(make_model(labels=3, vocab_size=60, max_positions=128), toy_tokenizer(TASK), folder / "other")
    return folder


def case(folder, target=Target()):  # noqa: B008
    return Case.of(str(folder / "other"), load_task(folder / "task"), target)


@pytest.fixture
def store(tmp_path):
    new_store = Store(tmp_path / "store")
    new_store.prepare()
    return new_store


@pytest.mark.parametrize(("gain", "expected"), [(1.5, "linformer:128"), (0.7, None)])
def test_a_linear_core_is_never_tried_below_the_break_even_length(folder, store, monkeypatch, gain, expected):
    trials = []

    def measured(shape, style, target, core, seq_len, per_token, long_texts):
        assert not per_token
        assert not long_texts
        trials.append((shape.depth, target.threads, core, seq_len))
        return paying.Paying(core, seq_len, [gain] * 5, [1.0] * 5)

    monkeypatch.setattr(paying, "paying", measured)
    for _ in range(2):  # measured once
        assert faster_core(case(folder), Target(threads=2), store) == expected
    assert len(trials) == 1
    assert trials[0][:3] == (2, 2, "linformer:128")
    assert faster_core(case(folder, Target(seq_len=99)), Target(seq_len=99), store) == expected
    assert trials[1][3] == 99


def test_vectors_are_of_each_text_of_a_pair_cut_where_the_model_cuts_it(folder, monkeypatch):
    rows = Split((("one " * 90).strip(),) * 8, (0.0, 1.0) * 4, ("two " * 60,) * 8)
    task = Task("pairs", "embedding", {"test": rows}, (), "spearman", max_length=128)
    assert Case.of(str(folder / "other"), task, Target()).seq_len == 77  # of 92 and 62
    described = checkpoints.peek(folder / "other") | {"vector_length": 40}
    monkeypatch.setattr(checkpoints, "peek", lambda model: described)
    assert Case.of(str(folder / "other"), task, Target()).seq_len == 40


def test_short_texts_are_not_timed_at_all(folder, monkeypatch):
    monkeypatch.setattr("limbeck.measure.isolation.run_isolated", None)
    assert faster_core(case(folder), Target()) is None


@pytest.mark.parametrize(("gain", "expected"), [(1.5, "openvino"), (1.01, "onnxruntime"), (0.7, "onnxruntime")])
def test_openvino_is_taken_where_it_is_clearly_faster(folder, store, monkeypatch, gain, expected):
    trials = []

    def measured(ways):
        trials.append(ways)
        return [[gain] * 5, [1.0] * 5]

    monkeypatch.setattr(paying, "in_turns", measured)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for _ in range(2):  # measured once
        assert faster_runtime(case(folder), Target(threads=2), store) == expected
    ((onnxruntime, openvino),) = trials
    assert onnxruntime[0] == openvino[0] == Shape.uniform(layers=2, hidden=32, heads=2, head_dim=8, ffn=32)
    assert [(trial[1].target.runtime, trial[1].number_format) for trial in (onnxruntime, openvino)] == [
        ("onnxruntime", "int8"),
        ("openvino", "int8"),
    ]


def test_openvino_is_not_asked_for_where_it_is_not_installed(folder, monkeypatch):
    monkeypatch.setattr(paying, "in_turns", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert faster_runtime(case(folder), Target()) == "onnxruntime"


def test_an_openvino_that_does_not_work_is_left_alone(folder, store, monkeypatch):
    def broken(ways):
        raise LimbeckError("no plugin")

    monkeypatch.setattr(paying, "in_turns", broken)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.warns(UserWarning, match="OpenVINO is installed but not tried: no plugin"):
        assert faster_runtime(case(folder), Target(), store) == "onnxruntime"


def test_a_model_with_local_layers_is_tried_too_and_one_that_is_linear_is_not(folder, store, monkeypatch):
    trials = []

    def measured(shape, style, target, core, seq_len, per_token, long_texts):
        trials.append(shape.attention)
        return paying.Paying(core, seq_len, [2.0] * 5, [1.0] * 5)

    monkeypatch.setattr(paying, "paying", measured)
    plain, target = case(folder), Target(seq_len=99)
    local = replace(plain, shape=plain.shape.with_attention("local:64", "softmax"))
    assert faster_core(local, target, store) == "linformer:128"
    assert faster_core(replace(plain, shape=plain.shape.with_attention("kernel")), target, store) is None
    assert trials == [("local:64", "softmax")]
