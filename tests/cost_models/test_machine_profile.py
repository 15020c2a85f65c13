from __future__ import annotations

import json
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from limbeck.core.measurement import environment, machine
from limbeck.cost_models.latency_dataset import read
from limbeck.cost_models.latency_predictor import Predictor
from limbeck.cost_models.latency_table import Curve, LatencyTable
from limbeck.cost_models.machine_profile import full, profile
from limbeck.errors import InputError


def test_profile_describes_and_measures_the_machine():
    measured = profile(rounds=2)
    json.dumps(measured)
    assert {"processor", "instructions", "cores", "memory_bytes", "versions"} <= set(measured)
    assert measured["float_gflops"] > 0
    assert measured["int8_gops"] > 0
    assert measured["noise"] >= 0


def table_of(space, setting):
    curve = Curve((0, 12), (0.0, 1e-3))
    return LatencyTable(
        384, 32, 1e-4, 1e-5, {"softmax": curve}, curve, {"softmax": curve}, curve, "here", setting.number_format, 32
    )


def test_the_full_profile_is_one_file_that_a_search_elsewhere_can_use(setting, space, pretended, tmp_path):
    path, requests = tmp_path / "machine.jsonl", []

    def timer(shapes, setting, plan):
        requests.append(shapes)
        return np.stack([np.full((plan.rounds, plan.calls), pretended(shape)) for shape in shapes])

    settings = [replace(setting, number_format=number_format) for number_format in ("float", "int8")]
    facts = {**environment(), "noise": 0.1, "float_gflops": 9}
    with mock.patch("limbeck.cost_models.machine_profile.profile", return_value=facts) as described:
        data = full(path, space, settings, samples=50, timer=timer, table=table_of)
        processes = len(requests)
        assert full(path, space, settings, samples=50, timer=timer, table=table_of) == data
        assert len(requests) == processes
    described.assert_called_once_with(1)
    there = read(path)
    assert there == data
    assert there.machines[machine()]["float_gflops"] == 9
    assert "processor" in there.machines[machine()]
    assert there.spaces == (space,)
    assert [table.number_format for _, _, table in there.tables] == ["float", "int8"]
    for number_format in ("float", "int8"):
        series = there.series(number_format=number_format)
        assert len(series.shapes) == 50
        assert there.table(series).number_format == number_format
        predictor = Predictor.of(series)
        assert predictor(space.largest).value == pytest.approx(pretended(space.largest), rel=0.1)


def test_a_full_profile_that_cannot_be_is_refused_before_any_work(setting, space, tmp_path):
    torch = replace(setting, number_format="int8", target=replace(setting.target, runtime="torch"))
    with pytest.raises(InputError, match="INT8"):
        full(tmp_path / "machine.jsonl", space, [torch])
    (tmp_path / "other.jsonl").write_text("words\n")
    with pytest.raises(InputError, match="not a file of latency data"):
        full(tmp_path / "other.jsonl", space, [setting])
