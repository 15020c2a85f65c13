"""The import watcher changes nothing but the moment of the call back. (Registration itself: model/test_files.py.)"""

from __future__ import annotations

import importlib
import sys

import limbeck
from limbeck._register import Watcher, install


def test_the_watcher_calls_back_once_the_module_is_complete(tmp_path, monkeypatch):
    (tmp_path / "watched_module.py").write_text("import other_module\nvalue = 1\n")
    (tmp_path / "other_module.py").write_text("value = 2\n")
    seen = []
    watcher = Watcher(["watched_module"], lambda: seen.append((sys.modules["watched_module"].value, watcher.idle())))
    monkeypatch.setattr(sys, "meta_path", [watcher, *sys.meta_path])
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("watched_module")
    assert seen == [(1, True)]
    other = importlib.import_module("other_module")
    assert type(module.__loader__) is type(other.__loader__)
    assert module.__spec__.loader is module.__loader__
    for name in ("watched_module", "other_module"):
        monkeypatch.delitem(sys.modules, name)


def test_installing_again_changes_nothing():
    before = list(sys.meta_path)
    install()
    assert sys.meta_path == before


def test_public_names_are_sorted_and_at_home():
    assert limbeck.__all__ == sorted(limbeck.__all__)
    assert set(limbeck.__all__) == {*limbeck._HOME, "__version__"}
    assert set(limbeck.__all__) <= set(dir(limbeck))
    assert limbeck.Shape.__module__ == "limbeck.core.shape"
    assert not hasattr(limbeck, "no_such_name")
