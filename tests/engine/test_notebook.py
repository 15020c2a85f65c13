"""Progress in a notebook, with a display that remembers what it was shown."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from limbeck.engine import notebook
from limbeck.engine.progress import listening, show_progress

EVENTS = (
    {"kind": "step_start", "step": "finetune", "position": 1, "total": 2, "candidates": 3},
    {"kind": "progress", "step": "finetune", "key": "k", "numbers": {"step": 1, "total": 4, "loss": 0.5}},
    {"kind": "log", "step": "finetune", "key": "k", "message": "<b>4 steps</b>"},
    {"kind": "failed", "step": "prune", "error": "too thin"},
)


@pytest.fixture
def pictures(monkeypatch):
    """A kernel whose cell shows these pictures, one after the other."""
    shown = []
    display = SimpleNamespace(
        HTML=str, display=lambda html, display_id: shown.append(html) or SimpleNamespace(update=shown.append)
    )
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel="kernel")))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


def test_a_plain_process_is_no_notebook(monkeypatch):
    assert not notebook.is_here()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    assert not notebook.is_here()  # a terminal


def test_the_cell_shows_steps_training_and_lines(pictures, capsys):
    assert notebook.is_here()
    with show_progress() as show:
        for event in EVENTS:
            show(event)
    last = pictures[-1]
    for part in ("finetune x3", "0/2", "training", "1/4", "loss 0.500", "&lt;b&gt;4 steps&lt;/b&gt;", "failed: prune"):
        assert part in last
    assert capsys.readouterr() == ("", "")


def test_training_goes_when_it_ends(pictures):
    with show_progress() as show:
        for event in (*EVENTS, {"kind": "candidate_end"}, {"kind": "step_end", "position": 1}, {"kind": "finished"}):
            show(event)
    assert "training" not in pictures[-1]
    assert "2/2" in pictures[-1]


def test_a_fast_loop_does_not_flood_the_browser(pictures):
    with show_progress() as show:
        for _ in range(1000):
            show(EVENTS[1])
    assert len(pictures) < 20


def test_nothing_is_shown_before_the_first_event(pictures):
    with show_progress():
        pass
    assert not pictures


@pytest.mark.parametrize(
    ("on_event", "progress", "shown"),
    [(None, None, True), (print, None, False), (print, True, True), (None, False, False)],
)
def test_progress_is_the_default_where_nobody_listens(pictures, on_event, progress, shown):
    with listening(on_event, progress) as show:
        show(EVENTS[0])
    assert bool(pictures) == shown


def test_a_caller_hears_all_events(capsys):
    heard = []
    with listening(heard.append, None) as show:
        for event in EVENTS:
            show(event)
    assert heard == list(EVENTS)
    assert capsys.readouterr() == ("", "")
