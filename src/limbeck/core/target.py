"""The target that a model runs on, and the budget it must meet there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

from annotated_types import Ge, Gt, Le, Lt

from limbeck.errors import InputError, shown

Runtime = Literal["torch", "onnxruntime", "openvino", "tensorrt"]
Precision = Literal["float32", "float16", "bfloat16"]
FloatFormat = Literal["float32", "float16"]
"""Precisions that graphs are exported in."""
Milliseconds = Annotated[float, Gt(0), Le(10_000_000)]
Megabytes = Annotated[float, Gt(0), Le(10_000_000)]
Points = Annotated[float, Ge(0), Le(100)]
Confidence = Annotated[float, Ge(0.5), Lt(1)]
TestedLimit = Literal["max_drop", "max_flips"]
"""Limits that hold with a probability, by the answers to a sample of texts."""
Counted = Literal["texts", "answers", "queries"]
LatencyStatistic = Literal["p50", "mean", "p99"]
"""Which time of a call a latency is: the median, the mean, or the 99th percentile."""
TYPICAL_SUB_BATCH = 8
"""Documents in a call that costs of shapes are measured with, before the fastest size of a model is known."""
URL = re.compile(r"https?://([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]{0,200})?")
"""Address of a measuring service: no user, no query."""
RAY = re.compile(r"ray:([A-Za-z0-9_.-]{1,100})")
"""In place of an address: a node of a Ray cluster measures, the one that has this resource."""


def is_gpu(device: str) -> bool:
    """Return whether torch and ONNX Runtime reach a device through CUDA."""
    return device.partition(":")[0] == "cuda"


@dataclass(frozen=True)
class Target:
    """Setting in which latency is measured.

    ``seq_len`` fixes the number of tokens; None uses the lengths of the task's texts, as a server would see them.
    ``candidates`` makes a call a request of a reranker: that many documents of a query, sorted by length, in
    sub-batches of ``batch``; with batch 1 the size that is fastest.
    ``runtime`` is the runtime of exported models; a torch model is always timed in torch. ``tensorrt`` is ONNX Runtime
    with its provider for TensorRT.
    ``precision`` is the arithmetic of torch models, and of the graphs that stand in for shapes; an exported model
    computes in what it was exported in. ``compile`` runs torch models through ``torch.compile``.
    ``url`` is the address of a measuring service (``limbeck measure serve``) on the machine that counts, such as
    ``https://board:8765``, or ``ray:NAME`` for the node of a Ray cluster that has this resource; latency is then
    measured there, of a torch model on its export in floating point.

    >>> str(Target())
    'onnxruntime, 1 thread, batch 1, real lengths'
    """

    device: str = "cpu"
    runtime: Runtime = "onnxruntime"
    threads: Annotated[int, Ge(1), Le(1024)] = 1
    batch: Annotated[int, Ge(1), Le(100_000)] = 1
    seq_len: Annotated[int, Ge(1), Le(100_000)] | None = None
    candidates: Annotated[int, Ge(2), Le(10_000)] | None = None
    url: str | None = None
    precision: Precision = "float32"
    compile: bool = False

    NEWER: ClassVar[tuple[str, ...]] = ("candidates", "precision", "compile")
    """Fields that there were not always: they enter keys only where they are not at their default."""

    def __post_init__(self) -> None:
        self._check_device()
        if self.url is not None:
            self._check_url()

    @property
    def on_gpu(self) -> bool:
        """Whether models run on a GPU of NVIDIA's (or AMD's, which torch gives the same name)."""
        return is_gpu(self.device)

    def _check_device(self) -> None:
        """Refuse a runtime that cannot use the device, and a precision that the runtime does not compute in."""
        if self.runtime == "openvino" and self.on_gpu:
            raise InputError(
                f"runtime: openvino does not run on {shown(self.device)}; use onnxruntime, tensorrt or torch there"
            )
        if self.runtime == "tensorrt" and not self.on_gpu:
            raise InputError(f"runtime: tensorrt runs on a GPU, got device {shown(self.device)}; use device 'cuda'")
        if self.runtime == "openvino" and self.precision != "float32":
            raise InputError(f"precision: openvino computes in float32, got {shown(self.precision)}; use 'float32'")
        if self.precision == "bfloat16" and self.runtime != "torch":
            raise InputError(
                f"precision: graphs are exported in float32 or float16, and the runtime is {self.runtime}, got "
                "'bfloat16'; use 'float16', or runtime 'torch'"
            )

    def _check_url(self) -> None:
        """Refuse an address that is none, and what the measuring service does not do."""
        assert self.url is not None
        if not URL.fullmatch(self.url) and not RAY.fullmatch(self.url):
            forms = "http://HOST:PORT, https://HOST:PORT or ray:RESOURCE"
            name, equals, value = self.url.partition("=")
            meant = f"; '{name}' is an option of its own (--{name.replace('_', '-')} {shown(value)[1:-1]})"
            hint = meant if equals and name in vars(self) else ""
            raise InputError(f"url: should be {forms}, got {shown(self.url)}{hint}")
        if self.candidates is not None:
            raise InputError(
                "url: the measuring service times batches; requests of 'candidates' are timed on this machine"
            )
        if self.device != "cpu" or self.runtime == "torch":
            setting = f"device {shown(self.device)} and runtime {shown(self.runtime)}"
            raise InputError(
                f"url: the measuring service times ONNX graphs on a processor, got {setting}; give device 'cpu' and "
                "runtime 'onnxruntime' or 'openvino'"
            )
        if self.precision != "float32" or self.compile:
            raise InputError("url: the measuring service times graphs in float32; leave out 'precision' and 'compile'")

    def identity(self) -> dict[str, Any]:
        """Return the fields that enter keys.

        The address says nothing about the machine there, and fields that once did not exist count only where they
        change something.
        """
        usual = {name for name in self.NEWER if getattr(self, name) == getattr(Target, name)}
        return {name: value for name, value in asdict(self).items() if name != "url" and name not in usual}

    def __str__(self) -> str:
        lengths = f"{self.seq_len} tokens" if self.seq_len else "real lengths"
        plural = "" if self.threads == 1 else "s"
        device = "" if self.device == "cpu" else f"{self.device}, "
        call = f"batch {self.batch}"
        if self.candidates is not None:
            sizes = f" in sub-batches of {self.batch}" if self.batch > 1 else ""
            call = f"requests of {self.candidates} documents{sizes}"
        where = "" if self.url is None else f", at {self.url.rpartition('//')[2].rstrip('/')}"
        how = "".join((f", {self.precision}" * (self.precision != "float32"), ", compiled" * self.compile))
        return f"{device}{self.runtime}{how}, {self.threads} thread{plural}, {call}, {lengths}{where}"

    def of_sub_batch(self) -> tuple[Target, float]:
        """Return the target of a single call, and how many such calls a request takes; 1 unless it has documents.

        >>> Target(candidates=50).of_sub_batch()[1]
        6.25
        """
        if self.candidates is None:
            return self, 1.0
        size = min(self.batch if self.batch > 1 else TYPICAL_SUB_BATCH, self.candidates)
        return replace(self, batch=size, candidates=None), self.candidates / size


class Evidence(NamedTuple):
    """How probable it is that a model stays within a limit on what it loses or changes.

    Attributes:
        probability: By its answers to the validation texts.
        missing: About how many more would decide, if the model answers those alike; None where none would.
        counted: What ``missing`` counts: texts, or answers where a text has several.
    """

    probability: float
    missing: int | None = None
    counted: Counted = "texts"


Tests: TypeAlias = Mapping[TestedLimit, Evidence]
"""Evidence by the limit that it is about; where there is none, the numbers alone count."""


@dataclass(frozen=True)
class Budget:
    """Limits that a chosen model must meet; None: no limit.

    Attributes:
        latency_ms: Largest latency of a call, in milliseconds: the median, unless ``latency_statistic`` says otherwise.
        size_mb: Largest size of the served file, in MB.
        max_drop: Largest loss against the fine-tuned model, or a teacher that limbeck opens, in points of the metric.
        max_flips: Largest share of answers that may differ from that model's, right or wrong, in per cent.
        confidence: How probable it must be that ``max_drop`` and ``max_flips`` hold and not only seem to on the
            validation texts; 0.5 compares two numbers, and ignores noise wherever models are compared.
        latency_statistic: Which time of a call limit, choices and fronts are about.
    """

    latency_ms: Milliseconds | None = None
    size_mb: Megabytes | None = None
    max_drop: Points | None = None
    max_flips: Points | None = None
    confidence: Confidence = 0.8
    latency_statistic: LatencyStatistic = "p50"

    @property
    def weighs_noise(self) -> bool:
        """Whether differences within the noise of a measurement decide nothing."""
        return self.confidence > 0.5

    @property
    def given(self) -> dict[str, Any]:  # numbers, each of the type of its field
        """The limits that are set, with the confidence where one of them needs it, and an unusual statistic."""
        beside = ("confidence", "latency_statistic")
        limits = {name: value for name, value in vars(self).items() if value is not None and name not in beside}
        limits |= {"latency_statistic": self.latency_statistic} if self.latency_statistic != "p50" else {}
        tested = self.max_drop is not None or self.max_flips is not None
        return limits | ({"confidence": self.confidence} if tested else {})

    @property
    def latency_fact(self) -> str:
        """Name of the fact that a latency is.

        >>> Budget(latency_statistic="p99").latency_fact
        'latency_p99'
        """
        return f"latency_{self.latency_statistic}"

    def violations(
        self,
        facts: Mapping[str, float],
        reference_quality: float | None = None,
        tests: Tests = MappingProxyType({}),
    ) -> list[str]:
        """Describe every limit that is exceeded; a missing fact exceeds none.

        Args:
            facts: ``latency_p50`` or what :attr:`latency_fact` names (seconds), ``size`` (bytes), ``quality`` (0 to 1,
                or a correlation) and ``flips`` (0 to 1).
            reference_quality: Quality that ``max_drop`` is counted from.
            tests: How probable it is that limits hold.

        >>> Budget(latency_ms=2).violations({"latency_p50": 0.003})
        ['latency 3.00 ms > 2 ms']
        """
        violations = []
        latency, size, quality = facts.get(self.latency_fact), facts.get("size"), facts.get("quality")
        which = "" if self.latency_statistic == "p50" else f"{self.latency_statistic} "
        if self.latency_ms is not None and latency is not None and latency * 1e3 > self.latency_ms + 1e-9:
            violations.append(f"{which}latency {latency * 1e3:.2f} ms > {self.latency_ms:g} ms")
        if self.size_mb is not None and size is not None and size / 1e6 > self.size_mb + 1e-9:
            violations.append(f"size {size / 1e6:.1f} MB > {self.size_mb:g} MB")
        if self.max_drop is not None and quality is not None and reference_quality is not None:
            drop = (reference_quality - quality) * 100
            if drop > self.max_drop + 1e-9:  # 0.932 - 0.917 is a little more than 0.015
                violations.append(f"quality {drop:.2f} points below the reference > {self.max_drop:g}")
            elif doubt := self.doubt("max_drop", tests):
                violations.append(f"quality {drop:.2f} points below the reference, {doubt}")
        flips = facts.get("flips")
        if self.max_flips is not None and flips is not None:
            if flips * 100 > self.max_flips + 1e-9:
                violations.append(f"{flips * 100:.1f} % of the answers changed > {self.max_flips:g} %")
            elif doubt := self.doubt("max_flips", tests):
                violations.append(f"{flips * 100:.1f} % of the answers changed, {doubt}")
        return violations

    def lacking(self, limit: TestedLimit, tests: Tests) -> float:
        """Return what the probability that a limit holds lacks to ``confidence``; 0 where noise does not count.

        Args:
            limit: The limit.
            tests: How probable it is that limits hold.
        """
        if limit not in tests or not self.weighs_noise:
            return 0.0
        return max(0.0, self.confidence - tests[limit].probability)

    def doubt(self, limit: TestedLimit, tests: Tests) -> str:
        """Say how probable it is that a limit holds, and what would decide; empty where it is probable enough.

        Args:
            limit: The limit.
            tests: How probable it is that limits hold.
        """
        if not self.lacking(limit, tests):
            return ""
        probability, more, counted = tests[limit]
        bound = f"{self.max_flips:g} %" if limit == "max_flips" else f"{self.max_drop:g}"
        text = f"within {bound} only with probability {probability:.2f} < {self.confidence:g}"
        return text + (f" (about {more:,} more validation {counted} would decide)" if more is not None else "")

    def excess(
        self,
        facts: Mapping[str, float],
        reference_quality: float | None = None,
        tests: Tests = MappingProxyType({}),
    ) -> float:
        """Return how far facts are from the budget: the sum of the shares by which they exceed each limit.

        A loss of quality counts in points over the limit, a limit below one point as one point; changed answers
        likewise in per cent; a probability in what is missing to ``confidence``.

        Args:
            facts: As for :meth:`violations`; those that the budget limits must be there.
            reference_quality: Quality that ``max_drop`` is counted from.
            tests: As for :meth:`violations`.

        >>> Budget(latency_ms=2).excess({"latency_p50": 0.003})
        0.5
        """
        total = 0.0
        for name, limit, unit in ((self.latency_fact, self.latency_ms, 1e-3), ("size", self.size_mb, 1e6)):
            if limit is not None:
                total += max(0.0, facts[name] / (limit * unit) - 1)
        if self.max_drop is not None and reference_quality is not None:
            drop = (reference_quality - facts["quality"]) * 100
            total += max(0.0, drop - self.max_drop) / max(self.max_drop, 1.0)
            total += self.lacking("max_drop", tests)
        if self.max_flips is not None:
            total += max(0.0, facts["flips"] * 100 - self.max_flips) / max(self.max_flips, 1.0)
            total += self.lacking("max_flips", tests)
        return total


@dataclass(frozen=True)
class Limits:
    """Limits that replace those of a recipe; what is not given stays as the recipe says.

    Attributes:
        latency_ms: Largest latency of a call, in milliseconds: the median, unless latency_statistic says otherwise.
        size_mb: Largest size of the served file, in MB.
        max_drop: Largest loss against the fine-tuned model, or a teacher that limbeck opens, in points of the metric.
        max_flips: Largest share of answers that may differ from that model's, right or wrong, in per cent.
        confidence: How probable it must be that max_drop and max_flips hold and not only seem to on the validation
            texts; 0.5 compares two numbers, and ignores noise wherever models are compared.
        latency_statistic: Which time of a call limit, choices and fronts are about.
    """

    latency_ms: Milliseconds | None = None
    size_mb: Megabytes | None = None
    max_drop: Points | None = None
    max_flips: Points | None = None
    confidence: Confidence | None = None
    latency_statistic: LatencyStatistic | None = None

    @classmethod
    def of(cls, budget: Budget) -> Limits:
        """Return the limits of a budget that are not at their default, as it does not know which were given."""
        default = vars(Budget())
        return cls(**{name: value for name, value in vars(budget).items() if value != default[name]})

    @property
    def given(self) -> dict[str, Any]:  # numbers, and the name of a statistic
        """The limits that are given, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def over(self, budget: Budget) -> Budget:
        """Return a budget with these limits in place of its own.

        >>> Limits(latency_ms=5, confidence=0.8).over(Budget(latency_ms=2, max_drop=1, confidence=0.95)).given
        {'latency_ms': 5, 'max_drop': 1, 'confidence': 0.8}
        """
        return replace(budget, **self.given)
