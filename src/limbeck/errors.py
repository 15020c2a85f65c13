"""Everything limbeck raises on purpose.

    LimbeckError
    ├── InputError         data, model folder or option given by the user is unusable
    │   ├── UnsupportedModel   an architecture that no family describes
    │   └── ServiceError       the measuring service cannot be reached, or refuses to work for us; the run ends
    ├── RecipeError        a recipe has problems (all of them listed at once)
    ├── StoreError         the store cannot be written, is full, or is held by another run
    ├── UndeclaredService  a step used a ``RunContext`` service that its ``reads`` does not name (a bug in the step)
    ├── StepFailed         a step raised; the ledger has the traceback
    ├── ProcessLost        one of several processes that train together is gone
    └── MissingExtra       an optional dependency is not installed

Every message says what is wrong, where, the value seen, and the nearest valid choice.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from itertools import islice


class LimbeckError(Exception):
    """Base of all errors that limbeck raises on purpose; the command line prints them without a traceback."""


class InputError(LimbeckError):
    """Data, a model folder or an option cannot be used."""


class UnsupportedModel(InputError):
    """The architecture belongs to no supported family."""


class ServiceError(InputError):
    """The measuring service of a target cannot be used; a run ends, and the same command resumes."""


class RecipeError(LimbeckError):
    """A recipe has one or more problems."""


class StoreError(LimbeckError):
    """The store cannot be used."""


class UndeclaredService(LimbeckError):
    """A step used a service that it does not declare in ``reads``."""


class StepFailed(LimbeckError):
    """One or more steps of a run failed."""


class ProcessLost(LimbeckError):
    """One of several processes that train together is gone; the run ends, and the same command resumes."""


class MissingExtra(LimbeckError):
    """An optional dependency is missing.

    >>> print(MissingExtra("openvino", "openvino"))
    this needs the package 'openvino', which is not installed; do: pip install 'limbeck[openvino]'
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package '{package}', which is not installed; do: pip install 'limbeck[{extra}]'"
        )


LISTED = 20
"""Choices that a message lists at most."""


SHOWN = 100
"""Characters of a value that a message shows at most."""


def shown(value: object, limit: int = SHOWN) -> str:
    """Format a value for a message; a long one is cut after ``limit`` characters.

    >>> shown("a"), shown([1] * 1000)[-5:], shown("a film", 4)
    ("'a'", ', 1,…', "'a f…")
    """
    if isinstance(value, (str, list, tuple)):
        value = value[: limit + 1]  # before it is written out, which may take long
    elif isinstance(value, dict):
        value = dict(islice(value.items(), limit + 1))
    elif isinstance(value, int) and abs(value) >= 10**limit:
        return f"a number of more than {limit} digits"
    text = repr(value)
    return text if len(text) <= limit else text[:limit].rstrip() + "…"


def without_middle(text: str, limit: int) -> str:
    """Cut the middle out of a message that would be longer than ``limit``: its end holds the advice.

    >>> without_middle("abcdefgh", 4)
    'ab…gh'
    """
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-(limit // 2) :]}"


def without_long_words(text: str) -> str:
    """Cut the middle out of words that are too long to read, such as a value of thousands of characters.

    >>> len(without_long_words("no folder " + "x" * 5000))
    1011
    """
    return re.sub(r"\S{1001,}", lambda word: without_middle(word[0], 1000), text)


def nearest(seen: object, valid: Iterable[object]) -> str:
    """Name the closest valid choice, or list them when nothing is close: the ``LISTED`` nearest where there are more.

    >>> nearest("prunne", ["prune", "distill"])
    "did you mean 'prune'?"
    >>> nearest("xyz", ["prune", "distill"])
    "choose from 'distill', 'prune'"
    """
    names, seen = sorted({str(choice) for choice in valid}), str(seen)[:SHOWN]
    close = difflib.get_close_matches(seen, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if not names:
        return "there is none to choose from"
    listed = sorted(difflib.get_close_matches(seen, names, n=LISTED, cutoff=0.0))
    more = f" and {len(names) - len(listed):,} more" if len(listed) < len(names) else ""
    return "choose from " + ", ".join(f"'{name}'" for name in listed) + more


class RenamedWarning(FutureWarning):
    """Something has another name now; the old one still works."""
