"""Latency tables are measured once for a shape, a style, a length and a target."""

import numpy as np
import pytest

from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.cost_models import table_measurement as tables
from limbeck.data.synthetic import toy_task
from limbeck.errors import InputError
from limbeck.model.encoder import LimbeckConfig, LimbeckForSequenceClassification, Style


def test_int8_is_not_timed_in_torch():
    with pytest.raises(InputError, match="INT8 is timed in the runtimes onnxruntime and openvino"):
        tables.build(Shape.uniform(layers=1, hidden=48, heads=12, ffn=768), Style(), Target(runtime="torch"), "int8")


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
