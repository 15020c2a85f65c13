"""Files of a model folder as data: JSON of bounded size, and weights that lie in the folder itself.

A folder may come from a stranger. So no file of it is unpickled or executed, and a link or a name that leads out of it
is refused: what it leads to would be copied into the store and into what is handed on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from limbeck.errors import InputError, shown
from limbeck.model.layout import ONNX_SUFFIXES, TOKENIZER_FILES, WEIGHTS, model_files
from limbeck.storage.text_file import read_text

LARGEST_JSON = 16 << 20
"""Bytes of a configuration, which is read as a whole; names of 200,000 labels take 5 MB."""
LARGEST_TOKENIZER = 512 << 20
"""Bytes of a tokenizer's file; that of 250,000 tokens has 17 MB."""
ROUNDED_TO = (8, 16, 32, 64, 128, 256, 512)
"""The rows of an embedding are often rounded up to a multiple of one of these, for speed."""
DEEPEST_JSON = 32
"""Levels of nesting; configurations have five."""


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object of bounded size and depth; whatever else the file holds is an InputError."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} should hold a JSON object, found {type(value).__name__}")
    return value


def read_json(path: Path) -> object:
    """Read a JSON file of bounded size and depth.

    Args:
        path: The file.

    Raises:
        InputError: The file cannot be read, or is not JSON.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_JSON:
            raise InputError(f"{path} has {size:,} bytes; expected a configuration of at most {LARGEST_JSON:,}")
        value: object = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply; expected at most {DEEPEST_JSON} levels") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    _check_values(value, path)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _check_values(value: object, path: Path) -> None:
    """Refuse deep nesting, and text that no file can hold (half of a surrogate pair)."""
    level: list[object] = [value]
    for _ in range(DEEPEST_JSON):
        texts = [text for item in level for text in (item if isinstance(item, dict) else (item,))]
        try:
            "".join(text for text in texts if isinstance(text, str)).encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{path} has text that is not Unicode: {error.object[error.start]!r}") from error
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise InputError(f"{path} is nested too deeply; expected at most {DEEPEST_JSON} levels")


def check_folder(folder: Path) -> None:
    """Refuse links that lead out of a model's folder, and tokenizer files that are too large to be one."""
    for name in model_files(folder):
        path = folder / name
        check_link(path, folder)
        if name.as_posix() in TOKENIZER_FILES and path.stat().st_size > LARGEST_TOKENIZER:
            raise InputError(f"{path} has {path.stat().st_size:,} bytes; no tokenizer is larger than 512 MB")


def check_link(path: Path, folder: Path) -> None:
    """Refuse a file that is, through links, outside its model's folder.

    The cache of the Hugging Face hub is an exception: its snapshots are links to the ``blobs`` beside them.

    Args:
        path: The file.
        folder: The model's folder, which may itself be a link.

    Raises:
        InputError: Names the file and where it leads.
    """
    home, target = folder.resolve(), path.resolve()
    if target.is_relative_to(home):
        return
    if home.parent.name == "snapshots" and target.is_relative_to(home.parent.parent / "blobs"):
        return
    raise InputError(f"{path} is a link to {target}, outside the model's folder; copy that file into the folder")


def inner_file(folder: Path, name: object, suffixes: Iterable[str], origin: str) -> Path:
    """Return a file that a configuration names, which must lie in the folder.

    Args:
        folder: The model's folder.
        name: The name as it was read.
        suffixes: Endings that are allowed.
        origin: Where the name was read, for the error.

    Raises:
        InputError: The name is absolute, leads outside, or has another ending.
    """
    kinds = " or ".join(suffixes)
    if not isinstance(name, str) or not name.endswith(tuple(suffixes)) or "\0" in name:
        raise InputError(f"{folder}: {origin} names {shown(name)}; expected the name of a {kinds} file in the folder")
    if Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name:
        raise InputError(f"{folder}: {origin} names {shown(name)}, outside the folder; only files in it are opened")
    path = folder / name
    check_link(path, folder)
    return path


def shards(folder: Path) -> list[Path]:
    """Return the files of a folder's weights: one, or those that its index names.

    Args:
        folder: The model's folder.

    Raises:
        InputError: The index is damaged, or names files that are missing, outside the folder or not safetensors.
    """
    if (folder / WEIGHTS).is_file():
        check_link(folder / WEIGHTS, folder)
        return [folder / WEIGHTS]
    index = folder / f"{WEIGHTS}.index.json"
    table = read_object(index).get("weight_map")
    if not isinstance(table, Mapping) or not table:
        raise InputError(f"{index} has no weight_map, which says in which file each tensor is")
    paths = [inner_file(folder, name, (".safetensors",), index.name) for name in sorted(set(map(str, table.values())))]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{index} names {path.name}, which is not there; copy all files of the checkpoint")
    return paths


def onnx_path(folder: Path, name: object) -> Path:
    """Return the ONNX file that a config.json names; see :func:`inner_file`."""
    return inner_file(folder, name, ONNX_SUFFIXES[:1], "limbeck_onnx_file in config.json")


def check_tokenizer(folder: Path) -> None:
    """Refuse tokenizer settings that cannot be read, or that name files outside the folder."""
    path = folder / "tokenizer_config.json"
    if path.is_file():
        names = read_object(path).get("fast_tokenizer_files") or []
        for name in names if isinstance(names, list) else [names]:
            inner_file(folder, name, (".json",), f"fast_tokenizer_files in {path.name}")


def check_word_list(folder: Path, required: Iterable[str]) -> None:
    """Refuse a ``vocab.txt`` without special tokens that no other file declares: ids would follow its last line.

    Args:
        folder: The model's folder; one with a ``tokenizer.json`` does not need the list.
        required: Special tokens that the tokenizer puts into texts.

    Raises:
        InputError: Names the tokens that are missing.
    """
    words = read_word_list(folder)
    if words is None:
        return
    if not any(words):
        raise InputError(f"{folder / 'vocab.txt'} is empty; copy the file again")
    declared = {*words, *(read_object(path) if (path := folder / "added_tokens.json").is_file() else ())}
    path = folder / "tokenizer_config.json"
    added = read_object(path).get("added_tokens_decoder") if path.is_file() else None
    for entry in added.values() if isinstance(added, dict) else ():
        declared.add(str(entry.get("content")) if isinstance(entry, dict) else str(entry))
    if missing := sorted({*required} - declared):
        raise InputError(
            f"{folder / 'vocab.txt'} has {len(words):,} tokens, without {', '.join(missing)}; copy the whole file again"
        )


def read_word_list(folder: Path) -> list[str] | None:
    """Read the tokens of a ``vocab.txt``; None if the folder has none, or has a ``tokenizer.json``, which counts."""
    path = folder / "vocab.txt"
    if (folder / "tokenizer.json").is_file() or not path.is_file():
        return None
    lines = read_text(path, LARGEST_TOKENIZER).removesuffix("\n").split("\n")  # some tokens are other line ends
    return [line.removesuffix("\r") for line in lines]


def word_list_note(folder: Path) -> str:
    """Compare the tokens of a ``vocab.txt`` with the rows of the embedding; return a note if it may be cut short.

    More rows than tokens are usual where they were rounded up to a multiple of a power of two; and any number may be
    left over on purpose, so this is no error.
    """
    words, rows = read_word_list(folder), read_object(folder / "config.json").get("vocab_size")
    if words is None or type(rows) is not int or rows <= len(words):
        return ""
    if any(rows % multiple == 0 and rows - len(words) < multiple for multiple in ROUNDED_TO):
        return ""
    return f"vocab.txt has {len(words):,} tokens, but the model embeds {rows:,}; if it was cut short, copy it again"


def portable_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a tokenizer is saved with, without code and without paths of this machine."""
    return {
        key: value
        for key, value in settings.items()
        if key != "auto_map" and not (isinstance(value, (str, Path)) and Path(value).is_absolute() and "file" in key)
    }


def without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the keys that name code."""
    return {key: value for key, value in config.items() if key not in ("auto_map", "custom_pipelines")}


def auto_map(*, per_token: bool) -> dict[str, str]:
    """Return the entry of config.json that tells transformers where the code in a folder of ours is."""
    kind = "TokenClassification" if per_token else "SequenceClassification"
    return {
        "AutoConfig": "configuration.LimbeckConfig",
        "AutoModel": "encoder.LimbeckModel",
        f"AutoModelFor{kind}": f"encoder.LimbeckFor{kind}",
    }
