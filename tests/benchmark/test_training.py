from dataclasses import replace

import pytest
import torch

from limbeck.benchmark.grid import Point
from limbeck.benchmark.options import Grid, Timing, Training
from limbeck.benchmark.plan import plan
from limbeck.benchmark.run import Row
from limbeck.benchmark.training import make_training
from limbeck.core.shape import Shape
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.distributed.config import ExecutorConfig
from limbeck.engine.result import read_result
from limbeck.engine.store.store import Store
from limbeck.errors import InputError
from limbeck.model.checkpoints import open_model, save_model
from limbeck.model.pruning.subnetwork import extract

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
QUICK = {"epochs": 1.0, "train_batch_size": 16, "learning_rate": 1e-3}


@pytest.fixture
def base(make_model, tmp_path):
    """A folder with a model, and a task that limbeck wrote."""
    task = toy_task(train=48, validation=24, test=24)
    task.to_folder(tmp_path / "task")
    tokenizer = toy_tokenizer(task)
    model = make_model(FULL, labels=task.num_labels, vocab_size=len(tokenizer))
    model.config.id2label = dict(enumerate(task.label_names))
    save_model(model, tokenizer, tmp_path / "base")
    return str(tmp_path / "base")


def taught(tmp_path, grid, train="both", timing=Timing(), **training):  # noqa: B008 frozen
    """The make_training of a grid, the rows that it judged, and its results by training_run."""
    spec = plan(grid, timing)
    options = Training(train, str(tmp_path / "task"), **{**QUICK, **training})
    benchmark = make_training(spec, grid.base, options, Store(tmp_path / "store"))
    rows = [Row(point, setting, False, ()) for setting in spec.settings for point in spec.points]
    rows, failed = benchmark.evaluate(rows, tmp_path / "run")
    assert not failed
    return (
        benchmark,
        rows,
        {training_run.name: read_result(tmp_path / "run" / training_run.name) for training_run in benchmark.runs},
    )


@pytest.mark.parametrize(
    "approach", ["head_num", *(pytest.param(name, marks=pytest.mark.slow) for name in ("head_size_1", "head_size_2"))]
)
def test_both_ways_begin_with_the_same_slice_of_the_base(base, tmp_path, approach):
    grid = Grid(attention_ratio=(0.5, 1.0), attention_approach=approach, base=base)
    benchmark, rows, results = taught(tmp_path, grid)
    model = open_model(base, task=benchmark.task)[0]
    alone = results["alone"]
    for row in rows:
        assert {*row.scores} == {"alone", "shared"}
        (student,) = [r for r in alone.records.values() if r.step == "student_init" and r.shape == row.point.shape]
        expected = extract(model, row.point.shape, approach == "head_size_2").state_dict()
        begun = alone.open(student.key).model.state_dict()
        assert all(torch.equal(begun[name], expected[name]) for name in expected)
    shared = results["shared-attention"]
    (trained,) = [r for r in shared.records.values() if r.step == "weight_sharing"]
    whole = shared.open(trained.key)
    assert whole.model.config.resplit == (approach == "head_size_2")
    for key in shared.front:
        record = shared.records[key]
        small = extract(whole.model, record.shape)
        again = shared.open(key).model.state_dict()
        assert all(torch.equal(again[name], value) for name, value in small.state_dict().items())
        (row,) = [row for row in rows if row.point.shape == record.shape]
        assert row.scores["shared"] == record.fact("quality", "validation")


@pytest.mark.slow
def test_workers_train_what_one_process_would_train(base, tmp_path):
    spec = plan(Grid(layers=(1, 2), base=base), Timing(number_format=("float", "int8")))
    training = Training("both", str(tmp_path / "task"), **QUICK)
    rows = [Row(point, setting, False, ()) for setting in spec.settings for point in spec.points]

    def judged(name, executor=None):
        benchmark = make_training(spec, base, training, Store(tmp_path / f"store-{name}"))
        assert [training_run.name for training_run in benchmark.runs] == ["alone", "shared-layers"]
        rated, failed = benchmark.evaluate(rows, tmp_path / name, executor=executor)
        assert not failed
        return [{mode: (fact.value, fact.low, fact.high) for mode, fact in row.scores.items()} for row in rated]

    alone = judged("alone")
    assert all(set(scores) == {"alone", "shared"} for scores in alone)
    assert judged("together", ExecutorConfig("processes", workers=2, threads=1)) == alone


@pytest.mark.slow
def test_one_model_for_each_group_or_one_for_all_jointly(base, tmp_path):
    singly, _, _ = taught(tmp_path, Grid(layers=(1, 2), hidden=(16, 32), base=base), "shared")
    assert [training_run.name for training_run in singly.runs] == ["shared-layers", "shared-hidden"]
    assert "one model, trained once for each group" in singly.summary
    jointly, rows, _ = taught(tmp_path, Grid(layers=(1, 2), hidden=(16, 32), jointly=True, base=base), "shared")
    assert [training_run.name for training_run in jointly.runs] == ["shared-jointly"]
    assert [set(row.scores) for row in rows] == [{"shared"}] * 4


def test_int8_is_judged_as_it_is_timed(base, tmp_path):
    _, rows, results = taught(
        tmp_path, Grid(layers=(1, 3), base=base), "individual", Timing(number_format=("float", "int8"))
    )
    steps = {results["alone"].records[key].step for key in results["alone"].front}
    assert (steps, len(rows)) == ({"finetune", "quantize"}, 4)
    assert all(row.scores["alone"].n == 24 for row in rows)


@pytest.mark.slow
def test_random_weights_need_no_checkpoint(tmp_path, monkeypatch):
    toy_task(train=24, validation=12, test=4).to_folder(tmp_path / "task")
    small = {"bert-base-uncased": Shape.uniform(layers=2, hidden=32, heads=2, ffn=64)}
    monkeypatch.setattr("limbeck.benchmark.plan.BASES", small)
    grid = Grid(layers=(1, 2), hidden=(16, 32), base="bert-base-uncased")
    benchmark, rows, _ = taught(tmp_path, grid, train_samples=16, initial_weights="random")
    assert "16 training texts" in benchmark.summary
    assert "begun with random weights" in benchmark.summary
    assert all({*row.scores} == {"alone", "shared"} for row in rows)
    other = make_training(plan(grid, Timing()), grid.base, replace(benchmark.training, seed=1), benchmark.store)
    assert other.runs[0].recipe.model != benchmark.runs[0].recipe.model


def test_a_miniature_trained_alone_begins_with_its_own_weights(base, tmp_path, monkeypatch, make_model):
    """The base's slices as ever, and beside them one that has a checkpoint: its layers differ from the base's."""
    task = toy_task(train=48, validation=24, test=24)
    tokenizer = toy_tokenizer(task)
    shape = Shape.uniform(layers=1, hidden=16, heads=2, ffn=32)
    model = make_model(shape, labels=task.num_labels, vocab_size=len(tokenizer), seed=7)
    save_model(model, tokenizer, tmp_path / "miniature")
    point = Point("miniatures", "L1 H16", shape, checkpoint=str(tmp_path / "miniature"))
    monkeypatch.setattr("limbeck.benchmark.grid.miniatures", lambda: [point])
    benchmark, rows, results = taught(tmp_path, Grid(layers=(1,), miniatures=True, base=base))
    assert [run.name for run in benchmark.runs] == ["alone", "alone-L1-H16", "shared-layers", "shared-miniatures"]
    assert all({*row.scores} == {"alone", "shared"} for row in rows)
    assert "or pretrained miniatures" in benchmark.summary
    own = results["alone-L1-H16"]
    root = next(record for record in own.records.values() if record.parent is None)
    begun = own.open(root.key).model.encoder.state_dict()
    assert all(torch.equal(begun[name], value) for name, value in model.encoder.state_dict().items())


def test_weights_that_cannot_be_read_are_refused_first(base, tmp_path):
    for grid in (Grid(layers=(1,)), Grid(miniatures=True, base=base)):
        with pytest.raises(InputError, match=r"the weights of '.*' cannot be read: .*--initial-weights random"):
            taught(tmp_path, grid, "individual")


def test_what_is_no_slice_is_refused(base, tmp_path):
    with pytest.raises(InputError, match=r"hidden 64 cannot begin with .*--initial-weights random"):
        taught(tmp_path, Grid(hidden=(16, 64), base=base))
    for source in (base, "bert-base-uncased"):  # not trained as softmax, and not left out of the table without a word
        with pytest.raises(InputError, match=r"--attention softmax linformer:8 cannot be trained.*limbeck linearize"):
            taught(tmp_path, Grid(attention=("softmax", "linformer:8"), base=source))
