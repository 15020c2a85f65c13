"""Model folders in the words of the ecosystem: the family's ``config.json`` and file names that other tools look for.

The store keeps models in our own words (``model_type: limbeck``). An artefact is translated: ``config.json`` carries
the family's ``model_type`` and standard keys, and ours lie in one entry, ``limbeck``. A uniform shape becomes a plain
checkpoint of the family. Any other shape keeps our tensor names, with one empty tensor under a name of the family:
plain transformers then refuses the folder for its size instead of filling a whole model with random weights.

Weights are renamed in the file's header and their bytes copied, so no tensor is loaded.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from limbeck.core.outputs import is_token_classifier
from limbeck.core.shape import LayerShape, Shape, attention_core, skipped_positions
from limbeck.model import families

SECTION = "limbeck"
"""The entry of config.json that holds our keys."""
WEIGHTS = "model.safetensors"
CODE = ("attention.py", "encoder.py")
FLOAT_FILE, INT8_FILE = "onnx/model.onnx", "onnx/model_quantized.onnx"

CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "electra": "Electra",
    "distilbert": "DistilBert",
}
"""What transformers' classes of a family begin with."""

FILE_KEYS = frozenset(
    ("_name_or_path", "architectures", "auto_map", "dtype", SECTION, "model_type", "num_labels", "torch_dtype")
)
"""Keys that describe the file and not the model."""


def to_family(config: Mapping[str, Any], *, plain: bool) -> dict[str, Any]:
    """Translate a config.json of ours into one of the family.

    Args:
        config: The content of a config.json with ``model_type`` limbeck.
        plain: Whether the weights become a plain checkpoint of the family, which needs no code of ours.

    Returns:
        The family's standard keys, unknown keys as they were, and our keys in the entry ``limbeck``.
    """
    name = str(config.get("family", "bert"))
    family, shape = families.FAMILIES[name], shape_of(config)
    ours = {key: config[key] for key in sorted(families.OURS) if key in config}
    values = ours | {
        "hidden": shape.hidden,
        "depth": shape.depth,
        "heads": _common([layer.heads for layer in shape.layers], shape.hidden // shape.head_dim),
        "ffn": max((layer.ffn for layer in shape.layers), default=0) or 4 * shape.hidden,
        "embedding_size": config.get("embedding_size") or shape.hidden,
    }
    standard = {key: values[field] for field, (key, _) in family.keys.items() if field in values}
    others = {key: value for key, value in config.items() if key not in families.OURS | FILE_KEYS}
    translated = others | standard | {"model_type": name, SECTION: ours}
    translated["architectures"] = [
        f"{CLASSES[name]}For{'Token' if is_token_classifier(config) else 'Sequence'}Classification"
    ]
    if "dtype" in config:
        translated["dtype"] = config["dtype"]
    if not plain and "auto_map" in config:
        translated["auto_map"] = config["auto_map"]
    return translated


def from_family(config: Mapping[str, Any]) -> dict[str, Any]:
    """Undo :func:`to_family`; any other configuration comes back as it is.

    Labels are read where other tools read and edit them.
    """
    ours = config.get(SECTION)
    if not isinstance(ours, Mapping) or "layer_heads" not in ours:
        return dict(config)
    name = str(ours.get("family", "bert"))
    standard = {key for key, _ in families.FAMILIES[name].keys.values()} if name in families.FAMILIES else set()
    others = {key: value for key, value in config.items() if key not in standard | {SECTION}}
    return others | dict(ours) | {"model_type": SECTION}


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Shape that a config.json of ours describes."""
    heads = config["layer_heads"]
    kinds = config.get("layer_attention") or ["softmax"] * len(heads)
    rows = zip(heads, config["layer_ffn"], map(attention_core, kinds), strict=True)
    return Shape(config["hidden_size"], config["head_dim"], tuple(LayerShape(*row) for row in rows))


def guard_name(family: str) -> str:
    """The tensor of the family that is left empty where its model cannot hold the weights."""
    row = families.FAMILIES[family]
    return f"{row.prefix}.{row.embeddings['norm']}.weight"


def our_tensor_names(tensors: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Our name of every tensor in a file of ours, translated or not; the empty guard is left out."""
    tensors, family = set(tensors), str(config.get("family", "bert"))
    if family not in families.FAMILIES:
        return {name: name for name in tensors}
    if any(name.startswith("encoder.") and not name.startswith("encoder.layer.") for name in tensors):
        return {name: name for name in tensors - {guard_name(family)}}
    known = _our_names(config)
    return {name: known.get(name, name) for name in tensors}


def translate_folder(folder: str | Path) -> None:
    """Rewrite a folder of ours, in place, in the words of its family; a folder of another kind stays as it is.

    Afterwards ``onnx/model.onnx`` is there if any ONNX file is: an INT8 file has both names.
    """
    folder = Path(folder)
    _both_names(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("model_type") != SECTION or config.get("family", "bert") not in families.FAMILIES:
        return
    plain = _translate_weights(folder, config)
    if plain:
        for name in CODE:
            (folder / name).unlink(missing_ok=True)
    _limit_tokenizer(folder, config)
    text = json.dumps(to_family(config, plain=plain), indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def restore_weights(source: Path, target: Path, config: Mapping[str, Any]) -> None:
    """Copy weights under our names, whether they have those or the family's."""
    rewrite_weights(source, target, our_tensor_names(tensor_names(source), config))


def rewrite_weights(source: Path, target: Path, names: Mapping[str, str], empty: tuple[str, ...] = ()) -> None:
    """Copy a safetensors file under other tensor names; only the header is held in memory.

    Args:
        source: The file to read.
        target: The file to write, another one.
        names: The new name of each tensor; one that is absent here must be empty, and is left out.
        empty: Names of tensors to add, each of size [0].
    """
    with source.open("rb") as given, target.open("wb") as written:
        header = json.loads(given.read(int.from_bytes(given.read(8), "little")))
        metadata = header.pop("__metadata__", {"format": "pt"})
        renamed = {names[name]: entry for name, entry in header.items() if name in names}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        renamed |= {name: {"dtype": "F32", "shape": [0], "data_offsets": [end, end]} for name in empty}
        text = json.dumps({"__metadata__": metadata} | renamed, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the format asks for aligned data
        written.write(len(text).to_bytes(8, "little") + text)
        shutil.copyfileobj(given, written, 2**22)


def tensor_names(path: Path) -> set[str]:
    """Names of the tensors in a safetensors file, from its header."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return set(header) - {"__metadata__"}


def _our_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Our name of each tensor of the family."""
    depth, family = len(config.get("layer_heads", ())), str(config.get("family", "bert"))
    modules = families.module_names(family, depth, per_token=is_token_classifier(config)).items()
    return {f"{theirs}.{part}": f"{ours}.{part}" for ours, theirs in modules for part in ("weight", "bias")}


def _translate_weights(folder: Path, config: Mapping[str, Any]) -> bool:
    """Rewrite the weights where they are there; whether the family's own model can open them now."""
    path, shape = folder / WEIGHTS, shape_of(config)
    plain = not families.ragged_layers(shape) and shape.depth > 0
    if not path.is_file():
        return plain
    theirs = {ours: name for name, ours in _our_names(config).items()}
    names = tensor_names(path)
    plain = plain and names <= theirs.keys()
    draft = path.with_name(f".{WEIGHTS}")
    if plain:
        rewrite_weights(path, draft, theirs)
    else:
        guard = guard_name(str(config.get("family", "bert")))
        rewrite_weights(path, draft, {name: name for name in names}, (guard,))
    os.replace(draft, path)
    return plain


def _both_names(folder: Path) -> None:
    """Give the INT8 file the name of the float file too: text-embeddings-inference looks for no other.

    transformers.js takes ``model.onnx`` unless told otherwise, and ``model_quantized.onnx`` for ``dtype: q8``. The
    two are one file on disk where the file system allows it; external data has one name anyway.
    """
    served, other = folder / INT8_FILE, folder / FLOAT_FILE
    if served.is_file() and not other.exists():
        try:
            os.link(served, other)
        except OSError:
            shutil.copyfile(served, other)


def _limit_tokenizer(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the longest text that the model takes where the tokenizer names none, or one beyond it."""
    path = folder / "tokenizer_config.json"
    if not path.is_file() or "max_positions" not in config:
        return
    settings = json.loads(path.read_text(encoding="utf-8"))
    longest = config["max_positions"] - skipped_positions(config.get("position_offset"))
    if not 0 < (settings.get("model_max_length") or 0) <= longest:
        settings["model_max_length"] = longest
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _common(values: list[int], usual: int) -> int:
    """The number that all layers share, else the usual one of the family."""
    return values[0] if values and len(set(values)) == 1 and values[0] else usual
