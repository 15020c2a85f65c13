"""Malformed input by mutation of good input, and the rule that it must obey: a result, or one clear error.

A test gives a corpus of good inputs, draws a mutant with ``mutated`` (plain data) or ``mutated_bytes`` (files), and
calls the code under ``OneClearError``.
"""

from __future__ import annotations

import copy
import math
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from limbeck.errors import LimbeckError

MAX_SECONDS = 5
MAX_MESSAGE = 4000

ODD_VALUES = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        64,
        2**31,
        2**63,
        10**30,
        0.5,
        -0.0,
        1e308,
        5e-324,
        math.nan,
        math.inf,
        -math.inf,
    ),
    *("", " ", "x", "1", "-1", "1e999", "0x_", "null", "true", "x" * 10_000, "é漢😀", "a\nb", "a\0b", "\x1b[31m"),
    *("../x", "/etc/passwd", "/dev/zero", "~", "~nobody/x", "x/" * 3000, "{{x}}", "%s", "<script>", "__class__"),
    *([], {}, [[]], [None], [1] * 2000, ["x", 1, None], {"": ""}, {"a": {"b": 1}}, {"x" * 5000: 1}),
)
"""Values that code may not expect, whatever it reads."""


def deep(levels):
    """A list in a list, and so on."""
    value = []
    for _ in range(levels):
        value = [value]
    return value


def paths(data, path=()):
    """The path of every node inside plain data, from the root."""
    yield path
    if isinstance(data, dict):
        for key, child in data.items():
            yield from paths(child, (*path, key))
    elif isinstance(data, list):
        for index, child in enumerate(data):
            yield from paths(child, (*path, index))


def node(data, path):
    """The node at a path."""
    for key in path:
        data = data[key]
    return data


@st.composite
def mutated(draw, corpus, mutations=3):
    """Plain data from the corpus with one to several changes: other values, keys, places and sizes."""
    corpus = list(corpus)
    data = copy.deepcopy(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(1, mutations))):
        inner = [path for path in paths(data) if path]
        if not inner:
            return draw(st.sampled_from(ODD_VALUES))
        path = draw(st.sampled_from(inner))
        parent, key = node(data, path[:-1]), path[-1]
        change = draw(st.sampled_from(("value", "value", "other", "delete", "key", "wrap", "repeat", "deep")))
        if change == "value":
            parent[key] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
        elif change == "other":  # a part of another input, or another part of this one
            other = draw(st.sampled_from(corpus))
            parent[key] = copy.deepcopy(node(other, draw(st.sampled_from(list(paths(other))))))
        elif change == "delete":
            del parent[key]
        elif change == "key" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["", "x", "Name", key.upper(), key + "s", key[:-1], "0", "\0"]))] = parent.pop(
                key
            )
        elif change == "wrap":
            parent[key] = draw(st.sampled_from([[parent[key]], {"x": parent[key]}, [parent[key]] * 3]))
        elif change == "repeat" and isinstance(parent, list):
            parent[key:key] = copy.deepcopy(parent[key : key + 1]) * draw(st.sampled_from([1, 10, 500]))
        elif change == "deep":
            parent[key] = deep(draw(st.sampled_from([5, 45, 200])))
    return data


TOKENS = (
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xe9",
        b"\r",
        b"\n",
        b"\r\n",
        b"\t",
        b" ",
        b'"',
        b"'",
        b",",
        b";",
    ),
    *(
        b"!!int ",
        b"&a ",
        b"*a",
        b"? ",
        b"[",
        b"{",
        b"]",
        b"}",
        b"- ",
        b": ",
        b"#",
        b"|",
        b">",
        b"%YAML 1.1\n",
        b"---\n",
    ),
    *(
        b"0x_",
        b"1:30",
        b"0777",
        b"1e999",
        b".nan",
        b".inf",
        b"nan",
        b"-1",
        b"NaN",
        b"Infinity",
        b"null",
        b'""',
        b"\\u0000",
    ),
    *(
        b"[" * 2000,
        b"{" * 2000,
        b"a" * 20_000,
        b"- " * 500,
        b'{"a":' * 2000,
        b'"' * 1001,
        b"\xf0\x9f\x98\x80",
        b"\xed\xa0\x80",
    ),
)


@st.composite
def mutated_bytes(draw, corpus, mutations=3):
    """A file from the corpus with one to several changes: bytes that are inserted, lost, changed, repeated or moved."""
    raw = draw(st.sampled_from(list(corpus)))
    for _ in range(draw(st.integers(1, mutations))):
        start = draw(st.integers(0, len(raw)))
        end = min(len(raw), start + draw(st.sampled_from([0, 1, 2, 10, 100, 10**6])))
        change = draw(st.sampled_from(("insert", "delete", "flip", "repeat", "move")))
        part = raw[start:end]
        if change == "insert":
            part = draw(st.sampled_from(TOKENS)) + part
        elif change == "delete":
            part = b""
        elif change == "flip":
            part = bytes(byte ^ draw(st.sampled_from([1, 0x20, 0x80, 0xFF])) for byte in part[:10]) + part[10:]
        elif change == "repeat":
            part = (part * draw(st.sampled_from([2, 50])))[:100_000]
        elif change == "move":
            raw, part = raw[:start] + raw[end:] + part, b""
            end = start
        raw = raw[:start] + part + raw[end:]
    return raw


class BrokenRule(AssertionError):
    """An input led to something else than a result or one clear error."""


class OneClearError:
    """A result or one clear error, within five seconds, and nothing written outside ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir()
        self.before = self._outside()
        self.counts = {"result": 0, "error": 0}

    def _outside(self):
        return sorted(os.fspath(path) for path in self.folder.iterdir())

    @contextmanager
    def check(self):
        """Run the body and check it."""
        start = time.monotonic()
        signal.signal(signal.SIGALRM, _too_long)
        signal.setitimer(signal.ITIMER_REAL, 4 * MAX_SECONDS)
        try:
            yield
            self.counts["result"] += 1
        except LimbeckError as error:
            self.counts["error"] += 1
            text = str(error)
            if not text or len(text) > MAX_MESSAGE:
                raise BrokenRule(f"a message of {len(text):,} characters: {text[:500]}") from error
            text.encode()  # it can be printed
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if (seconds := time.monotonic() - start) > MAX_SECONDS:
            raise BrokenRule(f"took {seconds:.1f} s")
        if (after := self._outside()) != self.before:
            raise BrokenRule(f"written outside: {set(after) - set(self.before)}")


def _too_long(*_):
    raise BrokenRule(f"took more than {4 * MAX_SECONDS} s")


def examples(count):
    """Settings of a test that tries so many inputs, or a part of them with ``FUZZ_PART=10`` (a tenth).

    The inputs are always the same, so that a test fails for what was changed and not by chance. With ``FUZZ_RANDOM=1``
    they are others each time; those that fail are then kept in ``.hypothesis`` and tried first.
    """
    count = max(1, count // int(os.environ.get("FUZZ_PART", "1")))
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        derandomize="FUZZ_RANDOM" not in os.environ,
        report_multiple_bugs=True,
    )
