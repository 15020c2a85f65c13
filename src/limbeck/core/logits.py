"""Logits as arrays: activations without overflow, and the refusal of NaN and infinity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from limbeck.errors import InputError, shown

Activation = Literal["softmax", "sigmoid", "identity", "tanh"]


def activate(logits: npt.ArrayLike, activation: Activation) -> npt.NDArray[np.float64]:
    """Apply an activation over the last axis without overflow, [..., label] to [..., label].

    >>> activate([-1000.0, 0.0, 1000.0], "sigmoid").tolist()
    [0.0, 0.5, 1.0]
    """
    values: npt.NDArray[np.float64] = np.asarray(logits, dtype=float)
    if activation == "sigmoid":
        values = np.exp(-np.logaddexp(0.0, -values))
    elif activation == "tanh":
        values = np.tanh(values)
    elif activation == "softmax":
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        values = powers / powers.sum(axis=-1, keepdims=True)
    return values


def describe_bad_numbers(values: npt.ArrayLike) -> str:
    """Count NaN and infinity in an array, in words; empty if all numbers are finite.

    >>> describe_bad_numbers([1.0, float("nan"), float("inf")])
    '1 NaN and 1 infinite of 3'
    """
    array = np.asarray(values)
    if np.isfinite(array).all():
        return ""
    counts = {"NaN": int(np.isnan(array).sum()), "infinite": int(np.isinf(array).sum())}
    return " and ".join(f"{count:,} {name}" for name, count in counts.items() if count) + f" of {array.size:,}"


def joined_rows(vectors: Any, batch: Mapping[str, Any]) -> Any:  # arrays and tensors alike
    """Join the vectors of a row's texts, which a batch of pairs has one after the other.

    Args:
        vectors: One for each text [texts, width], as an array or a tensor.
        batch: Its ``index`` has one entry for each row; without it every text is a row.

    Returns:
        [rows, texts of a row * width].

    >>> joined_rows(np.arange(8).reshape(4, 2), {"index": [0, 1]}).tolist()
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    """
    rows = batch.get("index")
    return vectors if rows is None or len(rows) == len(vectors) else vectors.reshape(len(rows), -1)


def separate_texts(rows: Any, batch: Mapping[str, Any]) -> Any:  # arrays and tensors alike
    """Invert :func:`joined_rows`: return a vector for each text [texts, width]; other outputs as they are.

    Args:
        rows: Outputs of each row [rows, ...].
        batch: Its ``input_ids`` have one entry for each text.

    >>> separate_texts(np.arange(8).reshape(2, 4), {"input_ids": [[1]] * 4}).tolist()
    [[0, 1], [2, 3], [4, 5], [6, 7]]
    """
    texts = batch.get("input_ids")
    return rows if texts is None or len(texts) == len(rows) else rows.reshape(len(texts), -1)


def require_finite_logits(
    logits: Iterable[npt.ArrayLike], texts: Sequence[object], source: object = "the model"
) -> None:
    """Refuse logits that contain NaN or infinity, naming the first text that has them.

    Args:
        logits: One array for each text, [label] or [position, label].
        texts: The texts, in the same order.
        source: Name of the model in the message.

    Raises:
        InputError: A logit is NaN or infinite.
    """
    for index, row in enumerate(logits):
        if bad := describe_bad_numbers(row):
            text = str(texts[index]) if index < len(texts) else ""
            raise InputError(
                f"{source} gives no numbers for text {index + 1} ({shown(text)}): its outputs are {bad}; "
                "its weights or their sizes are at fault, so train it again or take an earlier checkpoint"
            )
