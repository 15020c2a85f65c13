"""Model folders in the ecosystem's terms: the family's ``config.json``, and the file names that other tools look for.

The store keeps models under our own keys (``model_type: limbeck``). An artefact is translated: ``config.json`` has
the family's ``model_type`` and standard keys, and ours are in one entry, ``limbeck``. A uniform shape becomes a plain
checkpoint of the family. Any other shape keeps our tensor names, with one empty tensor under one of the family's names:
plain transformers then refuses the folder for its size instead of filling a whole model with random weights.

Weights are renamed in the file's header and their bytes copied, so no tensor is loaded; where a family has one matrix
for several of ours, it has their rows, one below the other.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from limbeck.core.finite import load_json
from limbeck.core.label_names import is_token_classifier
from limbeck.core.sentence_embedding import SECTION as VECTORS
from limbeck.core.sentence_embedding import embedding_in
from limbeck.core.shape import skipped_positions
from limbeck.model import families, layer_types
from limbeck.model.family_table import FAMILIES
from limbeck.model.layout import CODE, WEIGHTS, shape_of, style_of, tensor_names
from limbeck.model.onnx.onnx_model import FLOAT_FILE, INT8_FILE
from limbeck.model.sentence_transformers import write_modules
from limbeck.storage.atomic import replacing

if TYPE_CHECKING:
    from torch import Tensor

SECTION = "limbeck"
"""The entry of config.json with our keys."""

CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "electra": "Electra",
    "distilbert": "DistilBert",
    "mpnet": "MPNet",
    "deberta-v2": "DebertaV2",
    "ernie": "Ernie",
    "camembert": "Camembert",
    "data2vec-text": "Data2VecText",
    "modernbert": "ModernBert",
    "albert": "Albert",
    "rembert": "RemBert",
    "roformer": "RoFormer",
    "megatron-bert": "MegatronBert",
    "roberta-prelayernorm": "RobertaPreLayerNorm",
    "xlm-roberta-xl": "XLMRobertaXL",
}
"""Prefix of transformers' class names, by family."""

COPIED = 1 << 22
"""Bytes that are copied at once."""
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
    family, shape, style = FAMILIES[name], shape_of(config), style_of(config)
    ours = {key: config[key] for key in sorted(families.OURS) if key in config}
    values: dict[str, Any] = ours | {
        "hidden": shape.hidden,
        "depth": shape.depth,
        "heads": _common_value([layer.heads for layer in shape.layers], shape.hidden // shape.head_dim),
        "ffn": max((layer.ffn for layer in shape.layers), default=0) or 4 * shape.hidden,
        "embedding_size": config.get("embedding_size") or shape.hidden,
    }
    standard = family.standard_keys(values)
    if family.local and not families.ragged_layers(shape, style):
        standard |= layer_types.keys_of(shape, style.rotary_theta)
    others = {key: value for key, value in config.items() if key not in families.OURS | FILE_KEYS}
    translated = others | standard | {"model_type": name, SECTION: ours}
    head = "Model" if config.get(VECTORS) is not None else None
    head = head or f"For{'Token' if is_token_classifier(config) else 'Sequence'}Classification"
    translated["architectures"] = [f"{CLASSES[name]}{head}"]
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
    standard = FAMILIES[name].config_keys if name in FAMILIES else frozenset()
    others = {key: value for key, value in config.items() if key not in standard | {SECTION}}
    return others | dict(ours) | {"model_type": SECTION}


def guard_name(family: str) -> str:
    """Return the family's tensor that is written empty where the family's model cannot hold the weights."""
    row = FAMILIES[family]
    return f"{row.prefix}.{row.embeddings.get('norm', row.norm)}.weight"


class Rows(NamedTuple):
    """Rows of a tensor in a file: one of so many equal parts."""

    name: str
    part: int = 0
    parts: int = 1


def our_tensors(tensors: Iterable[str], config: Mapping[str, Any]) -> dict[str, Rows]:
    """Return where each of our tensors is in a file of ours, translated or not; the empty guard is left out.

    Args:
        tensors: Names of the tensors in the file.
        config: The content of our config.json.
    """
    tensors, family = set(tensors), str(config.get("family", "bert"))
    if family not in FAMILIES:
        return {name: Rows(name) for name in tensors}
    if any(name.startswith("encoder.") and not name.startswith("encoder.layer.") for name in tensors):
        return {name: Rows(name) for name in tensors - {guard_name(family)}}
    groups = _family_tensors(config)
    unknown = {name: Rows(name) for name in tensors - groups.keys()}
    present = {name: ours for name, ours in groups.items() if name in tensors}
    return unknown | {
        own: Rows(name, index, len(ours)) for name, ours in present.items() for index, own in enumerate(ours)
    }


def translate_folder(folder: str | Path, max_length: int | None = None) -> None:
    """Rewrite a folder of ours, in place, in its family's terms; a folder of another kind is left unchanged.

    Afterwards ``onnx/model.onnx`` exists if any ONNX file does: an INT8 file gets both names. A model of vectors
    becomes a folder of sentence-transformers.

    Args:
        folder: The folder.
        max_length: Longest text in tokens, for sentence-transformers; None keeps the model's.
    """
    folder = Path(folder)
    _link_float_name(folder)
    path = folder / "config.json"
    config = load_json(path.read_text(encoding="utf-8"))
    if (embedding := embedding_in(config, folder)) is not None:
        dense = _without_dense(folder / WEIGHTS)
        embedding = replace(embedding, max_length=max_length or embedding.max_length)
        write_modules(folder, embedding, shape_of(config).hidden, dense)
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
    rewrite_weights(source, target, {ours: [rows] for ours, rows in our_tensors(tensor_names(source), config).items()})


def rewrite_weights(
    source: Path, target: Path, tensors: Mapping[str, Sequence[Rows]], empty: tuple[str, ...] = ()
) -> None:
    """Copy a safetensors file under other tensor names, split or joined by rows; only the header is held in memory.

    Args:
        source: The file to read.
        target: The file to write, another one.
        tensors: What each new tensor is made of, one rows below the other.
        empty: Names of tensors to add, each of size [0].
    """
    with source.open("rb") as reader, target.open("wb") as writer:
        start = 8 + int.from_bytes(reader.read(8), "little")
        header = load_json(reader.read(start - 8))
        renamed: dict[str, Any] = {"__metadata__": header.pop("__metadata__", {"format": "pt"})}
        spans, end = [], 0
        offsets = {name: (*header[parts[0].name]["data_offsets"], name) for name, parts in tensors.items()}
        for name in sorted(offsets, key=offsets.__getitem__):  # in the file's order, all aligned; empty ones by name
            parts = tensors[name]
            pieces = [_span(header[rows.name], rows) for rows in parts]
            size, shape = sum(last - first for first, last in pieces), list(header[parts[0].name]["shape"])
            if shape:
                shape[0] = sum(header[rows.name]["shape"][0] // rows.parts for rows in parts)
            entry = {"dtype": header[parts[0].name]["dtype"], "shape": shape, "data_offsets": [end, end + size]}
            renamed[name], end = entry, end + size
            spans += pieces
        renamed |= {name: {"dtype": "F32", "shape": [0], "data_offsets": [end, end]} for name in empty}
        text = json.dumps(renamed, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the format requires aligned data
        writer.write(len(text).to_bytes(8, "little") + text)
        for first, last in spans:
            reader.seek(start + first)
            for position in range(first, last, COPIED):
                writer.write(reader.read(min(COPIED, last - position)))


def _span(entry: Mapping[str, Any], rows: Rows) -> tuple[int, int]:
    """Return the first byte of some rows of a tensor, and that after the last."""
    begin, end = entry["data_offsets"]
    size = (end - begin) // rows.parts
    return begin + rows.part * size, begin + (rows.part + 1) * size


def _family_tensors(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Map each tensor name of the family to ours: several where the family has one matrix for them."""
    depth, family = len(config.get("layer_heads", ())), str(config.get("family", "bert"))
    modules = families.joined(families.module_names(family, depth, per_token=is_token_classifier(config))).items()
    return {
        f"{path}.{part}": [f"{own}.{part}" for own in ours] for path, ours in modules for part in ("weight", "bias")
    }


def _translate_weights(folder: Path, config: Mapping[str, Any]) -> bool:
    """Rewrite the weights, if there are any; return whether the family's own model can open them now."""
    path, shape = folder / WEIGHTS, shape_of(config)
    plain = not families.ragged_layers(shape, style_of(config)) and shape.depth > 0 and not config.get("position_heads")
    plain = plain and not FAMILIES[str(config.get("family", "bert"))].rearranged
    plain = plain and config.get("relative_heads", 0) in (0, shape.layers[0].heads)
    if not path.is_file():
        return plain
    names = tensor_names(path)
    groups = {name: ours for name, ours in _family_tensors(config).items() if names.intersection(ours)}
    plain = plain and names == {own for ours in groups.values() for own in ours}
    with replacing(path) as draft:
        if plain:
            rewrite_weights(path, draft, {name: [Rows(own) for own in ours] for name, ours in groups.items()})
        else:
            guard = guard_name(str(config.get("family", "bert")))
            rewrite_weights(path, draft, {name: [Rows(name)] for name in names}, (guard,))
    return plain


def _without_dense(path: Path) -> dict[str, Tensor]:
    """Remove the dense layers after pooling from a file of weights, if there are any; return them."""
    from safetensors import safe_open

    names = tensor_names(path) if path.is_file() else set()
    dense = {name for name in names if name.startswith("dense.")}
    if not dense:
        return {}
    with safe_open(path, framework="pt") as file:
        tensors: dict[str, Tensor] = {name: file.get_tensor(name).clone() for name in dense}
    with replacing(path) as draft:
        rewrite_weights(path, draft, {name: [Rows(name)] for name in names - dense})
    return tensors


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
    settings = load_json(path.read_text(encoding="utf-8"))
    longest = config["max_positions"] - skipped_positions(config.get("position_offset"))
    if not 0 < (settings.get("model_max_length") or 0) <= longest:
        settings["model_max_length"] = longest
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _common_value(values: list[int], usual: int) -> int:
    """Return the number that all layers share, else the family's usual one."""
    return values[0] if values and len(set(values)) == 1 and values[0] else usual
