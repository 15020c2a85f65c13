"""Paths are answered for, however odd."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck.core.paths import cache_folder, exists, is_path, user_path


def test_a_home_directory_is_filled_in_where_there_is_one(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a") == tmp_path / "a"
    assert user_path("~nobody-has-this-name/a") == Path("~nobody-has-this-name/a")
    assert cache_folder() == tmp_path / ".cache"


def test_without_a_home_directory_paths_stay_and_caches_are_private(monkeypatch, tmp_path):
    def homeless(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert user_path("~/a") == Path("~/a")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = cache_folder()
    assert folder.parent == tmp_path
    assert cache_folder() == folder
    folder.chmod(0o777)  # another user may have filled it
    assert cache_folder() != folder


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "none", "a/" * 3000, "\ud800"])
def test_what_no_file_can_be_called_does_not_exist(path):
    assert not exists(Path(path))


def test_what_is_there_exists(tmp_path):
    assert exists(tmp_path)


def test_a_hub_name_is_no_path(tmp_path, monkeypatch):
    assert not is_path("owner/name")
    assert is_path("./folder/of/models")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    assert is_path("owner/name")
