"""What a client of the measuring service may ask for: token ids, threads and rounds, each within limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from limbeck.errors import InputError, shown, without_middle
from limbeck.measure.machine_state import Conditions

MAX_GRAPHS = 64
"""Graphs that one session alternates."""
MAX_TOKENS = 8192
"""Tokens in a text."""
MAX_TEXTS = 4096
"""Texts in a call."""
MAX_CALLS = 200_000
"""Timed calls in a session."""

Rows = Annotated[
    list[Annotated[list[Annotated[int, Ge(0), Le(2**31 - 1)]], MinLen(1), MaxLen(MAX_TOKENS)]],
    MinLen(1),
    MaxLen(MAX_TEXTS),
]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@checked_dataclass(frozen=True, config=_STRICT)
class TokenBatch:
    """The texts of one call, as rows of equal length [texts, tokens]."""

    input_ids: Rows
    attention_mask: Rows
    token_type_ids: Rows | None = None

    def problem(self) -> str | None:
        """Return what is wrong with the rows together."""
        lengths = {len(row) for row in self.input_ids}
        if len(lengths) > 1:
            return f"input_ids: rows of one batch should be padded to one length, got {min(lengths)} and {max(lengths)}"
        for name, rows in (("attention_mask", self.attention_mask), ("token_type_ids", self.token_type_ids)):
            if rows is not None and [*map(len, rows)] != [*map(len, self.input_ids)]:
                return f"{name}: should have as many rows and columns as input_ids"
        if max(map(max, self.attention_mask)) > 1:
            return f"attention_mask: holds zeros and ones, got {max(map(max, self.attention_mask))}"
        return None


Batches = Annotated[list[TokenBatch], MinLen(1), MaxLen(10_000)]


@checked_dataclass(frozen=True, config=_STRICT)
class TimingRequest:
    """One session: what every graph is called with, and how often.

    Attributes:
        inputs: Batches of each graph, as many for every graph.
        runtime: What runs the graphs.
        threads: Threads of the runtime.
        rounds: Timed rounds over all batches.
        warmup: Rounds that are not timed.
    """

    inputs: Annotated[list[Batches], MinLen(1), MaxLen(MAX_GRAPHS)]
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime"
    threads: Annotated[int, Ge(1), Le(1024)] = 1
    rounds: Annotated[int, Ge(1), Le(10_000)] = 15
    warmup: Annotated[int, Ge(0), Le(10_000)] = 1

    @property
    def largest_ids(self) -> list[int]:
        """The largest token id that each graph reads."""
        return [max(max(map(max, batch.input_ids)) for batch in batches) for batches in self.inputs]

    def problem(self) -> str | None:
        """Return what is wrong with the fields together."""
        counts = {len(batches) for batches in self.inputs}
        if len(counts) > 1:
            return f"inputs: every graph should have as many batches, got {min(counts)} and {max(counts)}"
        calls = len(self.inputs) * max(counts) * (self.rounds + self.warmup)
        if calls > MAX_CALLS:
            return f"rounds: {calls:,} calls in all are more than {MAX_CALLS:,}; give fewer rounds or batches"
        for graph, batches in enumerate(self.inputs):
            for index, batch in enumerate(batches):
                if problem := batch.problem():
                    return f"inputs[{graph}][{index}].{problem}"
        return None

    def to_json(self) -> dict[str, Any]:
        """Return plain data; token types that are not given are left out."""
        plain = asdict(self)
        for batches in plain["inputs"]:
            for batch in batches:
                if batch["token_type_ids"] is None:
                    del batch["token_type_ids"]
        return plain


@cache
def _adapter() -> TypeAdapter[TimingRequest]:
    return TypeAdapter(TimingRequest)


def parse(text: str) -> TimingRequest:
    """Read a request.

    Args:
        text: Its JSON.

    Raises:
        InputError: It is no JSON, a field is missing, unknown or out of bounds, or fields contradict each other.
    """
    try:
        request = _adapter().validate_json(text)
    except ValidationError as error:
        first, count = error.errors(include_url=False)[0], error.error_count()
        where = ".".join(map(str, first["loc"])) or "request"
        more = f"; and {count - 1:,} more" if count > 1 else ""
        message = f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}, got {shown(first['input'])}{more}"
        raise InputError(without_middle(message, 600)) from None
    if problem := request.problem():
        raise InputError(problem)
    return request


@dataclass(frozen=True)
class TimingAnswer:
    """What a session returns: seconds of every call, and the machine.

    Attributes:
        seconds: [graphs, rounds, batches].
        mean_tokens: Tokens of a batch on average, by graph.
        environment: The machine, as in a ledger.
        conditions: Load and clock of the machine before and after, and what other programs used.
    """

    seconds: np.ndarray
    mean_tokens: list[float]
    environment: Mapping[str, Any]
    conditions: Conditions

    def to_json(self) -> dict[str, Any]:
        """Return plain data with p50 and p95 of each graph, in seconds, and their intervals."""
        from limbeck.core.measurement import machine_of
        from limbeck.measure.timing import Timing

        timings = [Timing(seconds) for seconds in self.seconds]
        graphs = [
            {"p50": list(timing.p50), "p95": list(timing.quantile(0.95)), "mean_tokens": tokens}
            for timing, tokens in zip(timings, self.mean_tokens, strict=True)
        ]
        return {
            "graphs": graphs,
            "seconds": self.seconds.tolist(),
            "environment": dict(self.environment),
            "machine": machine_of(self.environment),
            "load": list(self.conditions.load),
            "conditions": self.conditions.to_json(),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], shape: tuple[int, int, int]) -> TimingAnswer:
        """Read the answer of a service.

        Args:
            plain: Its JSON.
            shape: Graphs, rounds and batches that were asked for.

        Raises:
            InputError: It is something else.
        """
        try:
            seconds = np.asarray(plain["seconds"], dtype=np.float64)
            tokens = [float(graph["mean_tokens"]) for graph in plain["graphs"]]
            conditions = Conditions.from_json({**plain.get("conditions", {}), "load": plain["load"]})
            facts = {str(name): value for name, value in plain["environment"].items()}
            whole = seconds.shape == shape and len(tokens) == shape[0] and bool(((seconds > 0) & (seconds < 1e6)).all())
            missing = {"processor", "instructions", "versions"} - facts.keys()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = without_middle(f"{type(error).__name__}: {error}", 300)
            raise InputError(f"its answer is no measurement ({reason})") from None
        if not whole or missing:
            raise InputError(f"its answer is no measurement of {shape[0]} graphs in {shape[1]} rounds")
        return cls(seconds, tokens, facts, conditions)
