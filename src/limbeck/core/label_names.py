"""Label names of a model, read from config.json and checked."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.errors import InputError, shown

MOST_SHOWN = 12
"""Labels that a message lists."""


def silent(names: Sequence[str]) -> bool:
    """Return whether all names are placeholders: ``LABEL_0`` or an integer.

    >>> silent(["LABEL_0", "1"]), silent(["no", "yes"])
    (True, False)
    """
    return all(digits(name) for name in names)


def digits(name: str) -> str:
    """Return the number of a placeholder; empty for a name."""
    number = name.removeprefix("LABEL_")
    return number if number.isascii() and number.isdigit() else ""


def listed(names: Sequence[str], limit: int = 6) -> str:
    """Return the first names, and how many more there are."""
    first = ", ".join(names[:limit])
    return f"{first} and {len(names) - limit} more" if len(names) > limit else first


def label_called(name: str, labels: Sequence[str], former: Sequence[str] = ()) -> str:
    """Return the label that a name means: exactly, or by the name that it had, or but for its case; else the name.

    Args:
        name: What the user wrote.
        labels: The labels.
        former: Names that they had, in the same order.

    >>> tuple(label_called(name, ("DOWN", "UP"), ("0", "1")) for name in ("UP", "1", "up", "sideways"))
    ('UP', 'UP', 'UP', 'sideways')
    """
    for names in (labels, former):
        if name in names:
            return labels[names.index(name)]
    pairs = [pair for names in (labels, former) for pair in zip(labels, names, strict=False)]
    alike = {label for label, other in pairs if other.casefold() == name.casefold()}
    return alike.pop() if len(alike) == 1 else name


def label_difference(first: Sequence[str], second: Sequence[str]) -> str:
    """Return how the outputs of two models differ in number, names or order; empty if they do not.

    Placeholders say nothing of what the outputs of one model mean, so they may stand for the names of the other.

    >>> label_difference(["no", "yes"], ["yes", "no"])
    'have other labels: no, yes and yes, no'
    >>> label_difference(["no", "yes"], ["LABEL_0", "LABEL_1"])
    ''
    """
    if len(first) == len(second) and (tuple(first) == tuple(second) or silent(first) != silent(second)):
        return ""
    pairs = enumerate(zip(first, second, strict=False))
    other = next((f"output {index} is {left} and {right}" for index, (left, right) in pairs if left != right), "")
    if max(len(first), len(second)) > MOST_SHOWN and other:
        return f"have other labels: {other}"
    numbers = "" if len(first) == len(second) else f" ({len(first)} and {len(second)})"
    return f"have other labels{numbers}: {listed(first, MOST_SHOWN)} and {listed(second, MOST_SHOWN)}"


def is_token_classifier(config: Mapping[str, Any]) -> bool:
    """Return whether config.json names an architecture for token classification."""
    return any(name.endswith("ForTokenClassification") for name in _architectures(config))


def _architectures(config: Mapping[str, Any]) -> list[str]:
    names = config.get("architectures") or ()
    return [str(name) for name in names] if isinstance(names, (list, tuple)) else []


def read_labels(config: Mapping[str, Any], source: object = "model") -> tuple[str, ...]:
    """Read the label names in the order of the outputs; empty for a model without a head.

    Args:
        config: Content of config.json.
        source: What to call the model in errors.

    Raises:
        InputError: ``id2label`` does not give the outputs 0 to n-1 distinct names, or ``label2id`` contradicts it.
    """
    id2label = config.get("id2label")
    if id2label is None or id2label == {}:
        classifies = any(name.endswith("Classification") for name in _architectures(config))
        number = config.get("num_labels")
        if not classifies:
            return ()
        if number is None:
            number = len(_label2id(config, source)) or 2
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(
                f"{source}: config.json has num_labels {shown(number)}; expected a whole number of at least 1"
            )
        names: tuple[str, ...] = tuple(f"LABEL_{index}" for index in range(number))
    else:
        names = _names_of_outputs(id2label, source)
    return _reconcile(names, config, source)


def _names_of_outputs(id2label: object, source: object) -> tuple[str, ...]:
    field = f"{source}: id2label in config.json"
    if not isinstance(id2label, Mapping):
        raise InputError(
            f'{field} should map output numbers to names, as {{"0": "no", "1": "yes"}}, got {shown(id2label)}'
        )
    names: dict[int, str] = {}
    for key, name in id2label.items():
        try:
            index = int(key)
        except (TypeError, ValueError):
            raise InputError(
                f"{field} has the key {shown(key)}; keys are the numbers 0 to {len(id2label) - 1}"
            ) from None
        if isinstance(name, bool) or not isinstance(name, (str, int, float)) or not str(name).strip():
            raise InputError(f"{field} names output {index} {shown(name)}; give it a name")
        names[index] = str(name)
    if sorted(names) != list(range(len(id2label))):
        raise InputError(
            f"{field} has the numbers {listed([str(index) for index in sorted(names)])}; the {len(id2label)} outputs "
            f"are numbered 0 to {len(id2label) - 1}"
        )
    ordered = tuple(names[index] for index in range(len(names)))
    if duplicates := sorted({name for name in ordered if ordered.count(name) > 1}):
        raise InputError(f"{field} gives the name '{duplicates[0]}' to {ordered.count(duplicates[0])} outputs")
    return ordered


def _label2id(config: Mapping[str, Any], source: object) -> dict[str, int]:
    label2id = config.get("label2id")
    if label2id is None:
        return {}
    if isinstance(label2id, Mapping) and all(isinstance(index, (int, str)) for index in label2id.values()):
        with contextlib.suppress(ValueError):
            return {str(name): int(index) for name, index in label2id.items()}
    raise InputError(f"{source}: label2id in config.json should map names to output numbers, got {shown(label2id)}")


def _reconcile(names: tuple[str, ...], config: Mapping[str, Any], source: object) -> tuple[str, ...]:
    """Check the names from id2label against label2id, whose names replace placeholders."""
    label2id = _label2id(config, source)
    if not label2id or (silent(tuple(label2id)) and not set(label2id) & set(names)):
        return names  # label2id is transformers' default: the author set id2label alone
    if silent(names) and not silent(tuple(label2id)) and sorted(label2id.values()) == list(range(len(names))):
        return tuple(sorted(label2id, key=label2id.__getitem__))
    for name, index in label2id.items():
        if not 0 <= index < len(names) or names[index] != name:
            other = shown(names[index]) if 0 <= index < len(names) else "no such output"
            raise InputError(
                f"{source}: config.json contradicts itself: label2id has {shown(name)} as output {index}, "
                f"id2label has {other}; correct one of them"
            )
    return names
