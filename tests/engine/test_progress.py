"""Showing a run: nothing before the first event, progress on standard error, numbers to a tracker."""

from __future__ import annotations

import pytest

from limbeck.engine.progress import show_progress

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
