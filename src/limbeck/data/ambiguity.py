"""The error for a table that can be read in several ways: it shows every reading and the options that choose it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limbeck.errors import InputError


@dataclass(frozen=True)
class Choice:
    """One way to read a table.

    Attributes:
        title: The reading in words.
        options: The options that choose it.
        first: What its first row becomes.
    """

    title: str
    options: Mapping[str, object]
    first: str


def ambiguous(where: str, choices: Sequence[Choice], because: str = "") -> InputError:
    """Build the error that shows all plausible readings.

    Args:
        where: The table, for the message.
        choices: The plausible readings.
        because: Why there are several.
    """
    count = {2: "two", 3: "three", 4: "four"}.get(len(choices), str(len(choices)))
    lines = [f"{where}: {because + '; ' if because else ''}{count} readings are plausible; choose one:"]
    for choice in choices:
        yaml = ", ".join(f"{name}: {_yaml(value)}" for name, value in choice.options.items())
        flags = " ".join(f"--task-set {_shell(f'{name}={_yaml(value)}')}" for name, value in choice.options.items())
        lines += [f"  {choice.title}; the first row: {choice.first}", f"    {yaml}   ({flags})"]
    return InputError("\n".join(lines))


def quoted(names: Sequence[str]) -> str:
    """List names in quotation marks.

    >>> quoted(["a", "b"])
    "'a', 'b'"
    """
    return ", ".join(f"'{name}'" for name in names)


def _yaml(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, (list, tuple)) else str(value)


def _shell(word: str) -> str:
    return word if re.fullmatch(r"[\w=.,:/-]+", word) else f"'{word}'"
