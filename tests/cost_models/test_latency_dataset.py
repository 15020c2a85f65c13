from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.measurement import machine
from limbeck.core.shape import Shape
from limbeck.cost_models.latency_dataset import Dataset, Group, Series, TimedShape, append, read, write
from limbeck.cost_models.latency_table import Curve, LatencyTable
from limbeck.cost_models.table_measurement import undisturbed_seconds
from limbeck.errors import InputError

ANCHOR, SMALL, LARGE = (Shape.uniform(layers, 32, 4, 64) for layers in (2, 1, 3))


def timed(shape, seconds, spread=0.01):
    return TimedShape(shape, seconds, spread, (seconds,) * 16)


def group(setting, drift=1.0, turn="first", *shapes, machine="here"):
    slower = tuple(replace(each, seconds=each.seconds * drift) for each in shapes)
    return Group(machine, setting, turn, timed(ANCHOR, 2e-3 * drift), slower, at=5.0)


def table():
    curve = Curve((0, 4), (0.0, 1e-3))
    return LatencyTable(32, 8, 1e-4, 1e-5, {"softmax": curve}, curve, {"softmax": curve}, curve, "here", "float", 32)


@pytest.fixture
def data(setting, space):
    int8 = replace(setting, number_format="int8")
    groups = (
        group(setting, 1.0, "first", timed(SMALL, 1e-3)),
        group(setting, 1.0, "first", timed(LARGE, 3e-3)),
        group(int8, 1.0, "first", timed(SMALL, 5e-4)),
    )
    return Dataset({"here": {"processor": "abacus", "cores": 2}}, groups, (("here", setting, table()),), (space,))


def test_the_quiet_seconds_the_spread_and_the_raw_rounds_are_kept():
    seconds = np.random.default_rng(0).uniform(1, 2, (18, 5))
    seconds[3] += 100
    timed = TimedShape.of(SMALL, seconds)
    assert timed.seconds == pytest.approx(undisturbed_seconds(seconds[None])[0], rel=1e-5)
    assert timed.rounds == pytest.approx(np.median(seconds, axis=1), rel=1e-5)
    low, high = np.quantile(seconds.min(axis=1), [0.25, 0.75])
    assert timed.spread == pytest.approx((high - low) / timed.seconds, rel=1e-4)


def test_written_and_read_again_it_is_the_same(data, tmp_path):
    write(data, tmp_path / "a.jsonl")
    assert read(tmp_path / "a.jsonl") == data
    assert [each.at for each in read(tmp_path / "a.jsonl").groups] == [5.0] * 3
    for piece in (
        Dataset(machines=data.machines, spaces=data.spaces),
        Dataset(tables=data.tables, groups=data.groups[:1]),
        Dataset(groups=data.groups[1:]),
    ):
        append(piece, tmp_path / "b.jsonl")
    assert read(tmp_path / "b.jsonl") == data


def test_a_line_that_was_cut_off_does_not_count_and_is_overwritten(data, tmp_path):
    path = tmp_path / "a.jsonl"
    write(replace(data, groups=data.groups[:2]), path)
    with path.open("a") as stream:
        stream.write('{"kind": "group", "mach')
    assert read(path).groups == data.groups[:2]
    append(Dataset(groups=data.groups[2:]), path)
    assert read(path) == data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: ["nonsense"], "not a file of latency data"),
        (lambda lines: ["[1, 2]", *lines], "not a file of latency data"),
        (lambda lines: [], "not a file of latency data"),
        (lambda lines: [lines[0].replace("1", "99"), *lines[1:]], "version 99"),
        (lambda lines: [*lines[:2], "{", *lines[2:]], "damaged in line 3"),
        (lambda lines: [*lines, '{"kind":"song"}'], "damaged in line 8 .*'song'"),
        (lambda lines: [*lines[:-1], lines[-1].replace('"seconds":0.0005', '"seconds":NaN')], "damaged in line 7"),
        (lambda lines: [*lines[:-1], lines[-1].replace('"seconds":0.0005', '"seconds":-1')], "not a duration"),
        (lambda lines: [*lines[:-1], lines[-1].replace('"first"', '"last"')], "damaged in line 7"),
        (lambda lines: [*lines[:-1], lines[-1].replace('"anchor"', '"ancor"')], "damaged in line 7"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_clear_error(data, tmp_path, change, message):
    path = tmp_path / "a.jsonl"
    write(data, path)
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))
    with pytest.raises(InputError, match=message):
        read(path)
    if "no file" in message and path.stat().st_size:
        with pytest.raises(InputError, match=message):
            append(data, path)


def test_files_that_are_no_text_or_not_there(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(InputError, match="not text"):
        read(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "b.jsonl")


def test_drift_between_groups_is_seen_and_divided_out_beyond_its_noise(setting):
    groups = (
        group(setting, 1.0, "first", timed(SMALL, 1e-3)),
        group(setting, 1.2, "first", timed(LARGE, 3e-3)),
        group(setting, 1.004, "repeat", timed(SMALL, 1.02e-3)),
    )
    series = Series("here", setting, groups)
    assert series.drift == pytest.approx(np.array([1, 1.2, 1.004]) / 1.004)
    assert series.factors == pytest.approx([1, 1.2 / 1.004, 1])  # two standard errors: 2 * sqrt(2) * 1 % / sqrt(16)
    assert series.measures[SMALL] == pytest.approx({"first": 1e-3, "repeat": 1.02e-3 * 1.004})
    seconds_by_shape = dict(zip(series.shapes, series.seconds, strict=True))
    assert seconds_by_shape[LARGE] == pytest.approx(3e-3 * 1.004)
    assert seconds_by_shape[SMALL] == pytest.approx(np.mean([1e-3, 1.02e-3 * 1.004]))
    assert seconds_by_shape[ANCHOR] == pytest.approx(2e-3 * 1.004)
    assert series.repetition == pytest.approx([1 - 1 / 1.02 / 1.004])
    assert series.noise == 0.01
    assert series.before("repeat").groups == groups[:2]
    assert not series.before("first").measures


def test_a_series_is_found_by_what_it_is(data, setting):
    assert data.series(number_format="int8").shapes == (SMALL, ANCHOR)
    assert data.table(data.series(number_format="float")) == table()
    assert data.table(data.series(number_format="int8")) is None
    with pytest.raises(
        InputError, match="several series fit anything; the latency data hold: onnxruntime float, 1 thr"
    ):
        data.series()
    with pytest.raises(InputError, match="no series fits threads 7"):
        data.series(threads=7)
    with pytest.raises(InputError, match="hold: nothing"):
        Dataset().series()


def test_of_several_machines_this_one_is_meant(data, setting):
    here = replace(data, groups=(*data.groups, group(setting, 1.0, "first", timed(SMALL, 7e-3), machine=machine())))
    assert here.series(number_format="float").machine == machine()
    assert here.series(number_format="float", machine="here").machine == "here"
    assert len(here.all_series()) == 3


def test_nothing_in_the_file_is_anything_but_json(data, tmp_path):
    write(data, tmp_path / "a.jsonl")
    kinds = [json.loads(line).get("kind") for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert kinds == [None, "machine", "space", "table", "group", "group", "group"]
