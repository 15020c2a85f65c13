"""Graphs that workers make: the same as those of the process that times, and timed alone."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_workers import Threads

from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.cost_models import graphs_ahead
from limbeck.cost_models.collection import Collection
from limbeck.cost_models.graphs_ahead import GraphsAhead, make_graph
from limbeck.distributed.workers import Workers
from limbeck.measure.dummy_model import graph_of, runner_of

SHAPES = (Shape.uniform(layers=1, hidden=16, heads=2, ffn=32), Shape.uniform(layers=2, hidden=16, heads=1, ffn=16))


@pytest.fixture
def ahead():
    """What times shapes with workers; ``held`` tells whether it has the machine alone."""

    class Ahead(GraphsAhead):
        held = False

    @contextmanager
    def alone():
        Ahead.held = True
        yield
        Ahead.held = False

    workers = Workers(Threads(), 2)
    yield Ahead(workers, alone)
    workers.close()


@pytest.mark.parametrize("number_format", ["float", "int8"])
def test_a_graph_of_a_worker_is_the_one_that_would_be_made_here(setting, tmp_path, number_format):
    setting = replace(setting, number_format=number_format)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        files = make_graph({"shape": SHAPES[0].to_json(), "setting": setting.to_json()}, print)["files"]
        torch.manual_seed(0)
        assert files == {"model.onnx": graph_of(SHAPES[0], setting).SerializeToString()}
    (tmp_path / "model.onnx").write_bytes(files["model.onnx"])
    runner = runner_of(SHAPES[0], setting, str(tmp_path / "model.onnx"))
    assert np.isfinite(
        runner(runner.prepare({name: np.ones((1, 4), dtype=np.int64) for name in runner_inputs()}))
    ).all()


def runner_inputs():
    return ("input_ids", "attention_mask", "token_type_ids")


def test_shapes_are_timed_alone_once_all_graphs_are_there(ahead, setting, monkeypatch):
    seen = []

    def timed(shapes, setting, plan, files):
        seen.append((ahead.held, [path.is_file() for path in files]))
        return np.ones((len(shapes), 4, 1))

    monkeypatch.setattr(graphs_ahead, "time_group", timed)
    plan = Collection(SHAPES, (setting,), rounds=4, calls=1)
    assert ahead.time_group(SHAPES, setting, plan).shape == (2, 4, 1)
    in_torch = replace(setting, target=Target(runtime="torch"))
    ahead.time_group(SHAPES, in_torch, plan)  # which needs no graphs
    assert seen == [(True, [True, True]), (True, [])]
    assert not ahead.held


@pytest.mark.slow
def test_timed_for_real(ahead, setting):
    plan = Collection(SHAPES, (setting,), rounds=4, calls=2, seconds=0.1)
    seconds = ahead.time_group(SHAPES, setting, plan)
    assert seconds.shape[0] == 2
    assert (seconds > 0).all()
