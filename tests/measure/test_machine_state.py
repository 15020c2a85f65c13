"""What a machine was like while models were timed."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from limbeck.measure import machine_state
from limbeck.measure.machine_state import Conditions, MachineState

BEFORE = MachineState(moment=100.0, own=1.0, busy=(50.0, 60.0, 70.0, 80.0), load=0.5, clock_mhz=3000.0)


def after(*busy, own=9.0, **changes):
    """Ten seconds later, when the session has computed for 8 of them unless given."""
    worked = tuple(begin + seconds for begin, seconds in zip(BEFORE.busy, busy, strict=True))
    return replace(BEFORE, moment=110.0, own=own, busy=worked, **changes)


def test_what_the_session_did_not_use_others_did():
    conditions = Conditions.between(BEFORE, after(1, 9, 0, 4), 1, (1,), pinned=True)
    assert conditions.others == pytest.approx((1 + 9 + 4 - 8) / 10)
    assert conditions.taken == pytest.approx((9 - 8) / 10)  # of core 1 alone
    assert (conditions.cores, conditions.seconds) == ((1,), 10.0)


@pytest.mark.parametrize(
    ("busy", "threads", "own", "taken"),
    [
        ((9, 9, 9, 8), 1, 8.0, 0.0),  # others have 2.7 of 3 cores that are left
        ((10, 10, 10, 10), 1, 5.0, 0.5),  # others have 3.5 cores, so half of the one that is needed
        ((10, 10, 10, 10), 2, 15.0, 0.25),
        ((10, 10, 10, 10), 9, 40.0, 0.0),  # more threads than cores: all of them are needed
        ((0, 0, 0, 0), 4, 1.0, 0.0),  # time is counted in steps
    ],
)
def test_without_pinning_others_take_what_the_remaining_cores_do_not_hold(busy, threads, own, taken):
    conditions = Conditions.between(BEFORE, after(*busy, own=1.0 + own), threads, (0, 1, 2, 3), pinned=False)
    assert conditions.taken == pytest.approx(taken)
    assert conditions.cores == ()


def test_a_busy_or_slow_machine_is_said():
    quiet = Conditions((0.5, 0.9), (3000.0, 2950.0), 0.02, 0.02, 12.0, (3,))
    assert quiet.warning(1) is None
    busy = replace(quiet, taken=0.4)
    assert busy.warning(1) == (
        "the machine was busy: other programs used 40% of the core that the target needs while models were timed "
        "(load 0.5 before and 0.9 after); measure again when it is idle"
    )
    assert busy.warning(4, "the machine at http://board:1").startswith(
        "the machine at http://board:1 was busy: other programs used 40% of the 4 cores that"
    )
    assert replace(busy, seconds=0.3).warning(1) is None
    slowed = replace(quiet, clock_mhz=(3000.0, 2000.0)).warning(1)
    assert slowed == "the machine slowed down while models were timed, from 3,000 to 2,000 MHz"
    assert replace(quiet, clock_mhz=(math.nan, math.nan), taken=math.nan).warning(1) is None


def test_what_is_written_is_read():
    conditions = Conditions((0.5, 0.9), (3000.0, 2950.0), 0.02, 0.02, 12.0, (3,))
    assert Conditions.from_json(json.loads(json.dumps(conditions.to_json()))) == conditions
    assert Conditions.from_json({}).to_json() == {}
    with pytest.raises(ValueError, match="pairs"):
        Conditions.from_json({"load": [1.0]})


def test_the_work_of_this_process_is_its_own():
    """Only what the other processes of this machine do is left; how much that is, nobody knows here."""
    before = MachineState.now()
    while MachineState.now().own < before.own + 0.2:
        pass
    later = MachineState.now()
    assert sum(later.busy) - sum(before.busy) > 0.1
    conditions = Conditions.between(before, later, 1, range(len(later.busy)), pinned=False)
    assert 0 <= conditions.others <= len(later.busy)


def test_a_system_without_clocks_says_none(monkeypatch):
    import psutil

    def unsupported(percpu):
        raise NotImplementedError

    for clocks in (unsupported, lambda percpu: None, lambda percpu: []):
        monkeypatch.setattr(psutil, "cpu_freq", clocks, raising=False)
        assert math.isnan(machine_state._clock((0,)))
