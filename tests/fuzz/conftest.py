"""What every malformed input must obey."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from fuzzing import OneClearError
from malformed_files import FILES
from toy_fixtures import toys  # noqa: F401

from limbeck.errors import RenamedWarning


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RenamedWarning)
        yield


@pytest.fixture
def rule(tmp_path, monkeypatch):
    rule = OneClearError(tmp_path)
    monkeypatch.delenv("TOY_CALLS", raising=False)  # the toys' own list, outside of where the rule allows files
    monkeypatch.chdir(rule.work)
    for suffix, files in FILES.items():
        Path(f"data.{suffix}").write_bytes(files[0])
    return rule
