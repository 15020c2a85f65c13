import json
from dataclasses import replace

import numpy as np
import pytest

from limbeck.benchmark import report as bench_report
from limbeck.benchmark.grid import cores
from limbeck.benchmark.length_charts import break_even, break_evens, pictures
from limbeck.benchmark.options import Grid, Timing
from limbeck.benchmark.plan import plan
from limbeck.benchmark.run import MEMORY, Bench, bench
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.errors import InputError
from limbeck.measure.dummy_model import Setting, style_of
from limbeck.measure.trial import Trial, peak_memory
from limbeck.model.encoder import Style

BASE = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
LENGTHS = (64, 128, 256, 512)
STYLE = style_of(Style())
SETTINGS = tuple(Setting(STYLE, Target(seq_len=length), seq_len=length) for length in LENGTHS)
PLAN = Bench(tuple(cores(BASE, ["softmax", "linformer:16", "kernel"])), SETTINGS, trials=2, calls=10, memory=True)


def timer(trial):
    """Softmax takes a microsecond a pair of tokens, linformer as long as softmax at 200 tokens, kernel ever longer."""
    n, (core, _) = trial.setting.seq_len, trial.shape.layers[0].core
    return np.full(9, {"softmax": n * n, "linformer": 200 * n, "kernel": 2 * n * n}[core] * 1e-6)


def bytes_of(trial):
    return trial.setting.seq_len * 1000


def test_the_break_even_is_where_two_lines_cross():
    soft = [n**2 for n in LENGTHS]
    assert break_even(LENGTHS, soft, [200 * n for n in LENGTHS])[0] == pytest.approx(200)
    assert break_even(LENGTHS, soft, [2 * n * n for n in LENGTHS]) == (None, False)
    assert break_even(LENGTHS, soft, [n for n in LENGTHS]) == (64.0, False)
    assert break_even([64], [1.0], [0.5]) == (64.0, False)
    # once faster and slower again: the last crossing counts
    assert break_even(LENGTHS, [1, 1, 1, 1], [0.5, 2, 2, 0.5])[0] == pytest.approx(256 * 2**0.5)


def test_every_core_at_every_length_with_memory(tmp_path):
    rows = bench(PLAN, tmp_path, timer=timer, memory_of=bytes_of)
    assert len(rows) == 12
    assert rows[0].to_json()["peak_memory_mb"] == 0.06
    by_core = {break_even.core: break_even for break_even in break_evens(rows)}
    assert set(by_core) == {"linformer:16", "kernel"}
    assert by_core["linformer:16"].tokens == pytest.approx(200)
    assert by_core["linformer:16"].gain == pytest.approx(512 / 200)
    assert "faster from about 200 tokens on; 2.56 times as fast as softmax at 512 tokens" in str(
        by_core["linformer:16"]
    )
    assert "slower than softmax at 512 tokens" in str(by_core["kernel"])
    page = bench_report.report(rows, "cores")
    for text in (
        "Latency against length",
        "Memory against length",
        "Where a linear core pays",
        "faster from about 200",
    ):
        assert text in page
    latency, memory = pictures(rows)
    assert [line["name"] for line in latency["lines"]] == ["softmax", "linformer:16", "kernel"]
    assert memory["y_title"] == "MB while it answers"
    assert not pictures(rows[:3])


def test_memory_is_not_measured_twice(tmp_path):
    weighed = []

    def breaks(trial):
        if len(weighed) == 5:
            raise KeyboardInterrupt
        weighed.append(trial)
        return bytes_of(trial)

    with pytest.raises(KeyboardInterrupt):
        bench(PLAN, tmp_path, timer=timer, memory_of=breaks)
    measured = []
    bench(PLAN, tmp_path, timer=timer, memory_of=lambda trial: measured.append(trial) or bytes_of(trial))
    assert len(measured) == 12 - 5
    assert all(json.loads(line)["bytes"] for line in (tmp_path / MEMORY).read_text().splitlines())


def test_positions_are_as_many_as_the_longest_text_needs():
    grid, timing = Grid(attention=("softmax", "window"), base="bert-base-uncased"), Timing(seq_len=(64, 4096))
    bench = plan(grid, timing)
    assert bench.memory
    assert [point.label for point in bench.points] == ["softmax", "window:64"]
    assert {setting.style["max_positions"] for setting in bench.settings} == {4096}
    with pytest.raises(InputError, match="attention 'windw'; did you mean 'window'"):
        plan(replace(grid, attention=("windw",)), timing)


def test_several_runtimes_and_int8_where_it_runs():
    timing = Timing(seq_len=(64,), runtime=("torch", "onnxruntime"), number_format=("float", "int8"))
    bench = plan(Grid(attention=("softmax",), base="bert-base-uncased"), timing)
    kinds = [(setting.target.runtime, setting.number_format) for setting in bench.settings]
    assert kinds == [("torch", "float"), ("onnxruntime", "float"), ("onnxruntime", "int8")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "long_texts", "needs"),
    [("torch", None, False), ("onnxruntime", None, False), ("onnxruntime", False, True)],
)
def test_only_softmax_attention_for_short_texts_needs_the_memory_of_all_pairs_of_tokens(runtime, long_texts, needs):
    """Measured in real processes: 1,500 tokens and 8 heads are 72 MB of scores for each of them that is kept."""
    shape, style = Shape.uniform(layers=1, hidden=64, heads=8, ffn=64), STYLE | {"max_positions": 1500}
    setting = Setting(style, Target(runtime=runtime), seq_len=1500, long_texts=long_texts)
    soft, linear = (peak_memory(Trial(point.shape, setting)) for point in cores(shape, ["softmax", "linformer:16"]))
    assert linear > 0
    assert (soft > linear + 40e6) == needs
