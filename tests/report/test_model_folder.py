"""Which files belong to a stored model."""

from __future__ import annotations

import pytest
import stories

from limbeck.errors import InputError
from limbeck.model.layout import model_files
from limbeck.report.artefact import write_artefact
from limbeck.report.model_folder import onnx_file


def test_the_files_of_a_model(exported):
    assert onnx_file(exported) == "onnx/model.onnx"
    names = [path.as_posix() for path in model_files(exported)]
    assert names == ["config.json", "model.safetensors", "onnx/model.onnx", "tokenizer.json", "tokenizer_config.json"]


def test_incomplete_models_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        write_artefact(stories.run_summary(), "qa", tmp_path, tmp_path / "out")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=r"no weights.*model\.safetensors"):
        write_artefact(stories.run_summary(), "qa", tmp_path, tmp_path.parent / "other")
