"""The fingerprint of a model folder or a file of scores: content decides what is the same, not path or time.

The content of a model is what it may be opened from. Folders inside it that hold other things, such as a run or another
model, do not count: writing an output there does not make it another model.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from limbeck.core.digests import file_digest, files_of, short_digest
from limbeck.core.paths import user_path
from limbeck.errors import InputError
from limbeck.model.folder_files import shards

MODEL_SUFFIXES = {".json", ".safetensors", ".onnx", ".onnx_data", ".txt", ".model", ".data"}
INNER = re.compile(r"onnx|[0-9]+_\w+")
"""Folders that belong to the model around them: its graphs, and the modules of sentence-transformers."""


def fingerprint(source: str | Path) -> str:
    """Hash what identifies a model: the content of a local folder (or file of scores), or the name of a remote one."""
    folder = user_path(source)
    if folder.is_file():
        return short_digest(folder)
    if not folder.is_dir():
        return f"name:{source}"
    named = _shards(folder)
    parts = [
        (str(path.relative_to(folder)), file_digest(path))
        for path in files_of(folder)
        if path.suffix in MODEL_SUFFIXES and path.name != "card.json"  # the store's own, in a folder copied from there
        if path.parent == folder or path in named or INNER.fullmatch(path.relative_to(folder).parts[0])
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _shards(folder: Path) -> set[Path]:
    """Return the files that an index of weights names; none if there is no index, or one that cannot be read."""
    try:
        return set(shards(folder))
    except InputError:  # opening the model reports what is wrong
        return set()
