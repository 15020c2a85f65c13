"""One run of the tracker for every training, named, and one for what was measured."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from limbeck.core.candidate import Record
from limbeck.engine.progress import show_progress
from limbeck.engine.tracking import Tracking, check_tracker
from limbeck.errors import InputError

PATHS = {"one": "steps[0].fork[0][1]", "two": "steps[0].fork[1][1]"}


@pytest.fixture
def runs(monkeypatch):
    """Accelerate with trackers that keep what they are given, one of them not installed."""
    from accelerate import tracking

    runs = {}

    class Toy:
        requires_logging_directory = False

        def __init__(self, project, **options):
            self.lines = runs.setdefault("/".join([project, *options.values()]), [])

        def log(self, values, step):
            self.lines.append((step, values))

        def finish(self):
            self.lines.append("finished")

    monkeypatch.setattr(tracking, "LOGGER_TYPE_TO_CLASS", {"toy": Toy, "wandb": Toy, "absent": Toy})
    available = [SimpleNamespace(value=name) for name in ("toy", "wandb")]
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: available)
    return runs


def training(key, losses):
    where = {"path": PATHS[key], "step": "finetune", "key": key}
    yield {"kind": "candidate_start", **where}
    for step, loss in losses:
        yield {"kind": "progress", "step": "finetune", "key": key, "numbers": {"step": step, "total": 9, "loss": loss}}
    yield {"kind": "candidate_end", **where}


def track(tracker, *events):
    for event in events:
        tracker(event)
    tracker.close()


@pytest.mark.parametrize(("name", "start"), [("toy", "limbeck-"), ("wandb", "limbeck/")])
def test_branches_are_runs_of_their_own(runs, name, start):
    tracker = Tracking(name, lambda: time.gmtime(0))
    facts = [{"name": "quality", "split": "test", "value": 0.5}, {"name": "size", "value": 8.0}]
    record = {"kind": "record", "key": "k", "record": Record("k", None, "prune")}
    measured = {"kind": "facts", "key": "k", "step": "size", "facts": facts}
    track(tracker, *training("one", [(1, 0.5), (2, 0.4)]), record, measured, *training("two", [(1, 0.3)]))
    assert runs == {
        f"{start}19700101-000000-steps.0.fork.0.1-finetune-one": [(1, {"loss": 0.5}), (2, {"loss": 0.4}), "finished"],
        f"{start}19700101-000000-steps.0.fork.1.1-finetune-two": [(1, {"loss": 0.3}), "finished"],
        f"{start}19700101-000000-measurements": [
            (1, {"prune-k/quality_test": 0.5}),
            (2, {"prune-k/size": 8.0}),
            "finished",
        ],
    }


def test_a_second_training_of_one_step_goes_on_counting(runs):
    track(Tracking("toy"), *training("one", [(1, 0.5), (8, 0.4), (1, 0.3), (2, 0.2)]))
    (lines,) = runs.values()
    assert lines == [(1, {"loss": 0.5}), (8, {"loss": 0.4}), (9, {"loss": 0.3}), (10, {"loss": 0.2}), "finished"]


def test_an_interrupted_training_is_finished(runs):
    events = list(training("one", [(1, 0.5)]))[:-1]
    with show_progress(quiet=True, track="toy") as show:
        for event in events:
            show(event)
    assert list(runs.values()) == [[(1, {"loss": 0.5}), "finished"]]


@pytest.mark.parametrize(
    ("name", "message"), [("tpy", "no tracker 'tpy'; did you mean 'toy'"), ("absent", "pip install absent")]
)
def test_a_missing_tracker_is_one_error_before_any_work(runs, name, message):
    with pytest.raises(InputError, match=message):
        check_tracker(name)
    with pytest.raises(InputError, match=message), show_progress(quiet=True, track=name):
        raise AssertionError("work began")
    assert not runs
