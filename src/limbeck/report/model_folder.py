"""The stored folder of a model: the files that belong to it, and the inputs of its ONNX graph."""

from __future__ import annotations

from pathlib import Path

from limbeck.errors import InputError

ONNX_FILES = ("onnx/model_quantized.onnx", "onnx/model.onnx")
"""Where Hugging Face tools look for ONNX files; the first one present is served."""


def onnx_file(folder: Path) -> str | None:
    """Return the ONNX file that a folder serves, relative to it; None if there is none."""
    return next((name for name in ONNX_FILES if (folder / name).is_file()), None)


def check_source(folder: Path) -> None:
    """Refuse a folder that is not a complete model.

    Args:
        folder: Folder of the model.

    Raises:
        InputError: Configuration, tokenizer or weights are missing.
    """
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} cannot be served: it has no {name}; save the model with save_model first")
    if onnx_file(folder) is None and not (folder / "model.safetensors").is_file():
        raise InputError(f"{folder} has no weights; expected model.safetensors or one of {', '.join(ONNX_FILES)}")


def graph_inputs(path: Path) -> list[str]:
    """Return the names of a graph's inputs, without reading its weights."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in weights]
