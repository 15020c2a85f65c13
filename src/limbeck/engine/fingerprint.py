"""The fingerprint of a model folder: its content decides whether two models are the same, not paths, sizes or times."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from limbeck.core.digests import file_digest, files_of
from limbeck.core.paths import user_path

MODEL_SUFFIXES = {".json", ".safetensors", ".onnx", ".onnx_data", ".txt", ".model", ".data"}


def fingerprint(source: str | Path) -> str:
    """Hash what decides a model: the content of a local folder, or the name of a remote one."""
    folder = user_path(source)
    if not folder.is_dir():
        return f"name:{source}"
    parts = [
        (str(path.relative_to(folder)), file_digest(path))
        for path in files_of(folder)
        if path.suffix in MODEL_SUFFIXES and path.name != "card.json"  # the store's own, in a folder copied from there
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
