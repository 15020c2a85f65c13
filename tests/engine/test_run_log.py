"""Failures concern one candidate, and are written; what ends a run is raised."""

from __future__ import annotations

import pytest

from limbeck.core.candidate import Record
from limbeck.engine.run_log import RunLog
from limbeck.engine.store.store import Store
from limbeck.errors import InputError, ProcessLost, StoreError


def test_a_failing_candidate_leaves_its_siblings_alone(go, toys):
    result = go(toys.ToyLevels((4, 2)), toys.ToyBreak(below=3), toys.ToyQuality())
    assert [result.records[key].shape.layers[0].ffn for key in result.front] == [4]
    (failure,) = result.failed
    assert (failure.step, failure.path, failure.error) == ("toy-break", "steps[1]", "RuntimeError: too thin")
    assert "Traceback" in failure.traceback
    assert not result.ok
    quiet = go(toys.ToyLevels((4, 2)), toys.ToyBreak(below=3, rude=False))
    assert (quiet.failed[0].error, quiet.failed[0].traceback) == ("too thin; choose more", "")
    nothing = go(toys.ToyBreak(below=99), toys.ToyPrune(), toys.ToyQuality(), toys.ToyBest())
    assert nothing.front == []


def test_an_undeclared_service_is_refused(go, toys):
    (failure,) = go(toys.ToySneak()).failed
    assert "step 'toy-sneak' used context.seed; add 'seed' to its reads" in failure.error
    assert failure.traceback


def test_a_full_disk_ends_the_run(go, toys, monkeypatch):
    def full(self, candidate, context):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(toys.ToyPrune, "apply", full)
    with pytest.raises(StoreError, match="is full"):
        go(toys.ToyTrain(), toys.ToyPrune())


@pytest.fixture
def events():
    return []


@pytest.fixture
def run_log(tmp_path, events):
    return RunLog(tmp_path / "run", Store(tmp_path / "store"), events.append)


def test_a_record_is_written_once_and_again_when_it_has_changed(run_log, events):
    record = Record("a", None, "model")
    run_log.write(record)
    run_log.write(record)
    assert [event["kind"] for event in events] == ["record"]
    run_log.rewrite(record)
    assert [line["event"] for line in run_log.ledger.read()] == ["record", "record"]


def test_numbers_go_to_the_listener_alone(run_log, events):
    log = run_log.of("distill", "a")
    log("", step=1, total=2)
    log("trained", loss=0.5)
    assert [event["kind"] for event in events] == ["progress", "log", "progress"]
    assert events[0]["numbers"] == {"step": 1, "total": 2}
    assert [line["message"] for line in run_log.ledger.read()] == ["trained"]


def test_an_expected_error_has_no_traceback(run_log, events):
    for error in (InputError("too thin"), RuntimeError("odd")):
        with run_log.isolate_failure("steps[0]", "prune", "a"):
            raise error
    assert [(failure.error, bool(failure.traceback)) for failure in run_log.failed] == [
        ("too thin", False),
        ("RuntimeError: odd", True),
    ]
    assert [event["kind"] for event in events] == ["failed", "failed"]


@pytest.mark.parametrize("error", [StoreError("no store"), ProcessLost("gone"), KeyboardInterrupt()])
def test_what_concerns_the_whole_run_ends_it(run_log, error):
    with pytest.raises(type(error)), run_log.isolate_failure("steps[0]", "prune"):
        raise error
    assert not run_log.failed
