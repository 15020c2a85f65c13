"""Around every call of transformers that reads a checkpoint: silence on the screen, one clear error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from logging import CRITICAL
from pathlib import Path

from limbeck.errors import InputError, LimbeckError


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


def _cause(source: object, error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0][:300]
    if not isinstance(error, (OSError, ValueError, RuntimeError)) or not first:
        first = f"{type(error).__name__}: {first}".removesuffix(": ")
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
