"""Around every call of transformers that reads a checkpoint: silence on the screen, one clear error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from logging import CRITICAL
from pathlib import Path

from limbeck.errors import InputError


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
    """Turn what transformers, safetensors and the hub raise about a checkpoint into an InputError."""
    try:
        yield
    except Exception as error:
        from safetensors import SafetensorError

        if not isinstance(error, (OSError, ValueError, RuntimeError, SafetensorError)):
            raise
        raise InputError(_cause(source, error)) from error


def _cause(source: object, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if Path(str(source)).exists():
        return f"{source}: cannot be opened as a model: {first}"
    if "safetensors" in first:
        return f"{source}: has no model.safetensors; pickled weights are not opened ({first})"
    return (
        f"{source}: no such folder here, and it could not be fetched from the Hugging Face hub (offline, or no such "
        f"name?): {first}"
    )
