"""Toy steps for all tests of the engine."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from limbeck.core.step import REGISTRY
from limbeck.recipe.parsing import registry


def _load():
    spec = importlib.util.spec_from_file_location("engine_toys", Path(__file__).with_name("toys.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["engine_toys"] = module
    spec.loader.exec_module(module)
    return module


_TOYS = sys.modules.get("engine_toys") or _load()


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """The module of the toys, its steps registered; ``toys.calls()`` tells what was really done."""
    monkeypatch.setitem(_TOYS.__dict__, "calls", lambda: _lines(tmp_path / "calls"))
    monkeypatch.setenv(_TOYS.CALLS, str(tmp_path / "calls"))
    before = dict(registry())
    REGISTRY.update(_TOYS.TOYS)
    yield _TOYS
    REGISTRY.clear()
    REGISTRY.update(before)


def _lines(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1] if path.exists() else []
