from pathlib import Path

import pytest

from limbeck.recipe.relative_paths import resolve_files, resolve_path


@pytest.mark.parametrize(("text", "moves"), [("data.csv", True), ("sst2", False), ("", False), ("hub/name", False)])
def test_only_what_lies_beside_the_recipe_is_a_path(tmp_path, text, moves):
    (tmp_path / "data.csv").touch()
    assert resolve_path(text, tmp_path) == (str((tmp_path / text).resolve()) if moves else text)
    assert resolve_path(text, None) == text
    assert resolve_path(str(tmp_path / "x"), Path("/elsewhere")) == str(tmp_path / "x")


def test_lists_of_files_and_no_other_fields(toys, tmp_path, monkeypatch):
    (tmp_path / "a").touch()
    monkeypatch.setattr(toys.ToyTrain, "info", toys.ToyTrain.info.__class__("toy-train", files={"terms"}))
    given = {"terms": ["a", "b", 3], "kind": "a"}
    assert resolve_files(toys.ToyTrain, given, tmp_path) == {"terms": [str(tmp_path / "a"), "b", 3], "kind": "a"}
