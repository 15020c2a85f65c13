"""Latency of any shape from a table measured on the target: a constant, and an amount for each width of each layer.

    latency(shape) = constant + sum over layers (layer + attention[core][heads] + feed_forward[ffn])

The last layer has amounts of its own: an exported classifier needs only its first token and leaves out the rest.
A few dozen encoders with random weights (speed does not depend on their values) are timed alternately in one process:
one dimension varied at a time, and ragged shapes drawn at random. Amounts are fitted to the measured times by least
squares of the relative error, as increments that may not be negative: a wider layer is never predicted to be faster
(isotonic), and widths between two measured ones are interpolated. The error is estimated on shapes left out of the fit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise
from typing import Any

import numpy as np

from limbeck.core.analytic_cost import NumberFormat, as_shape, check_format, of_model
from limbeck.core.candidate import Candidate
from limbeck.core.cost import Cost, Memo
from limbeck.core.measurement import Measurement, environment
from limbeck.core.model import EncoderStyle
from limbeck.core.shape import LayerShape, Shape, canonical_json
from limbeck.core.target import Target
from limbeck.errors import InputError, nearest
from limbeck.measure.dummy_model import Setting, style_of, warm_calls

VERSION = 2  #: part of the key of a stored table; bump it when the same input gives another table
MOST_LAYERS = 6  #: layers of the encoders that are timed; more add nothing but memory


@dataclass(frozen=True)
class Curve:
    """Seconds by width: measured points, a straight line between them.

    >>> Curve((0, 4), (0.0, 2.0))(3)
    1.5
    """

    widths: tuple[int, ...]
    seconds: tuple[float, ...]

    def __call__(self, width: int) -> float:
        """Return the seconds at a width; beyond the widest, those of the widest."""
        return float(np.interp(width, self.widths, self.seconds))


@dataclass(frozen=True)
class LatencyTable(Cost):
    """A Cost: predicted p50 latency of a shape, in seconds.

    Two tables are comparable only if they were built together on an idle machine; within one, differences are good to
    ``error_median`` (of the whole latency).

    >>> attention, feed_forward = Curve((0, 2), (0.0, 2e-3)), Curve((0, 16), (0.0, 4e-3))
    >>> nothing = Curve((0,), (0.0,))
    >>> parts = (1e-3, 0.0, {"softmax": attention}, feed_forward, {"softmax": nothing}, nothing)
    >>> table = LatencyTable(8, 4, *parts, target="here", number_format="float", seq_len=10)
    >>> round(table(Shape(8, 4, (LayerShape(2, 16), LayerShape(1, 4), LayerShape(2, 16)))).value * 1e3, 6)
    9.0
    """

    hidden: int
    head_dim: int
    constant: float
    layer: float
    attention: Mapping[str, Curve] = field(hash=False)
    feed_forward: Curve
    last_attention: Mapping[str, Curve] = field(hash=False)
    last_feed_forward: Curve
    target: str
    number_format: NumberFormat
    seq_len: int
    error_median: float = 0.0
    error_p95: float = 0.0
    held_out: int = 0
    noise: float = 0.0
    machine: str = ""

    def __call__(self, shape: Shape, number_format: str | None = None) -> Measurement:
        """Predicted latency; the interval is the error that 95 % of the held-out shapes stayed within."""
        check_format(self.number_format, number_format)
        if (shape.hidden, shape.head_dim) != (self.hidden, self.head_dim):
            widths = f"of width {self.hidden} with heads of {self.head_dim}"
            raise InputError(f"the latency table is for encoders {widths}, got {shape}")
        value = self.constant + sum(self.of_layer(layer) for layer in shape.layers[:-1])
        value += sum(self.of_layer(layer, last=True) for layer in shape.layers[-1:])
        detail = {"source": "table", "number_format": self.number_format, "seq_len": self.seq_len}
        reach = value * self.error_p95
        return Measurement("latency_p50", value, "s", value - reach, value + reach, target=self.target, detail=detail)

    def of_layer(self, layer: LayerShape, last: bool = False) -> float:
        """Seconds that one layer takes."""
        if layer.attention not in self.attention:
            suggestion = nearest(layer.attention, self.attention)
            raise InputError(f"the latency table has not measured attention '{layer.attention}'; {suggestion}")
        if last:  # the cost of an empty layer is part of the constant
            return self.last_attention[layer.attention](layer.heads) + self.last_feed_forward(layer.ffn)
        return self.layer + self.attention[layer.attention](layer.heads) + self.feed_forward(layer.ffn)

    def for_format(self, number_format: str) -> LatencyTable:
        """Return this table, if it has that number format."""
        check_format(self.number_format, number_format)
        return self

    @property
    def key(self) -> str:  # type: ignore[override]  # computed here, a plain field elsewhere
        """Digest of what was measured; equal keys mean equal predictions."""
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyTable:
        """Inverse of :meth:`to_json`."""

        def curve(value: Mapping[str, Any]) -> Curve:
            return Curve(tuple(value["widths"]), tuple(value["seconds"]))

        read = {name: curve(data[name]) for name in ("feed_forward", "last_feed_forward")}
        cores = {
            name: {core: curve(value) for core, value in data[name].items()} for name in ("attention", "last_attention")
        }
        return cls(**{**data, **read, **cores})

    @classmethod
    def memoized(
        cls, candidate: Candidate, target: Target, number_format: str, memo: Memo, whole: Shape | None = None
    ) -> LatencyTable:
        """Measure the table for the median length of a candidate's texts, once per ``memo``.

        Args:
            candidate: Its task gives the texts, its model the style of the measured encoders.
            target: Where latency is measured.
            number_format: ``float`` or ``int8``.
            memo: Returns the stored arrays of a key, or computes and stores them.
            whole: The table holds for everything that can be cut out of this shape; the candidate's own if None.
        """
        if number_format not in ("float", "int8"):
            raise InputError(f"number_format should be 'float' or 'int8', got '{number_format}'")
        own, style = of_model(candidate.model)
        shape = whole or own
        seq_len = target.seq_len or typical_length(candidate, target.batch)
        machine = {name: environment()[name] for name in ("processor", "instructions", "versions")}
        machine |= {"accelerators": environment().get("accelerators")} if target.on_gpu else {}
        inputs = {"shape": shape.to_json(), "style": style_of(style), "seq_len": seq_len, "machine": machine}
        per_token = candidate.task.task_kind.per_token
        inputs |= {"target": str(target), "number_format": number_format, "version": VERSION, "per_token": per_token}
        name = f"latency-table-{hashlib.sha256(canonical_json(inputs).encode()).hexdigest()[:16]}"

        def measure() -> dict[str, Any]:
            kind: NumberFormat = "int8" if number_format == "int8" else "float"
            table = build(shape, style, target, kind, seq_len, per_token=per_token)
            return {"json": np.frombuffer(json.dumps(table.to_json()).encode(), dtype=np.uint8)}

        return cls.from_json(json.loads(np.asarray(memo(name, measure)["json"], dtype=np.uint8).tobytes()))


def typical_length(candidate: Candidate, batch: int = 1, samples: int = 200, percent: float = 50) -> int:
    """Return the median number of tokens of a batch of the task's training texts, padded as ``latency`` pads.

    At real lengths, p50 is the latency of such a batch.

    Args:
        candidate: Gives the task and the tokenizer.
        batch: Texts in a batch.
        samples: Texts to tokenize, at least eight batches.
        percent: Percentile to return instead of the median, 0 to 100.
    """
    from limbeck.measure.samples import sample_rows, token_lists

    rows = sample_rows(candidate.task, "train", max(samples, 8 * batch))
    lengths = [len(ids) for ids in token_lists(candidate.task, "train", rows, candidate.tokenizer)]
    if candidate.task.task_kind.grouped:  # documents of a request are sorted
        lengths.sort()
    return int(np.percentile([max(lengths[start : start + batch]) for start in range(0, len(lengths), batch)], percent))


def build(
    shape: Shape,
    style: EncoderStyle,
    target: Target,
    number_format: NumberFormat = "float",
    seq_len: int | None = None,
    *,
    per_token: bool = False,
    seconds: float = 25.0,
    seed: int = 0,
) -> LatencyTable:
    """Measure a table for everything that can be cut out of a shape.

    Args:
        shape: The largest shape.
        style: Style or configuration of the encoders.
        target: Where latency is measured.
        number_format: ``float`` or ``int8``.
        seq_len: Tokens in a text; the target's length, or 32, if None.
        per_token: Whether every token is answered.
        seconds: Approximate timing budget; loading comes on top.
        seed: Seed of the sampled shapes.
    """
    from limbeck.measure.isolation import run_timed

    length = seq_len or target.seq_len or 32
    setting = Setting(style_of(style), target, number_format, length, per_token)
    setting.check()
    full = as_shape(shape)
    fitted, held_out = designs(full, seed)
    shapes = [each.to_json() for each in (*fitted, *held_out)]
    payload = {"shapes": shapes, "setting": setting.to_json(), "seconds": seconds}
    answer = run_timed("limbeck.cost_models.latency_table:session", payload, target)
    times = quiet(answer["seconds"])
    table = fit(full, fitted, times[: len(fitted)], str(target), number_format, length)
    errors = relative_errors(table, held_out, times[len(fitted) :])
    quartiles = np.quantile(answer["seconds"].min(axis=2), [0.25, 0.75], axis=1)
    return dataclasses.replace(
        table,
        error_median=float(np.median(errors)),
        error_p95=float(np.quantile(errors, 0.95)),
        held_out=len(held_out),
        noise=float(np.median((quartiles[1] - quartiles[0]) / times)),
        machine=environment()["processor"],
    )


def nodes(full: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Widths to measure: 0, 1 at least, and the given shares of the full width.

    >>> nodes(12, (0.25, 0.5, 1))
    (0, 3, 6, 12)
    """
    return tuple(sorted({0, *(max(1, round(full * share)) for share in shares)}))


def head_nodes(full: int) -> tuple[int, ...]:
    """Return the numbers of heads to measure."""
    return nodes(full, (1 / 12, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1))


def ffn_nodes(full: int) -> tuple[int, ...]:
    """Return the numbers of neurons to measure."""
    return nodes(full, (1 / 32, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 1))


def last_nodes(full: int) -> tuple[int, ...]:
    """Return the widths of the last layer to measure."""
    return nodes(full, (1 / 12, 1))


def designs(full: Shape, seed: int = 0, ragged: int = 8, held_out: int = 8) -> tuple[list[Shape], list[Shape]]:
    """Choose shapes to fit and shapes to validate on: one dimension varied at a time, and random ragged ones.

    Args:
        full: The largest shape.
        seed: Seed of the ragged shapes.
        ragged: Number of ragged shapes to fit.
        held_out: Number of ragged shapes to validate on.
    """
    depth = min(full.depth, MOST_LAYERS)
    heads, ffn = max((row.heads for row in full.layers), default=0), max((row.ffn for row in full.layers), default=0)
    if not heads or not ffn:
        raise InputError(f"no latency table for an encoder without heads or neurons: {full}")
    cores = _cores(full)
    few, step = min(depth, 4), 16 if ffn >= 256 else 1  # 16: kernels are fastest at such widths, and pruning keeps them

    def same(layers: int, heads: int, ffn: int, core: str = cores[0]) -> Shape:
        return Shape.uniform(layers, full.hidden, heads, ffn, head_dim=full.head_dim, attention=core)

    shapes = [same(few, width, ffn // 2, core) for core in cores for width in head_nodes(heads)]
    shapes += [same(few, heads // 2, width) for width in ffn_nodes(ffn)]
    shapes += [same(depth, heads, ffn), same(depth, 0, 0)]
    shapes += [same(1, width, ffn // 2, core) for core in cores for width in last_nodes(heads)]
    shapes += [same(1, heads // 2, width) for width in last_nodes(ffn)]
    rng = random.Random(seed)

    def sample() -> Shape:
        widths = [(rng.randint(0, heads), rng.randrange(0, ffn + 1, step)) for _ in range(depth)]
        rows = [LayerShape(*both, cores[index % len(cores)]) for index, both in enumerate(widths)]
        return Shape(full.hidden, full.head_dim, tuple(rows[: rng.randint(max(1, depth - 2), depth)]))

    fitted = list(dict.fromkeys([*shapes, *(sample() for _ in range(ragged))]))
    return fitted, [sample() for _ in range(held_out)]


def _amounts(width: int, widths: Sequence[int]) -> list[float]:
    """Return the fraction, 0 to 1, of each step between neighboring measured widths that a width covers."""
    steps = pairwise(widths)
    return [min(max((width - low) / (high - low), 0.0), 1.0) for low, high in steps]


def fit(
    full: Shape, shapes: Sequence[Shape], times: np.ndarray, target: str, number_format: NumberFormat, seq_len: int
) -> LatencyTable:
    """Fit a table by least squares of the relative error, with no negative increment.

    Args:
        full: The largest shape.
        shapes: Measured shapes.
        times: Their latencies in seconds [shapes].
        target: Description of the target.
        number_format: Number format of the measured encoders.
        seq_len: Tokens in a text.
    """
    from scipy.optimize import nnls

    heads, ffn = max(row.heads for row in full.layers), max(row.ffn for row in full.layers)
    cores = _cores(full)
    widths = ((head_nodes(heads), ffn_nodes(ffn)), (last_nodes(heads), last_nodes(ffn)))

    def amounts(row: LayerShape, last: int) -> list[float]:
        """Return the fraction of each step that a layer covers: of the heads with each core, and of the neurons."""
        head_widths, ffn_widths = widths[last]
        heads_by_core = [_amounts(row.heads if row.attention == core else 0, head_widths) for core in cores]
        return [*chain(*heads_by_core), *_amounts(row.ffn, ffn_widths)]

    def features(shape: Shape) -> list[float]:
        *others, last = shape.layers
        inner = [sum(column) for column in zip(*(amounts(row, 0) for row in others), strict=True)]
        inner = inner or [0.0] * len(amounts(last, 0))
        return [1.0, float(len(others)), *inner, *amounts(last, 1)]

    relative = np.array([features(shape) for shape in shapes]) / times[:, None]
    increments = nnls(relative, np.ones(len(shapes)))[0]
    constant, layer, *steps = increments.tolist()

    def curve(each: tuple[int, ...]) -> Curve:
        increases = [steps.pop(0) for _ in each[1:]]
        return Curve(each, (0.0, *np.cumsum(increases).tolist()))

    def layer_curves(last: int) -> tuple[dict[str, Curve], Curve]:
        head_widths, ffn_widths = widths[last]
        return {core: curve(head_widths) for core in cores}, curve(ffn_widths)

    attention, feed_forward = layer_curves(0)  # curves take their increments from ``steps`` in this order
    last_attention, last_feed_forward = layer_curves(1)
    return LatencyTable(
        full.hidden,
        full.head_dim,
        constant,
        layer,
        attention,
        feed_forward,
        last_attention,
        last_feed_forward,
        target,
        number_format,
        seq_len,
    )


def _cores(shape: Shape) -> list[str]:
    """Return the attention cores of a shape in the order of their first layers."""
    return list(dict.fromkeys(row.attention for row in shape.layers))


def quiet(seconds: np.ndarray) -> np.ndarray:
    """Return the undisturbed seconds of each candidate, from [candidate, round, call] of one and the same input.

    Other work on the machine only ever adds time: the best call of each round, and the better quarter of the rounds.
    """
    return np.asarray(np.quantile(seconds.min(axis=2), 0.25, axis=1))


def relative_errors(table: LatencyTable, shapes: Sequence[Shape], times: np.ndarray) -> np.ndarray:
    """Return the relative error of each prediction.

    Args:
        table: The table that predicts.
        shapes: Measured shapes.
        times: Their latencies in seconds [shapes].
    """
    errors: np.ndarray = np.abs(np.array([table(shape).value for shape in shapes]) / times - 1)
    return errors


def session(payload: dict[str, Any]) -> dict[str, Any]:
    """Build an encoder of each shape in the child process and time them alternately for the given seconds."""
    from limbeck.measure.accelerator import clock, warm_up
    from limbeck.measure.timing import alternate, time_call

    setting = Setting.from_json(payload["setting"])
    device = setting.target.device
    calls = warm_calls([Shape.from_json(shape) for shape in payload["shapes"]], setting)
    warm_up(calls, device)
    once = sum(time_call(partial(call, 0)) for call in calls)
    turns, most, least = 5, 25, 5
    rounds = int(min(max(payload["seconds"] / (once * (turns + 1)), least), most))
    timings = alternate(calls, turns, rounds, now=clock(device))
    return {"seconds": np.stack([timing.seconds for timing in timings])}
