"""Latency tables are measured once for a shape, a style, a length and a target."""

from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.cost_models import table_measurement as tables
from limbeck.cost_models.latency_table import LatencyTable
from limbeck.cost_models.latency_table_fit import designs, fit
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.measure.dummy_model import Setting, style_of
from limbeck.model.encoder import LimbeckConfig, LimbeckForSequenceClassification, Style


def test_int8_is_not_timed_in_torch():
    with pytest.raises(InputError, match="INT8 is timed in the runtimes onnxruntime and openvino"):
        tables.build(
            Shape.uniform(layers=1, hidden=48, heads=12, ffn=768),
            Setting(style_of(Style()), Target(runtime="torch"), "int8"),
        )


def test_disturbances_only_add_time():
    seconds = np.ones((1, 12, 5))
    seconds[0, ::2] *= 10
    seconds[0, :, 1:] *= 3
    assert tables.undisturbed_seconds(seconds).tolist() == [1.0]


@pytest.mark.parametrize("number_format", ["int8", pytest.param("float", marks=pytest.mark.slow)])
def test_a_table_is_measured_and_memoized(number_format, monkeypatch, in_process):
    full = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)

    class Held:
        model = LimbeckForSequenceClassification(
            LimbeckConfig(32, 8, layer_heads=[4, 4], layer_ffn=[64, 64], vocab_size=100)
        )
        task = toy_task()
        tokenizer = toy_tokenizer(task)

    stored, built = {}, []

    def memo(name, build):
        if name not in stored:
            built.append(name)
            stored[name] = build()
        return stored[name]

    quick = tables.build
    monkeypatch.setattr(tables, "build", lambda *a, **k: quick(*a, **k, seconds=0.1))
    first = tables.memoized(Held, Target(seq_len=8), number_format, memo)
    assert tables.memoized(Held, Target(seq_len=8), number_format, memo) == first
    assert len(built) == 1
    assert (first.seq_len, first.held_out, first.number_format) == (8, 8, number_format)
    assert 0 < first(full).value < 0.1
    with pytest.raises(InputError, match="'float' or 'int8', got 'int4'"):
        tables.memoized(Held, Target(seq_len=8), "int4", memo)


def test_tables_of_two_widths_are_of_one_speed_of_the_machine(monkeypatch):
    """The machine is half as fast when the second is measured."""
    slowness = 1.0

    def run_timed(session, payload, target):
        shapes = [Shape.from_json(each) for each in payload["shapes"]]
        parts = [each.hidden * (1 + sum(row.heads + row.ffn for row in each.layers)) for each in shapes]
        return {"seconds": np.tile(slowness * 1e-6 * np.array(parts)[:, None, None], (1, 4, 2))}

    monkeypatch.setattr("limbeck.measure.isolation.run_timed", run_timed)
    wide, setting = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64), Setting(style_of(Style()), Target(seq_len=8))
    first = tables.build(wide, setting)
    narrow, slowness = replace(wide, hidden=24), 2.0
    second = tables.build(narrow, setting, tables.Anchor(wide, first(wide).value))
    assert second(narrow).value == pytest.approx(0.75 * first(wide).value)
    assert tables.build(narrow, setting)(narrow).value == pytest.approx(1.5 * first(wide).value), "as it is then"
    assert (second.noise, second.held_out) == (0.0, first.held_out)


def test_the_key_says_what_the_measured_graphs_are(monkeypatch, make_model):
    names = []

    def memo(name, build):
        names.append(name)
        raise StopIteration

    def named(candidate, **target):
        with pytest.raises(StopIteration):
            tables.memoized(candidate, Target(**(target or {"seq_len": 8})), "int8", memo)
        return names[-1]

    task = toy_task()
    short = named(Candidate(make_model(), toy_tokenizer(task), task))
    averaging = Candidate(make_model(pooling="mean"), toy_tokenizer(task), task)
    assert named(averaging) != short
    padded = named(averaging, batch=4)
    with monkeypatch.context() as patch:
        patch.setattr("limbeck.measure.samples.typical_batch", lambda candidate, batch: (9, 9, 9, 2))
        assert named(averaging, batch=4) != padded
    scheduled = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64).with_tokens(0.5, 0.4, 0.4)
    first, mean = (
        named(replace(averaging, model=make_model(scheduled, **style))) for style in ({}, {"pooling": "mean"})
    )
    assert first != mean
    monkeypatch.setattr("limbeck.model.onnx.graph.LONG_TEXT", 2)
    assert named(Candidate(make_model(), toy_tokenizer(task), task)) != short


def test_a_stored_table_of_before_is_read():
    full = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64).with_tokens(0.5, 0.4, 0.4)
    shapes, _ = designs(full)
    table = fit(full, shapes, np.linspace(1.0, 2.0, len(shapes)), "here", "float", 8, all_tokens=True)
    stored = table.to_json()
    stored["fewer"]["per_token"] = stored["fewer"].pop("all_tokens")
    assert LatencyTable.from_json(stored) == table
