"""Which cores a timed process runs on."""

from __future__ import annotations

import os

import pytest

from limbeck.measure.isolation import run_isolated
from limbeck.measure.pinning import available_cores, cores_for

WHERE = """
import os

def cores(payload):
    return {"cores": sorted(os.sched_getaffinity(0)), "pinned": payload["pinned"]}
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Describe a machine: siblings by core, and a speed by core."""

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
        return tmp_path

    return describe


def test_threads_get_physical_cores_of_their_own(machine):
    topology = machine(["0,4", "1,5", "2,6", "3,7"] * 2)
    assert cores_for(1, topology) == (3,)
    assert cores_for(4, topology) == (0, 1, 2, 3)
    assert cores_for(6, topology) == (0, 1, 2, 3, 6, 7)


def test_the_fastest_kind_comes_first(machine):
    topology = machine(["0-1", "0-1", "2", "3"], [5000, 5000, 3000, 3000])
    assert cores_for(1, topology) == (0,)
    assert cores_for(2, topology) == (0, 3)
    assert cores_for(3, topology) == (0, 2, 3)  # a slow core is more than half of a fast one


def test_where_all_cores_are_needed_nothing_is_pinned(machine, monkeypatch):
    topology = machine(["0", "1"])
    assert cores_for(2, topology) == cores_for(9, topology) == ()
    monkeypatch.delattr(os, "sched_setaffinity")
    assert cores_for(1, topology) == ()


def test_a_system_that_does_not_describe_its_cores(machine, tmp_path):
    machine(["0", "1"])
    assert cores_for(1, tmp_path / "nothing") == (1,)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin")
def test_the_process_of_a_measurement_runs_there_alone(tmp_path, monkeypatch):
    (tmp_path / "whereabouts.py").write_text(WHERE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    chosen = cores_for(1)
    answer = run_isolated("whereabouts:cores", {})
    assert (tuple(answer["cores"]), answer["pinned"]) == (chosen or available_cores(), bool(chosen))
    free = run_isolated("whereabouts:cores", {}, pinned=False)
    assert (tuple(free["cores"]), free["pinned"]) == (available_cores(), False)
