from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.analytic_cost import macs
from limbeck.core.measurement import environment, machine
from limbeck.cost_models.collection import Collection, collect, middle, outliers, session, time_group
from limbeck.cost_models.latency_dataset import TURNS, read
from limbeck.cost_models.shape_sampling import sample_shapes
from limbeck.errors import InputError


class Stopwatch:
    """A pretended machine: every process may be slower, single shapes may be disturbed the first times."""

    def __init__(self, seconds, drift=(), disturbed=(), breaks_at=None, noise=0.002):
        self.seconds, self.drift, self.breaks_at, self.noise = seconds, drift, breaks_at, noise
        self.disturbed = dict(disturbed)
        self.requests = []

    def __call__(self, shapes, setting, plan):
        rounds, calls = plan.rounds, plan.calls
        if len(self.requests) == self.breaks_at:
            raise KeyboardInterrupt
        self.requests.append((setting.number_format, tuple(shapes)))
        slower = self.drift[len(self.requests) - 1] if len(self.requests) <= len(self.drift) else 1.0
        slower *= 0.5 if setting.number_format == "int8" else 1.0
        seconds = np.zeros((len(shapes), rounds, calls))
        for index, shape in enumerate(shapes):
            rng = np.random.default_rng([shape.depth, shape.hidden, len(self.requests)])
            seconds[index] = self.seconds(shape) * slower * (1 + rng.exponential(self.noise, (rounds, calls)))
            if self.disturbed.get(shape, 0):
                self.disturbed[shape] -= 1
                seconds[index] *= 1.5
        seconds[:, :2] *= 100  # warm-up
        return seconds


@pytest.fixture(scope="module")
def plan(space, setting):
    return Collection(tuple(sample_shapes(space, 60)), (setting, replace(setting, number_format="int8")), group=7)


def test_every_shape_in_every_setting_in_groups_with_one_anchor(plan, pretended, tmp_path):
    events, timer = [], Stopwatch(pretended)
    data = collect(plan, tmp_path / "data.jsonl", events.append, timer)
    assert read(tmp_path / "data.jsonl") == data
    assert data.machines == {machine(): environment()}
    anchor = middle(plan.shapes)
    below = [macs(shape, 32) < macs(anchor, 32) for shape in plan.shapes]
    assert sum(below) == 30
    assert {shapes[0] for _, shapes in timer.requests} == {anchor}
    for number_format, factor in (("float", 1), ("int8", 0.5)):
        series = data.series(number_format=number_format)
        assert set(series.shapes) == set(plan.shapes)
        truth = np.array([factor * pretended(shape) for shape in series.shapes])
        assert series.seconds == pytest.approx(truth, rel=0.005)
        assert [group.turn for group in series.groups] == ["first"] * 9 + ["repeat"]
        assert len(series.repetition) in (5, 6)  # a tenth of 60; the anchor may be among them
        assert series.repetition.max() < 0.005
        assert all(len(timed.rounds) == 18 for group in series.groups for timed in group.shapes)
    assert [event["turn"] for event in events[:10]] == ["first"] * 9 + ["repeat"]
    assert (events[1]["done"], events[1]["total"]) == (7, 59)


@pytest.mark.parametrize("breaks_at", [3, 9, 10, 12])
def test_resumed_is_the_same_as_uninterrupted(plan, pretended, tmp_path, breaks_at):
    def timer(**more):
        return Stopwatch(pretended, disturbed=dict.fromkeys(plan.shapes[3:5], 1), noise=0.0, **more)

    whole, first = timer(), timer(breaks_at=breaks_at)
    uninterrupted = collect(plan, tmp_path / "one.jsonl", timer=whole)
    with pytest.raises(KeyboardInterrupt):
        collect(plan, tmp_path / "two.jsonl", timer=first)
    with (tmp_path / "two.jsonl").open("a") as stream:
        stream.write('{"kind": "gro')
    second = timer()
    second.disturbed = dict(first.disturbed)
    assert collect(plan, tmp_path / "two.jsonl", timer=second) == uninterrupted
    assert first.requests + second.requests == whole.requests
    idle = timer()
    assert collect(plan, tmp_path / "two.jsonl", timer=idle) == uninterrupted
    assert not idle.requests


def test_drift_of_whole_processes_is_corrected(plan, pretended, tmp_path):
    only = replace(plan, settings=plan.settings[:1], repeated=0)
    timer = Stopwatch(pretended, drift=[1, 1.3, 1, 0.9, 1, 1.001, 1], noise=0.05)
    series = collect(only, tmp_path / "data.jsonl", timer=timer).series()
    assert series.drift[:6] == pytest.approx([1, 1.3, 1, 0.9, 1, 1], rel=0.01)
    assert series.factors[[0, 2, 4, 5]].tolist() == [1] * 4  # within their noise
    truth = np.array([pretended(shape) for shape in series.shapes])
    assert series.seconds == pytest.approx(truth, rel=0.02)
    assert {group.turn for group in series.groups} == {"first"}


def test_disturbed_shapes_are_measured_again_and_everything_is_kept(plan, pretended, tmp_path):
    only = replace(plan, settings=plan.settings[:1], repeated=0)
    anchor = middle(plan.shapes)
    once, twice = (shape for shape in (*plan.shapes[:2], plan.shapes[5]) if shape != anchor), plan.shapes[9]
    disturbed = dict.fromkeys(once, 1) | {twice: 2}
    series = collect(only, tmp_path / "data.jsonl", timer=Stopwatch(pretended, disturbed=disturbed)).series()
    for shape, times in disturbed.items():
        measures = series.measures[shape]
        assert list(measures) == ["first", "check"] + ["recheck"] * (times == 1)
        slow = [value / pretended(shape) > 1.4 for value in measures.values()]
        assert sum(slow) == times
    seconds = dict(zip(series.shapes, series.seconds, strict=True))
    for shape in plan.shapes[:2]:  # the median of three
        assert seconds[shape] == pytest.approx(pretended(shape), rel=0.01)
    again = {shape for shape, measures in series.measures.items() if len(measures) > 1}
    assert set(disturbed) <= again
    assert len(again) <= len(disturbed) + 3  # a pretended machine is not quite additive


def test_two_measures_that_differ_are_settled_by_a_third(plan, pretended, tmp_path):
    few = replace(plan, shapes=plan.shapes[:10], settings=plan.settings[:1], repeated=1.0)
    shape = next(shape for shape in few.shapes if shape != middle(few.shapes))
    series = collect(few, tmp_path / "data.jsonl", timer=Stopwatch(pretended, disturbed={shape: 1})).series()
    assert outliers(series.before("check")) == [shape]
    assert list(series.measures[shape]) == ["first", "repeat", "check"]
    assert not outliers(series)
    assert series.seconds[series.shapes.index(shape)] == pytest.approx(pretended(shape), rel=0.01)
    assert series.before("check").seconds[series.shapes.index(shape)] > 1.2 * pretended(shape)


def test_more_shapes_are_added_to_what_is_there(plan, space, pretended, tmp_path):
    few = replace(plan, shapes=plan.shapes[:20], settings=plan.settings[:1])
    collect(few, tmp_path / "data.jsonl", timer=Stopwatch(pretended))
    timer = Stopwatch(pretended)
    series = collect(replace(few, shapes=plan.shapes), tmp_path / "data.jsonl", timer=timer).series()
    assert set(series.shapes) == set(plan.shapes)
    assert len({group.anchor.shape for group in series.groups}) == 1
    first = {
        shape for group in series.groups if group.turn == "first" for shape in (timed.shape for timed in group.shapes)
    }
    assert len(first) == 59


def test_what_cannot_be_timed_is_refused_before_any_work(plan, tmp_path):
    torch = replace(plan.settings[1], target=replace(plan.settings[1].target, runtime="torch"))
    for wrong, message in (
        ({"shapes": plan.shapes[:1]}, "two shapes"),
        ({"shapes": plan.shapes[:2] * 2}, "all different"),
        ({"rounds": 3}, "rounds at least 4"),
        ({"group": 0}, "group"),
        ({"settings": ()}, "one setting"),
        ({"settings": (torch,)}, "INT8"),
    ):
        with pytest.raises(InputError, match=message):
            collect(replace(plan, **wrong), tmp_path / "data.jsonl", timer=None)
    assert not (tmp_path / "data.jsonl").exists()
    assert TURNS[0] == "first"


@pytest.mark.slow
@pytest.mark.parametrize("number_format", ["float", "int8"])
def test_on_this_machine(setting, space, number_format, tmp_path):
    """For real, in fresh processes: the largest shape takes longer than the smallest."""
    setting = replace(setting, number_format=number_format, seq_len=8)
    plan = Collection((space.smallest, space.largest), (setting,), rounds=4, calls=2, seconds=0, repeated=0)
    series = collect(plan, tmp_path / "data.jsonl").series()
    seconds = dict(zip(series.shapes, series.seconds, strict=True))
    assert 0 < seconds[space.smallest] < seconds[space.largest]
    assert len(series.groups[0].anchor.rounds) == 3


def test_the_process_times_what_it_is_told(setting, space):
    payload = {"shapes": [space.smallest.to_json()] * 2, "setting": setting.to_json(), "rounds": 3, "calls": 2}
    for seconds, rounds in ((0, 3), (1000, 15)):  # short calls get more rounds, up to five times as many
        assert session(payload | {"seconds": seconds})["seconds"].shape == (2, rounds, 2)
    assert callable(time_group)
