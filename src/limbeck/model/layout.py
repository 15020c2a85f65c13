"""File names in a model folder, and what can be read from them without opening a model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from limbeck.core.cascade import cascade_in
from limbeck.core.early_exits import leaves_early
from limbeck.core.finite import load_json
from limbeck.core.shape import LayerShape, Shape, attention_core, token_share
from limbeck.errors import InputError
from limbeck.model.style import Style

WEIGHTS = "model.safetensors"
CODE = (
    "attention.py", "calling_convention.py", "configuration.py", "disentangled_attention.py", "dropout.py",
    "embeddings.py", "encoder.py", "heads.py", "layers.py", "output_losses.py", "style.py", "token_pruning.py",
    "vector_losses.py",
)  # fmt: skip
"""The modeling files that a folder carries, so that transformers opens it where limbeck is not installed."""
TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "sentencepiece.model", "spiece.model",
    "spm.model",
)  # fmt: skip
ONNX_SUFFIXES = (".onnx", ".onnx_data", ".onnx.data")
PATTERNS = (
    "config.json", "*.safetensors", "*.safetensors.index.json", "onnx/*.onnx*", "*.jinja",
    "tokenizer*.json", "tokenizer*.model", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "sentencepiece*.model", "spiece.model", "spm.model",
)  # fmt: skip
"""Files that belong to a model and are data. Its code is ours (``CODE``) and never comes from a folder."""
CODE_FOLDER = Path(__file__).parent
LARGEST_HEADER = 100_000_000
"""Bytes of the list of tensors in a safetensors file, as the format limits it."""


def model_files(folder: Path) -> list[Path]:
    """List the files that belong to a model, relative to its folder, code excepted."""
    return sorted({path.relative_to(folder) for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()})


def is_exported(folder: Path) -> bool:
    """Whether a folder holds an exported model of ours and nothing else.

    Args:
        folder: A folder.
    """
    files = {path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()}
    ours = {*model_files(folder), *map(Path, CODE)}
    try:
        config = load_json((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return files <= ours and isinstance(config, dict) and config.get("limbeck_runtime", "torch") != "torch"


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a config.json of ours describes."""
    heads, ffn = config.get("layer_heads", ()), config.get("layer_ffn", ())
    attention = config.get("layer_attention") or ["softmax"] * len(heads)
    tokens = config.get("layer_tokens") or [1.0] * len(heads)
    rows = zip(heads, ffn, map(attention_core, attention), map(token_share, tokens), strict=True)
    return Shape(config["hidden_size"], config["head_dim"], tuple(LayerShape(*row) for row in rows))


def shape_config(shape: Shape) -> dict[str, Any]:
    """Return the keys of a config.json of ours that describe a shape, the inverse of :func:`shape_of`."""
    keys = {
        "hidden_size": shape.hidden,
        "head_dim": shape.head_dim,
        "layer_heads": [layer.heads for layer in shape.layers],
        "layer_ffn": [layer.ffn for layer in shape.layers],
        "layer_attention": [layer.attention for layer in shape.layers],
    }
    return keys | ({"layer_tokens": list(shape.tokens)} if shape.tokens else {})


def traits_of(config: Mapping[str, Any], shape: Shape, source: object = "model") -> frozenset[str]:
    """Return the traits of a model as a recipe's input, from its config.json; see ``TRAITS`` of ``core/step.py``.

    Heads after inner layers are early exits once a threshold says when they answer.

    Args:
        config: Content of config.json.
        shape: The model's shape.
        source: Name of the model in errors.
    """
    present = {
        "elastic": bool(config.get("space")),
        "exits": leaves_early(config, source),
        "cascade": cascade_in(config, source) is not None,
        "fewer_tokens": bool(shape.tokens),
    }
    runtime = "torch" if config.get("limbeck_runtime", "torch") == "torch" else "onnx"
    return frozenset({runtime, *(trait for trait, there in present.items() if there)})


def style_of(config: Mapping[str, Any]) -> Style:
    """Return the style that a config.json of ours describes; fields newer than the file have their defaults."""
    names = (field.name for field in fields(Style))
    return Style(**{name: config[name] for name in names if name in config})


def write_code(folder: Path) -> None:
    """Write the package's modeling code into a model folder, over whatever has its names there."""
    for name in CODE:
        (folder / name).unlink(missing_ok=True)  # a link would be written through
        shutil.copyfile(CODE_FOLDER / name, folder / name)


def tensor_names(path: Path) -> set[str]:
    """Read the names of the tensors in a safetensors file from its header."""
    return set(tensor_sizes(path))


def tensor_sizes(path: Path) -> dict[str, list[int]]:
    """Read the sizes of the tensors in a safetensors file, by name, from its header.

    Args:
        path: The file.

    Raises:
        InputError: The file has no such header.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(LARGEST_HEADER, path.stat().st_size):
                raise ValueError(f"its list of tensors should have {length:,} bytes")
            header = load_json(file.read(length))
        return {name: list(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no safetensors file, or is cut off or damaged: {error}") from error
