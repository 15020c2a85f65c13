import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from pyarrow import parquet

from limbeck.benchmark.grid import attention, depths
from limbeck.benchmark.run import SAMPLES, TABLE, TRIALS, Bench, bench
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.errors import InputError, LimbeckError
from limbeck.measure.dummy_model import Setting, style_of
from limbeck.model.encoder import Style

BASE = Shape.uniform(layers=4, hidden=32, heads=4, ffn=64)
SETTINGS = tuple(Setting(style_of(Style()), Target(), form) for form in ("float", "int8"))
PLAN = Bench(tuple(depths(BASE, [1, 2, 4]) + attention(BASE, [0.5], "head_num")), SETTINGS, trials=2, calls=10)


class Stopwatch:
    """A machine on which a layer takes a millisecond, half in INT8."""

    def __init__(self, breaks_at=None):
        self.trials, self.breaks_at = [], breaks_at

    def __call__(self, trial):
        if len(self.trials) == self.breaks_at:
            raise KeyboardInterrupt
        self.trials.append(trial)
        layer = 1e-3 if trial.setting.number_format == "float" else 0.5e-3
        return np.full(9, trial.shape.depth * layer)


def test_every_point_in_every_setting_and_all_samples(tmp_path):
    timer = Stopwatch()
    rows = bench(PLAN, tmp_path, timer=timer)
    assert len(timer.trials) == 4 * 2 * 2
    assert [round(row.median * 1e3, 6) for row in rows] == [1, 2, 4, 4, 0.5, 1, 2, 2]
    table = list(csv.DictReader((tmp_path / TABLE).open()))
    assert [line["latency_ms"] for line in table] == ["1.0", "2.0", "4.0", "4.0", "0.5", "1.0", "2.0", "2.0"]
    assert table[3]["architecture"] == "attention 0.5"
    samples = parquet.read_table(tmp_path / SAMPLES)
    assert samples.num_rows == 16 * 9
    assert set(samples.column("format").to_pylist()) == {"float", "int8"}


def test_trials_are_interleaved():
    first = [job.point.label for job in PLAN.jobs()][:8]
    assert sorted(first) == sorted([point.label for point in PLAN.points] * 2)


def test_an_interrupted_run_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        bench(PLAN, tmp_path, timer=Stopwatch(breaks_at=5))
    whole = (tmp_path / TRIALS).read_text()
    (tmp_path / TRIALS).write_text(whole + '{"key": "cut o')
    timer = Stopwatch()
    rows = bench(PLAN, tmp_path, timer=timer)
    assert len(timer.trials) == 16 - 5
    assert [json.loads(line)["number"] for line in (tmp_path / TRIALS).read_text().splitlines()].count(0) == 8
    again = Stopwatch()
    assert [row.median for row in bench(PLAN, tmp_path, timer=again)] == [row.median for row in rows]
    assert not again.trials


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / TRIALS).write_text("nonsense\n")
    with pytest.raises(LimbeckError, match="damaged in line 1"):
        bench(PLAN, tmp_path, timer=Stopwatch())


def test_nothing_to_do():
    with pytest.raises(InputError, match="nothing to time"):
        replace(PLAN, points=()).check()
    with pytest.raises(InputError, match="trials"):
        replace(PLAN, trials=0).check()


@pytest.mark.slow
def test_on_this_machine(tmp_path):
    """For real: more layers take longer, and shared weights run too."""
    small = replace(PLAN, points=PLAN.points[:3:2], trials=1, calls=40)
    shallow, deep = bench(replace(small, settings=SETTINGS[:1]), tmp_path / "own")
    assert 0 < min(shallow.seconds[0]) < min(deep.seconds[0])
    torch = Setting(style_of(Style()), Target(runtime="torch"))
    shared = bench(replace(small, settings=(torch,), within=BASE), tmp_path / "shared")
    assert {row.to_json()["weights"] for row in shared} == {"shared"}
