"""Measurements in the process of the test: starting one takes seconds, and tests/measure does that. Not a test."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from unittest import mock

import pytest

from limbeck.cost_models import table_measurement


@contextmanager
def timed_here():
    """Let the body measure in this process."""

    def call_here(function, payload, threads=1, *, pinned=True):
        module, name = function.split(":")
        return getattr(import_module(module), name)({"threads": threads, **payload})

    with mock.patch("limbeck.measure.isolation.run_isolated", call_here):
        yield


@pytest.fixture
def brief_tables(monkeypatch):
    """Time latency tables briefly, where what they say decides nothing."""
    monkeypatch.setitem(table_measurement.build.__kwdefaults__, "seconds", 0.5)


@pytest.fixture
def in_process():
    """Measure in this process."""
    with timed_here():
        yield
