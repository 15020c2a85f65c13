"""Model folders in the ecosystem's terms: the family's ``config.json``, and the file names that other tools look for.

The store keeps models under our own keys (``model_type: limbeck``). An artefact is translated: ``config.json`` has
the family's ``model_type`` and standard keys, and ours are in one entry, ``limbeck``. A uniform shape becomes a plain
checkpoint of the family. Any other shape keeps our tensor names, with one empty tensor under one of the family's names:
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
from limbeck.core.shape import skipped_positions
from limbeck.model import families
from limbeck.model.family_table import FAMILIES
from limbeck.model.layout import CODE, WEIGHTS, shape_of, tensor_names
from limbeck.model.onnx.onnx_model import FLOAT_FILE, INT8_FILE

SECTION = "limbeck"
"""The entry of config.json with our keys."""

CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "electra": "Electra",
    "distilbert": "DistilBert",
    "mpnet": "MPNet",
    "ernie": "Ernie",
    "camembert": "Camembert",
    "data2vec-text": "Data2VecText",
    "albert": "Albert",
    "rembert": "RemBert",
    "roformer": "RoFormer",
    "megatron-bert": "MegatronBert",
    "roberta-prelayernorm": "RobertaPreLayerNorm",
    "xlm-roberta-xl": "XLMRobertaXL",
}
"""Prefix of transformers' class names, by family."""

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
    family, shape = FAMILIES[name], shape_of(config)
    ours = {key: config[key] for key in sorted(families.OURS) if key in config}
    values: dict[str, Any] = ours | {
        "hidden": shape.hidden,
        "depth": shape.depth,
        "heads": _common_value([layer.heads for layer in shape.layers], shape.hidden // shape.head_dim),
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
    """Undo :func:`to_family`; any other configuration is returned unchanged.

    Labels come from the family's keys, where other tools read and edit them.
    """
    ours = config.get(SECTION)
    if not isinstance(ours, Mapping) or "layer_heads" not in ours:
        return dict(config)
    name = str(ours.get("family", "bert"))
    standard = {key for key, _ in FAMILIES[name].keys.values()} if name in FAMILIES else set()
    others = {key: value for key, value in config.items() if key not in standard | {SECTION}}
    return others | dict(ours) | {"model_type": SECTION}


def guard_name(family: str) -> str:
    """Return the family's tensor that is written empty where the family's model cannot hold the weights."""
    row = FAMILIES[family]
    return f"{row.prefix}.{row.embeddings.get('norm', row.norm)}.weight"


def our_tensor_names(tensors: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Map every tensor in a file of ours, translated or not, to our name; the empty guard is left out."""
    tensors, family = set(tensors), str(config.get("family", "bert"))
    if family not in FAMILIES:
        return {name: name for name in tensors}
    if any(name.startswith("encoder.") and not name.startswith("encoder.layer.") for name in tensors):
        return {name: name for name in tensors - {guard_name(family)}}
    ours = _our_names(config)
    return {name: ours.get(name, name) for name in tensors}


def translate_folder(folder: str | Path) -> None:
    """Rewrite a folder of ours, in place, in its family's terms; a folder of another kind is left unchanged.

    Afterwards ``onnx/model.onnx`` exists if any ONNX file does: an INT8 file gets both names.
    """
    folder = Path(folder)
    _link_float_name(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("model_type") != SECTION or config.get("family", "bert") not in FAMILIES:
        return
    plain = _translate_weights(folder, config)
    if plain:
        for name in CODE:
            (folder / name).unlink(missing_ok=True)
    _limit_tokenizer(folder, config)
    text = json.dumps(to_family(config, plain=plain), indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def restore_weights(source: Path, target: Path, config: Mapping[str, Any]) -> None:
    """Copy weights under our names, whether they have ours or the family's.

    Args:
        source: The file to read.
        target: The file to write, another one.
        config: The content of our config.json.
    """
    rewrite_weights(source, target, our_tensor_names(tensor_names(source), config))


def rewrite_weights(source: Path, target: Path, names: Mapping[str, str], empty: tuple[str, ...] = ()) -> None:
    """Copy a safetensors file under other tensor names; only the header is held in memory.

    Args:
        source: The file to read.
        target: The file to write, another one.
        names: The new name of each tensor; a tensor that is absent here must be empty, and is left out.
        empty: Names of tensors to add, each of size [0].
    """
    with source.open("rb") as reader, target.open("wb") as writer:
        header = json.loads(reader.read(int.from_bytes(reader.read(8), "little")))
        metadata = header.pop("__metadata__", {"format": "pt"})
        renamed = {names[name]: entry for name, entry in header.items() if name in names}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        renamed |= {name: {"dtype": "F32", "shape": [0], "data_offsets": [end, end]} for name in empty}
        text = json.dumps({"__metadata__": metadata} | renamed, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the format requires aligned data
        writer.write(len(text).to_bytes(8, "little") + text)
        shutil.copyfileobj(reader, writer, 2**22)


def _our_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Map each tensor name of the family to ours."""
    depth, family = len(config.get("layer_heads", ())), str(config.get("family", "bert"))
    modules = families.module_names(family, depth, per_token=is_token_classifier(config)).items()
    return {f"{path}.{part}": f"{ours}.{part}" for ours, path in modules for part in ("weight", "bias")}


def _translate_weights(folder: Path, config: Mapping[str, Any]) -> bool:
    """Rewrite the weights, if there are any; return whether the family's own model can open them now."""
    path, shape = folder / WEIGHTS, shape_of(config)
    plain = not families.ragged_layers(shape) and shape.depth > 0 and not config.get("position_heads")
    plain = plain and not FAMILIES[str(config.get("family", "bert"))].rearranged
    if not path.is_file():
        return plain
    family_names = {ours: name for name, ours in _our_names(config).items()}
    names = tensor_names(path)
    plain = plain and names <= family_names.keys()
    draft = path.with_name(f".{WEIGHTS}")
    if plain:
        rewrite_weights(path, draft, family_names)
    else:
        guard = guard_name(str(config.get("family", "bert")))
        rewrite_weights(path, draft, {name: name for name in names}, (guard,))
    os.replace(draft, path)
    return plain


def _link_float_name(folder: Path) -> None:
    """Give the INT8 file the name of the float file too, the only one that text-embeddings-inference looks for.

    transformers.js reads ``model.onnx`` by default, and ``model_quantized.onnx`` for ``dtype: q8``. The two are one
    file on disk where the file system allows it; external data has one name anyway.
    """
    served, other = folder / INT8_FILE, folder / FLOAT_FILE
    if served.is_file() and not other.exists():
        try:
            os.link(served, other)
        except OSError:
            shutil.copyfile(served, other)


def _limit_tokenizer(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the model's maximum length where the tokenizer has none, or a longer one."""
    path = folder / "tokenizer_config.json"
    if not path.is_file() or "max_positions" not in config:
        return
    settings = json.loads(path.read_text(encoding="utf-8"))
    longest = config["max_positions"] - skipped_positions(config.get("position_offset"))
    if not 0 < (settings.get("model_max_length") or 0) <= longest:
        settings["model_max_length"] = longest
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _common_value(values: list[int], usual: int) -> int:
    """Return the number that all layers share, else the family's usual one."""
    return values[0] if values and len(set(values)) == 1 and values[0] else usual
