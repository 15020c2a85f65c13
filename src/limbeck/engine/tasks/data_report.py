"""Report what a task contains, and how much of its texts a model will truncate, before any work starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.core.task import Task
from limbeck.data.summary import CountTokens, Summary, summarize
from limbeck.model.folder_files import word_list_note
from limbeck.model.location import model_folder


def data_report(task: Task, model: str | None = None, splits: Sequence[str] | None = None) -> Summary:
    """Summarize a task; with a model's folder also how many texts are cut, and doubts about its vocabulary.

    No torch is imported.

    Args:
        task: The task.
        model: Folder or name of the model whose tokenizer counts; it may be unavailable.
        splits: Splits whose texts are counted; all if None.
    """
    summary = summarize(task, token_counter(model) if model else None, splits)
    folder = model_folder(model) if model else None
    note = word_list_note(folder) if folder is not None and (folder / "config.json").is_file() else ""
    return replace(summary, notes=(*summary.notes, f"{model}: {note}")) if note else summary


def announce(on_event: Callable[[dict[str, Any]], None], task: Task, model: str | None = None) -> None:
    """Send the summary of a task to a listener, as an event of kind ``data``.

    Args:
        on_event: Receives each event as a dictionary.
        task: The task.
        model: Folder or name of the model whose tokenizer counts tokens.
    """
    summary = data_report(task, model)
    on_event({"kind": "data", "message": "\n".join(summary.lines()), "data": summary.to_json()})


def token_counter(model: str) -> CountTokens | None:
    """Return a function that counts tokens with a model's ``tokenizer.json``; None if it is not on this machine."""
    folder = model_folder(model)
    path = folder / "tokenizer.json" if folder else _cached(model)
    if path is None or not path.is_file():
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception:  # tokenizers raises bare exceptions; opening the model reports the error
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[Any], pairs: Sequence[str] | None) -> list[int]:
        rows = [text if isinstance(text, str) else list(text) for text in texts]
        words = bool(rows) and not isinstance(rows[0], str)
        inputs: list[Any] = rows if pairs is None else list(zip(rows, pairs, strict=True))
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(inputs, is_pretokenized=words)]

    return count


def _cached(name: str) -> Path | None:
    """Return the tokenizer of a name on the hub that was fetched before; the hub is not asked."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, "tokenizer.json")
    except HFValidationError:  # it is no name on the hub; opening the model says so
        return None
    return Path(path) if isinstance(path, str) else None
