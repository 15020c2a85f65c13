"""File names in a model folder, and what can be read from them without opening a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.core.shape import LayerShape, Shape, attention_core

WEIGHTS = "model.safetensors"
CODE = ("attention.py", "encoder.py", "layers.py", "style.py")
"""The modelling files that a folder carries, so that transformers opens it where limbeck is not installed."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a config.json of ours describes."""
    heads, ffn = config.get("layer_heads", ()), config.get("layer_ffn", ())
    attention = config.get("layer_attention") or ["softmax"] * len(heads)
    rows = zip(heads, ffn, map(attention_core, attention), strict=True)
    return Shape(config["hidden_size"], config["head_dim"], tuple(LayerShape(*row) for row in rows))


def tensor_names(path: Path) -> set[str]:
    """Read the names of the tensors in a safetensors file from its header."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return set(header) - {"__metadata__"}
