"""Numbers and settings as text, for tables, pages and cards."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.core.measurement import Measurement
from limbeck.core.metrics import METRICS


def milliseconds(seconds: float) -> str:
    """Format seconds as milliseconds with three significant digits.

    >>> milliseconds(0.00134), milliseconds(0.0413), milliseconds(0.7)
    ('1.34', '41.3', '700')
    """
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def megabytes(value: float) -> str:
    """Format bytes as decimal megabytes.

    >>> megabytes(91_300_000), megabytes(1_340_000)
    ('91.3', '1.3')
    """
    return f"{value / 1e6:.1f}" if value < 1e8 else f"{value / 1e6:.0f}"


def duration(seconds: float) -> str:
    """Format a duration in seconds for people.

    >>> duration(3.25), duration(190), duration(7260)
    ('3.2 s', '3 min 10 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def quality(value: float, metric: str) -> str:
    """Format a metric: fractions in per cent, others unchanged.

    >>> quality(0.8731, "accuracy"), quality(0.8731, "spearman")
    ('87.3 %', '0.873')
    """
    return f"{value * 100:.1f} %" if METRICS[metric].share else f"{round(value, 3) + 0.0:.3f}"


def quality_interval(fact: Measurement, metric: str) -> str:
    """Format the interval of a quality; empty if it has none."""
    if fact.low is None or fact.high is None:
        return ""
    if not METRICS[metric].share:
        return f"[{fact.low:.3f}, {fact.high:.3f}]"
    return f"[{fact.low * 100:.1f}, {fact.high * 100:.1f}]"


def time_interval(fact: Measurement) -> str:
    """Format the interval of a time in milliseconds; empty if it has none."""
    return "" if fact.low is None or fact.high is None else f"[{milliseconds(fact.low)}, {milliseconds(fact.high)}]"


def rate(value: float) -> str:
    """Format texts per second.

    >>> rate(12.34), rate(1234.5)
    ('12.3', '1,234')
    """
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def signed(value: float) -> str:
    """Format with a sign and one decimal, using a real minus.

    >>> signed(-0.44), signed(0.44), signed(-0.04)
    ('−0.4', '+0.4', '0.0')
    """
    text = f"{value:+.1f}"
    return "0.0" if text in ("-0.0", "+0.0") else text.replace("-", "−")


def settings(values: Mapping[str, Any], limit: int | None = None) -> str:
    """Format the parameters of a step in one line, cut to ``limit`` characters.

    >>> settings({"epochs": 3, "seed": None})
    'epochs 3'
    """
    parts = (
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if value not in (None, "", [], {})
    )
    text = ", ".join(parts)
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def csv_text(lines: Sequence[Mapping[str, object]]) -> str:
    """Format rows as CSV, with the columns that any of them has.

    >>> csv_text([{"a": 1}, {"a": 2, "b": 3}]).splitlines()
    ['a,b', '1,', '2,3']
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()
