"""Folders of sentence-transformers: read how their vectors are made, and write ours so that they open them.

``modules.json`` lists the parts, in order: a transformer, pooling, perhaps dense layers, perhaps normalization. Other
parts, and other orders, are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.sentence_embedding import ACTIVATIONS, Dense, SentenceEmbedding
from limbeck.errors import InputError, UnsupportedModel, nearest, shown
from limbeck.model._transformers import explained
from limbeck.model.finite_weights import check_finite
from limbeck.model.folder_files import inner_file, read_json, read_object

if TYPE_CHECKING:
    from torch import Tensor

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
LENGTHS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Files beside the transformer that hold its maximum length, by the age of the folder."""
LEGACY = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of older pooling configurations, and the modes they stand for."""
TORCH_NAMES = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "gelu": "torch.nn.modules.activation.GELU",
    "relu": "torch.nn.modules.activation.ReLU",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "silu": "torch.nn.modules.activation.SiLU",
}
"""Classes of torch by our names of activations."""
FILES = (MODULES, SETTINGS, LENGTHS[0])
"""What :func:`write_modules` writes beside the folders of the parts."""


def read_embedding(root: Path) -> SentenceEmbedding | None:
    """Read how a folder of sentence-transformers makes vectors; None for a folder that is none of theirs.

    Args:
        root: The folder with ``modules.json``, which may have the transformer in a folder inside.

    Raises:
        InputError: A file is damaged.
        UnsupportedModel: A part, an order of parts or a setting is not supported; names what is.
    """
    if not (root / MODULES).is_file():
        return None
    parts = _parts(root)
    kinds = [kind for kind, _ in parts]
    if "Pooling" not in kinds:
        return None  # a cross-encoder, or a sparse encoder
    settings = _settings(root)
    usual = ["Transformer", "Pooling", *["Dense"] * kinds.count("Dense"), *["Normalize"] * ("Normalize" in kinds)]
    if kinds != usual:
        supported = "Transformer, Pooling, any number of Dense, then perhaps Normalize"
        raise UnsupportedModel(f"{root / MODULES} has the parts {', '.join(kinds)}; supported are {supported}")
    folders = [_inner(root, path) for _, path in parts]
    check_similarity(root)
    prompts = {str(name): str(text or "") for name, text in (settings.get("prompts") or {}).items()}
    pooling = _pooling(folders[1], prompts)
    dense = tuple(_dense(folder) for (kind, _), folder in zip(parts, folders, strict=True) if kind == "Dense")
    lengths: Mapping[str, Any] = next(
        (read_object(folders[0] / name) for name in LENGTHS if (folders[0] / name).is_file()), {}
    )
    longest = lengths.get("max_seq_length")
    if longest is not None and (not isinstance(longest, int) or isinstance(longest, bool) or longest < 1):
        raise InputError(f"{folders[0]}: max_seq_length should be a whole number of at least 1, got {shown(longest)}")
    try:
        return SentenceEmbedding(
            pooling,
            dense,
            "Normalize" in kinds,
            prompts,
            settings.get("default_prompt_name"),
            longest,
            bool(lengths.get("do_lower_case", False)),
        )
    except InputError as error:
        raise UnsupportedModel(f"{root}: {error}") from None


def read_dense(root: Path) -> dict[str, Tensor]:
    """Read the weights of the dense layers, under the names of our model.

    Args:
        root: The folder with ``modules.json``.

    Raises:
        InputError: A layer has no safetensors file, one of another size than its configuration says, or one with NaN.
    """
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    folders = [_inner(root, path) for kind, path in _parts(root) if kind == "Dense"]
    for index, folder in enumerate(folders):
        path = folder / "model.safetensors"
        if not path.is_file():
            raise InputError(f"{folder} has no model.safetensors; save the model with a newer sentence-transformers")
        inner_file(folder, path.name, (".safetensors",), MODULES)
        with explained(path):
            tensors = load_file(path)
        layer = _dense(folder)
        expected = {"linear.weight", "linear.bias"} if layer.bias else {"linear.weight"}
        if set(tensors) != expected or len(tensors["linear.weight"]) != layer.width:
            sizes = {name: list(tensor.shape) for name, tensor in tensors.items()}
            raise InputError(f"{path} should hold {sorted(expected)} of width {layer.width}, got {sizes}")
        check_finite(tensors, path)
        weights |= {f"dense.{index}.{name.removeprefix('linear.')}": tensor for name, tensor in tensors.items()}
    return weights


def write_modules(root: Path, embedding: SentenceEmbedding, hidden: int, dense: Mapping[str, Tensor]) -> None:
    """Write the files that make a model folder one of sentence-transformers.

    Args:
        root: A folder with the transformer.
        embedding: How vectors are made.
        hidden: Hidden width of the transformer.
        dense: Weights of the dense layers, under the names of our model.
    """
    from safetensors.torch import save_file

    kinds = ["Transformer", "Pooling", *["Dense"] * len(embedding.dense), *["Normalize"] * embedding.normalize]
    paths = ["", *(f"{index}_{kind}" for index, kind in enumerate(kinds) if index)]
    rows = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    _write(root / MODULES, rows)
    prompts = {"prompts": dict(embedding.prompts), "default_prompt_name": embedding.default_prompt}
    _write(root / SETTINGS, {**prompts, "similarity_fn_name": "cosine"})
    _write(root / LENGTHS[0], {"max_seq_length": embedding.max_length, "do_lower_case": embedding.lower_case})
    legacy = {key: mode == embedding.pooling for key, mode in LEGACY.items()}
    _write(root / paths[1] / "config.json", {"word_embedding_dimension": hidden, **legacy, "include_prompt": True})
    width = hidden
    for index, (layer, path) in enumerate(zip(embedding.dense, paths[2:], strict=False)):
        sizes = {"in_features": width, "out_features": layer.width, "bias": layer.bias}
        _write(root / path / "config.json", {**sizes, "activation_function": TORCH_NAMES[layer.activation]})
        names = ("weight", "bias") if layer.bias else ("weight",)
        tensors = {f"linear.{name}": dense[f"dense.{index}.{name}"].detach().cpu().contiguous() for name in names}
        save_file(tensors, root / path / "model.safetensors")
        width = layer.width
    if embedding.normalize:
        (root / paths[-1]).mkdir(exist_ok=True)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _parts(root: Path) -> list[tuple[str, str]]:
    """Return the parts in their order: the name of the class, and the folder in the root."""
    return [(name.rpartition(".")[2], path) for name, path in _classes(root)]


def _classes(root: Path) -> list[tuple[str, str]]:
    """Return the parts in their order: the class with its module, and the folder in the root."""
    rows = read_json(root / MODULES)
    entries = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    if not entries or not all(isinstance(row.get("type"), str) and isinstance(row.get("path"), str) for row in entries):
        raise InputError(f"{root / MODULES} should list parts, each with a type and a path, got {shown(rows)}")
    return [(row["type"], row["path"]) for row in entries]


def check_gives_vectors(root: Path) -> None:
    """Refuse a folder of sentence-transformers that gives no vectors, or that would run code of others when opened.

    Args:
        root: The folder with ``modules.json``.

    Raises:
        InputError: Says which part is missing, or is none of sentence-transformers.
    """
    names = [name for name, _ in _classes(root)]
    kinds = [name.rpartition(".")[2] for name in names]
    if "Pooling" not in kinds:
        raise InputError(f"{root / MODULES} has the parts {', '.join(kinds)} and no Pooling, so it gives no vectors")
    for name in names:
        if not name.startswith("sentence_transformers."):
            raise InputError(f"{root / MODULES} names {shown(name)}, which is no part of sentence-transformers")


def check_similarity(root: Path) -> None:
    """Refuse a folder whose vectors are not compared by their cosine, by which ours are trained and judged.

    Args:
        root: The folder with ``modules.json``.

    Raises:
        UnsupportedModel: Names the similarity, and those that are supported.
    """
    name, normalized = _settings(root).get("similarity_fn_name"), "Normalize" in [kind for kind, _ in _parts(root)]
    if name in (None, "cosine") or (name == "dot" and normalized):  # of vectors of length 1, both are the same
        return
    raise UnsupportedModel(
        f"{root / SETTINGS}: similarity_fn_name {shown(name)} is not supported: vectors are trained and judged by "
        "their cosine; supported are 'cosine', and 'dot' where modules.json ends with Normalize"
    )


def _settings(root: Path) -> dict[str, Any]:
    return read_object(root / SETTINGS) if (root / SETTINGS).is_file() else {}


def _inner(root: Path, path: str) -> Path:
    return inner_file(root, path, ("",), MODULES) if path else root


def _pooling(folder: Path, prompts: Mapping[str, str]) -> str:
    config = read_object(folder / "config.json")
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        modes: Sequence[object] = mode if isinstance(mode, list) else [mode]
    else:
        modes = [mode for key, mode in LEGACY.items() if config.get(key)] or ["mean"]
    if len(modes) != 1:
        raise UnsupportedModel(f"{folder} joins {len(modes)} poolings, {', '.join(map(str, modes))}; supported is one")
    if config.get("include_prompt") is False and any(prompts.values()):
        raise UnsupportedModel(f"{folder} leaves the prompt out of the pooling; supported is include_prompt: true")
    return str(modes[0])


def _dense(folder: Path) -> Dense:
    config = read_object(folder / "config.json")
    if config.get("use_residual") or config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise UnsupportedModel(f"{folder} has a residual, or reads no sentence embedding; supported is a plain layer")
    name = str(config.get("activation_function", TORCH_NAMES["tanh"]))
    activation = name.rpartition(".")[2].lower()
    if not name.startswith("torch.nn.") or activation not in ACTIVATIONS:
        raise UnsupportedModel(f"{folder} has the activation {shown(name)}; {nearest(name, TORCH_NAMES.values())}")
    width = config.get("out_features")
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise InputError(f"{folder}: out_features should be a whole number of at least 1, got {shown(width)}")
    return Dense(width, bool(config.get("bias", True)), activation)
