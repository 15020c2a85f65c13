"""Select the runtime and the attention for a task and this machine, measured with dummy models before planning."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from limbeck.core.model import EncoderStyle
from limbeck.core.shape import Shape, short_key
from limbeck.core.target import Runtime, Target
from limbeck.core.task import Task
from limbeck.engine.store.store import Store
from limbeck.errors import LimbeckError

LINEAR = "linformer:128"
"""The core that long texts are tried with."""


@dataclass(frozen=True)
class Case:
    """A model's shape and style, with the length of a task's texts."""

    shape: Shape
    style: EncoderStyle
    seq_len: int
    per_token: bool
    long_texts: bool = False

    @classmethod
    def of(cls, model: str, task: Task, target: Target) -> Case:
        """From the model's configuration and the task's median text, or the target's length.

        Args:
            model: Folder or hub name of the model.
            task: The task.
            target: Where the model will be served.
        """
        from limbeck.measure.samples import lengths_of
        from limbeck.model.checkpoints import peek, peek_style
        from limbeck.model.onnx.graph import LONG_TEXT

        facts = peek(model)
        tokens = int(median(lengths_of(task, facts["vector_length" if task.task_kind.vectors else "max_length"])))
        texts = (target.seq_len or tokens, task.task_kind.per_token, tokens >= LONG_TEXT)
        return cls(facts["shape"], peek_style(model), *texts)

    def memo(
        self, name: str, more: Mapping[str, Any], store: Store | None, measure: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the result of ``measure``, run once per case and machine; no two processes time at once.

        Args:
            name: Kind of the result.
            more: Everything else that affects the result.
            store: Where finished work is kept.
            measure: Times the models.
        """
        from limbeck.core.measurement import machine
        from limbeck.measure.dummy_model import style_of

        def alone() -> dict[str, Any]:
            with store.machine.alone() if store is not None else nullcontext():
                return measure()

        identity = {"shape": self.shape.to_json(), "style": style_of(self.style), "seq_len": self.seq_len}
        identity |= {"machine": machine(), "per_token": self.per_token, **more}
        identity |= {"long_texts": True} if self.long_texts else {}  # newer than stored results
        name = f"{name}-{short_key(identity)}"
        return store.facts.arrays(name, alone) if store is not None else alone()


def faster_core(case: Case, target: Target, store: Store | None = None) -> str | None:
    """Return the attention core that beats softmax in INT8 at the length of the task's texts; None if there is none.

    A dummy model of the model's shape is timed on this machine with both cores, and the result is kept in the store. If
    texts are so short that linear attention has no fewer operations, nothing is timed.

    Args:
        case: The model, its style and the length of its texts.
        target: Where the model will be served.
        store: Where finished work is kept.
    """
    from limbeck.measure.paying import TRIALS, paying

    if any(layer.core[0] not in ("softmax", "local") for layer in case.shape.layers):
        return None  # it is linear already

    def measure() -> dict[str, Any]:
        comparison = paying(
            case.shape,
            case.style,
            target,
            LINEAR,
            case.seq_len,
            per_token=case.per_token,
            long_texts=case.long_texts,
        )
        return {
            "seconds": [] if comparison is None else [list(comparison.softmax), list(comparison.linear)],
            "pays": bool(comparison and comparison.pays),
        }

    timing = case.memo("faster-core", {"core": LINEAR, "target": target.identity(), "rounds": TRIALS}, store, measure)
    return LINEAR if bool(timing["pays"]) else None


def faster_runtime(case: Case, target: Target, store: Store | None = None) -> Runtime:
    """Return the runtime in which INT8 is faster on this machine: OpenVINO where it is installed and clearly faster.

    A dummy model with half of the model's heads and neurons, like typical candidates, is timed in each runtime with the
    graph that suits it: ONNX Runtime's fused operators, or standard operators with static ranges. The result is kept in
    the store. An OpenVINO that does not work is skipped with a warning.

    Args:
        case: The model, its style and the length of its texts.
        target: Where the model will be served.
        store: Where finished work is kept.
    """
    from limbeck.measure.dummy_model import Setting, style_of
    from limbeck.measure.paying import TRIALS, in_turns, pays

    if importlib.util.find_spec("openvino") is None:
        return "onnxruntime"
    rows = (replace(row, heads=-(-row.heads // 2), ffn=-(-row.ffn // 2)) for row in case.shape.layers)
    half = replace(case.shape, layers=tuple(rows))
    runtimes: tuple[Runtime, ...] = ("onnxruntime", "openvino")

    def measure() -> dict[str, Any]:
        targets = [replace(target, runtime=runtime) for runtime in runtimes]
        own = (case.seq_len, case.per_token, case.long_texts)
        settings = [Setting(style_of(case.style), each, "int8", *own) for each in targets]
        return {"seconds": in_turns([(half, setting) for setting in settings])}

    try:
        identity = {"target": replace(target, runtime=runtimes[0]).identity(), "rounds": TRIALS}
        timing = case.memo("faster-runtime", identity, store, measure)
    except LimbeckError as error:
        warnings.warn(f"OpenVINO is installed but not tried: {error}", stacklevel=2)
        return "onnxruntime"
    onnxruntime, openvino = timing["seconds"]
    return runtimes[int(pays(onnxruntime, openvino))]
