"""Content decides which model it is."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from limbeck.engine.store.fingerprint import fingerprint


def test_it_follows_the_content(toys, tmp_path):
    first = toys.model_folder(tmp_path / "a")
    same = toys.model_folder(tmp_path / "b")
    other = toys.model_folder(tmp_path / "c", [5.0])
    assert fingerprint(first) == fingerprint(same) != fingerprint(other)
    assert fingerprint("some/hub-name") == "name:some/hub-name"


def test_another_model_of_the_same_path_size_and_time_is_another(tmp_path):
    """Written over, renamed over, or a whole folder in place of another; also when the first one is old."""
    folder, weights = tmp_path / "model", tmp_path / "model" / "model.safetensors"
    folder.mkdir()
    seen = set()
    for number, change in enumerate(("write", "rename", "folder", "write")):
        if change == "write":
            weights.write_bytes(bytes([number]) * 4096)
        elif change == "rename":
            (folder / "new").write_bytes(bytes([number]) * 4096)
            (folder / "new").replace(weights)
        else:
            shutil.copytree(folder, tmp_path / "copy")
            (tmp_path / "copy" / weights.name).write_bytes(bytes([number]) * 4096)
            shutil.rmtree(folder)
            (tmp_path / "copy").rename(folder)
        os.utime(weights, ns=(10**18, 10**18))
        seen.add(fingerprint(folder))
    assert len(seen) == 4


def test_it_follows_the_external_data_of_an_onnx_file(toys, tmp_path):
    folder = Path(toys.model_folder(tmp_path / "a"))
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"graph")
    seen = set()
    for content in (b"weights", b"other weights"):
        (folder / "onnx" / "model.onnx_data").write_bytes(content)
        seen.add(fingerprint(folder))
    assert len(seen) == 2


def test_outputs_inside_do_not_count_and_the_model_s_own_folders_do(toys, tmp_path):
    folder = Path(toys.model_folder(tmp_path / "a"))
    before = fingerprint(folder)
    for name in ("artefact/model.safetensors", "runs/toy/front.json", "epoch_001/config.json", "checkpoint-10/a.json"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"{}")
    assert fingerprint(folder) == before
    seen = {before}
    for name in ("onnx/model.onnx", "0_Transformer/model.safetensors", "1_Pooling/config.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"{}")
        seen.add(fingerprint(folder))
    assert len(seen) == 4


def test_shards_that_an_index_names_count_wherever_they_lie(tmp_path):
    (tmp_path / "parts").mkdir()
    index = {"weight_map": {"a": "parts/1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    seen = set()
    for content in (b"weights", b"other weights"):
        (tmp_path / "parts" / "1.safetensors").write_bytes(content)
        seen.add(fingerprint(tmp_path))
    assert len(seen) == 2
