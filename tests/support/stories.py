"""A made-up run with a teacher, its exports, two pruned lines and a failure. Not a test.

Candidates: t (teacher, 8 ms), tx (ONNX, 4 ms), tq (INT8, 3 ms), and for a (2x) and b (4x) p (pruned, not measured),
d (distilled, not measured), x (ONNX) and q (INT8). Times of a session alternate, and correct answers are kept.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

import limbeck.techniques  # noqa: F401 names of candidates come from the steps
from limbeck.core.candidate import Record
from limbeck.core.kinds import KINDS
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.core.statistics import pack
from limbeck.core.target import Budget
from limbeck.report.summary import RunSummary

FULL = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
HALF, QUARTER = (Shape.uniform(layers=2, hidden=32, heads=h, ffn=f, head_dim=8) for h, f in ((2, 32), (1, 16)))
EXAMPLES = 200


def quality(right: int, split: str = "validation", shift: int = 0) -> Measurement:
    correct = np.roll(np.arange(EXAMPLES) < right, shift)
    share, detail = right / EXAMPLES, {"metric": "accuracy", "correct": pack(correct)}
    return Measurement("quality", share, "1", share - 0.04, share + 0.04, EXAMPLES, split=split, detail=detail)


def latency(seconds: float, session: str = "s") -> tuple[Measurement, ...]:
    noise = 1 + 0.01 * np.sin(np.arange(15))  # the machine slows all of a round
    detail = {"session": session, "rounds": (seconds * noise).tolist()}
    return (
        Measurement("latency_p50", seconds, "s", seconds * 0.99, seconds * 1.01, n=150, detail=detail),
        Measurement("latency_p90", seconds * 1.8, "s", n=150),
        Measurement("latency_p99", seconds * 2.5, "s", n=150),
    )


def facts(seconds: float, right: int, size: float, shift: int = 0) -> tuple[Measurement, ...]:
    both = quality(right, shift=shift), quality(right - 2, "test", shift)
    return (*latency(seconds), *both, Measurement("size", size, "B"), Measurement("parameters", size / 4, "1"))


def records() -> dict[str, Record]:
    records_by_key = {}

    def add(key, parent, step, parameters=None, shape=FULL, traits=("torch",), facts=(), duration=1.0):
        records_by_key[key] = Record(key, parent, step, parameters or {}, shape, frozenset(traits), facts, duration)

    onnx, int8 = ("onnx",), ("onnx", "int8")
    add("root", None, "model", {"source": "hub/tiny-bert"})
    add("t", "root", "finetune", {"epochs": 3}, facts=facts(8e-3, 180, 90e6), duration=190.0)
    add("tx", "t", "export", traits=onnx, facts=facts(4e-3, 180, 90e6))
    add("tq", "tx", "quantize", {"mode": "dynamic"}, traits=int8, facts=facts(3e-3, 178, 23e6))
    for name, shape, speedup, seconds, right in (("a", HALF, 2.0, 2e-3, 178), ("b", QUARTER, 4.0, 1e-3, 150)):
        add(f"p{name}", "t", "prune", {"speedup": speedup}, shape)
        add(f"d{name}", f"p{name}", "distill", {"epochs": 4}, shape)
        add(f"x{name}", f"d{name}", "export", {}, shape, onnx, facts(seconds, right, 40e6))
        add(
            f"q{name}", f"x{name}", "quantize", {"mode": "dynamic"}, shape, int8, facts(seconds * 0.65, right - 1, 10e6)
        )
    return records_by_key


def task(**changes) -> SimpleNamespace:
    base = {
        "name": "toy-reviews",
        "kind": "classification",
        "metric": "accuracy",
        "label_names": ("negative", "positive"),
        "problem_type": "single_label_classification",
        "max_length": 16,
        "notes": ("3 empty texts were left out",),
        "splits": {"train": SimpleNamespace(pairs=None)},
    }
    values = {**base, **changes}
    return SimpleNamespace(**values, task_kind=KINDS[values["kind"]])


def run_summary(**changes) -> RunSummary:
    base = RunSummary(
        records=records(),
        measured=("t", "tx", "tq", "xa", "qa", "xb", "qb"),
        chosen=("qa",),
        teacher="t",
        reference="t",
        recipe="model: hub/tiny-bert\nsteps:\n  - finetune: {epochs: 3}\n",
        environment={"processor": "Toy CPU", "cores": 2, "versions": {"torch": "2.13.0"}},
        failed=({"step": "quantize", "key": "xb", "error": "ValueError: no text", "traceback": "Traceback\n  boom"},),
        task=task(),
        budget=Budget(latency_ms=2.0, max_drop=3.0),
        seeds=(0, 1),
    )
    return replace(base, **changes)


def with_facts(records_by_key: dict[str, Record], key: str, *added: Measurement) -> dict[str, Record]:
    """The records with newer facts of one of them."""
    return {**records_by_key, key: replace(records_by_key[key], facts=(*records_by_key[key].facts, *added))}


def tell_of_scores() -> RunSummary:
    """The same run with a file of scores as its teacher: figures are relative to the fine-tuned model."""
    records_by_key = records()
    records_by_key["f"] = Record("f", None, "teacher", {"source": "/data/llm.jsonl"}, None, frozenset({"teacher"}))
    records_by_key = with_facts(records_by_key, "f", quality(190), quality(189, "test"))
    return run_summary(records=records_by_key, measured=("f", *run_summary().measured), teacher="f")


def tell_of_another_teacher() -> RunSummary:
    """A run whose model learns from another checkpoint, of twice the layers."""
    records_by_key = records()
    wide = Shape.uniform(layers=4, hidden=64, heads=4, ffn=128)
    records_by_key["big"] = Record("big", None, "teacher", {"source": "hub/big"}, wide, frozenset({"torch", "teacher"}))
    records_by_key = with_facts(records_by_key, "big", *facts(80e-3, 190, 400e6))
    return run_summary(
        records=records_by_key, measured=("big", *run_summary().measured), teacher="big", reference="big"
    )
