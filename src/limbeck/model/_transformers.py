"""Around every call of transformers that reads a checkpoint: silence on the screen, one clear error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from logging import CRITICAL
from pathlib import Path

from limbeck.errors import InputError, LimbeckError
from limbeck.model.folder_files import LARGEST_TOKENIZER, read_object
from limbeck.model.layout import TOKENIZER_FILES
from limbeck.storage.text_file import read_text

_TOKENIZER_PARTS = (
    *TOKENIZER_FILES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
)  # fmt: skip
"""Files that a tokenizer may be made of; it needs one of the first, and not the others."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Mute the progress bars, load reports and log lines of transformers; restore them and the random state after."""
    import torch
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    verbosity, bars, hub_muted = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        are_progress_bars_disabled(),
    )
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if hub_muted:
            disable_progress_bars()


@contextlib.contextmanager
def explained(source: object) -> Iterator[None]:
    """Turn whatever a library raises about a checkpoint into an InputError; the body calls libraries alone.

    Damaged files make transformers, safetensors, tokenizers and the hub raise almost any class: KeyError for a missing
    entry, TypeError for a list in place of a number, RecursionError, and a panic of Rust, which is no Exception.
    """
    try:
        yield
    except (LimbeckError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise InputError(_cause(source, error)) from error


@contextlib.contextmanager
def explained_tokenizer(source: object, folder: Path | None) -> Iterator[None]:
    """Do as :func:`explained`, and name the file of the tokenizer that cannot be read.

    Args:
        source: What the user called the model.
        folder: Where its files are; None for the hub.
    """
    try:
        with explained(source):
            yield
    except InputError as error:
        cause = error.__cause__
        if folder is None or cause is None:
            raise
        if reason := _broken_file(folder):
            raise InputError(f"{reason}; copy the file again, or save the tokenizer again") from cause
        if "trust_remote_code" in str(cause) or "tiktoken" in str(cause):  # which are explained already
            raise
        names = ", ".join(path.name for path in sorted(folder.iterdir()) if path.name in _TOKENIZER_PARTS)
        raise InputError(f"{folder}: no tokenizer can be made of {names}: {_first_line(cause)}") from cause


def _broken_file(folder: Path) -> str:
    """Try the files of a tokenizer one by one; return the first that cannot be read, with the reason, or ''."""
    for path in (folder / name for name in _TOKENIZER_PARTS if (folder / name).is_file()):
        if path.stat().st_size == 0:
            return f"{path} is empty"
        try:
            if path.name == "tokenizer.json":
                _read_whole(path)
            elif path.suffix == ".json":
                read_object(path)
            elif path.suffix == ".txt":
                read_text(path, LARGEST_TOKENIZER)
            else:
                _read_pieces(path)
        except InputError as error:
            return str(error)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of Rust is no Exception
            return f"{path} cannot be read: {_first_line(error)}"
    return ""


def _read_whole(path: Path) -> None:
    from tokenizers import Tokenizer

    Tokenizer.from_file(str(path))


def _read_pieces(path: Path) -> None:
    with contextlib.suppress(ImportError):
        from sentencepiece import SentencePieceProcessor

        SentencePieceProcessor(model_file=str(path))


def _first_line(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0][:300]
    plain = isinstance(error, (OSError, ValueError, RuntimeError)) or type(error) is Exception
    if not plain or not first:
        first = f"{type(error).__name__}: {first}".removesuffix(": ")
    return first


def _cause(source: object, error: BaseException) -> str:
    first = _first_line(error)
    if "trust_remote_code" in str(error):
        return (
            f"{source}: its configuration names code (auto_map), and limbeck runs none from a model's folder; remove "
            "auto_map, and name a class of transformers"
        )
    if "tiktoken" in str(error):  # which transformers tries when sentencepiece is missing
        return (
            f"{source}: its tokenizer is a SentencePiece model without tokenizer.json; pip install "
            "'limbeck[sentencepiece]', which converts it"
        )
    if isinstance(error, MemoryError):
        return f"{source}: does not fit into memory: {first}"
    if Path(str(source)).exists():
        return f"{source}: cannot be opened as a model: {first}"
    if "safetensors" in first:
        return f"{source}: has no model.safetensors; pickled weights are not opened ({first})"
    return (
        f"{source}: no such folder here, and it could not be fetched from the Hugging Face hub (offline, or no such "
        f"name?): {first}"
    )
