"""Showing a run: nothing before the first event, progress on standard error, numbers to a tracker."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from limbeck.engine.progress import show_progress
from limbeck.errors import LimbeckError

EVENTS = (
    {"kind": "step_start", "step": "finetune", "position": 1, "total": 2, "candidates": 3},
    {"kind": "progress", "step": "finetune", "key": "k", "numbers": {"step": 1, "total": 4, "loss": 0.5}},
    {"kind": "log", "step": "finetune", "key": "k", "message": "4 steps [in] 1 s"},
    {"kind": "candidate_end"},
    {"kind": "facts", "key": "k", "step": "size", "facts": [{"name": "size", "value": 8.0}]},
    {"kind": "failed", "step": "prune", "error": "too thin"},
    {"kind": "step_end", "position": 1},
    {"kind": "finished"},
)


def test_lines_worth_reading_go_to_standard_error(capsys):
    with show_progress() as show:
        for event in EVENTS:
            show(event)
    out, err = capsys.readouterr()
    assert not out
    assert "finetune: 4 steps [in] 1 s" in err
    assert "failed: prune: too thin" in err
    assert "finetune x3" in err


def test_nothing_is_drawn_when_nothing_happened_or_nobody_looks(capsys):
    with pytest.raises(KeyError), show_progress():
        raise KeyError("before the first event")
    with show_progress(quiet=True) as show:
        for event in EVENTS:
            show(event)
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def tracker(monkeypatch):
    """Accelerate with one tracker that is installed and one that is not."""
    from accelerate import tracking

    seen = []

    class Toy:
        requires_logging_directory = False

        def __init__(self, name):
            seen.append(name)

        def log(self, values, step):
            seen.append((step, values))

        def finish(self):
            seen.append("finished")

    monkeypatch.setattr(tracking, "LOGGER_TYPE_TO_CLASS", {"toy": Toy, "absent": Toy})
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [SimpleNamespace(value="toy")])
    return seen


def test_a_tracker_gets_numbers_and_facts(tracker):
    with show_progress(quiet=True, track="toy") as show:
        for event in EVENTS:
            show(event)
    assert tracker == [
        "limbeck",
        (1, {"finetune/step": 1, "finetune/total": 4, "finetune/loss": 0.5}),
        (1, {"k/size": 8.0}),
        "finished",
    ]


@pytest.mark.parametrize(
    ("name", "message"), [("tpy", "no tracker 'tpy'; did you mean 'toy'"), ("absent", "pip install absent")]
)
def test_a_missing_tracker_is_one_error_before_any_work(tracker, name, message):
    with pytest.raises(LimbeckError, match=message), show_progress(quiet=True, track=name):
        raise AssertionError("work began")
    assert not tracker
