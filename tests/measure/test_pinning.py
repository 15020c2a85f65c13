"""Which cores a timed process runs on."""

from __future__ import annotations

import os

import pytest

from limbeck.measure.isolation import run_isolated
from limbeck.measure.machine_state import available_cores
from limbeck.measure.pinning import cores_for

WHERE = """
import os

def cores(payload):
    return {"cores": sorted(os.sched_getaffinity(0)), "pinned": payload["pinned"]}
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Describe an idle machine by the siblings and the speed of each core; return the function to test for it."""

    def describe(siblings, speeds=()):
        for core, text in enumerate(siblings):
            folder = tmp_path / f"cpu{core}"
            (folder / "topology").mkdir(parents=True)
            (folder / "topology" / "thread_siblings_list").write_text(f"{text}\n")
            if speeds:
                (folder / "cpufreq").mkdir()
                (folder / "cpufreq" / "cpuinfo_max_freq").write_text(f"{speeds[core]}\n")
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(len(siblings))), raising=False)
        monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: None, raising=False)
        return lambda threads: cores_for(threads, tmp_path, lambda: (0.0,) * len(siblings))

    return describe


def test_threads_get_physical_cores_of_their_own(machine):
    chosen = machine(["0,4", "1,5", "2,6", "3,7"] * 2)
    assert chosen(1) == (3,)
    assert chosen(4) == (0, 1, 2, 3)
    assert chosen(6) == (0, 1, 2, 3, 6, 7)


def test_the_fastest_kind_comes_first(machine):
    chosen = machine(["0-1", "0-1", "2", "3"], [5000, 5000, 3000, 3000])
    assert chosen(1) == (0,)
    assert chosen(2) == (0, 3)
    assert chosen(3) == (0, 2, 3)  # a slow core is more than half of a fast one


def test_where_all_cores_are_needed_nothing_is_pinned(machine, monkeypatch):
    chosen = machine(["0", "1"])
    assert chosen(2) == chosen(9) == ()
    monkeypatch.delattr(os, "sched_setaffinity")
    assert chosen(1) == ()


def test_a_system_that_does_not_describe_its_cores(machine, tmp_path):
    machine(["0", "1"])
    assert cores_for(1, tmp_path / "nothing", lambda: (0.0, 0.0)) == (1,)


def test_of_cores_that_are_alike_the_idlest_is_taken(machine, tmp_path):
    machine(["0", "1", "2"])
    loads = iter([(5.0, 5.0, 5.0), (5.1, 5.02, 5.08)])
    assert cores_for(1, tmp_path, lambda: next(loads)) == (1,)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin")
def test_the_process_of_a_measurement_runs_there_alone(tmp_path, monkeypatch):
    (tmp_path / "whereabouts.py").write_text(WHERE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    several = len(available_cores()) > 1
    answer = run_isolated("whereabouts:cores", {})
    assert answer["pinned"] == several
    assert len(answer["cores"]) == 1
    assert set(answer["cores"]) <= set(available_cores())
    free = run_isolated("whereabouts:cores", {}, pinned=False)
    assert (tuple(free["cores"]), free["pinned"]) == (available_cores(), False)
