"""Trials of single architectures: a dummy model, alone in a fresh process, called repeatedly.

Like the original tool, it discards the first part of the calls (its ramp-up ratio is 0.1). A shape may
also run as a slice of a larger one whose weights it shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.measure.accelerator import used_memory
from limbeck.measure.backends import import_runtime
from limbeck.measure.dummy_model import Setting, graph_of, inputs, runner_of, stand_in
from limbeck.storage.drafts import temporary_folder


@dataclass(frozen=True)
class Trial:
    """One series of calls. With several ``lengths`` the calls take them in turn; ``within`` is the super model."""

    shape: Shape
    setting: Setting
    calls: int = 100
    warmup_ratio: float = 0.1
    lengths: tuple[int, ...] = ()
    within: Shape | None = None

    def check(self) -> None:
        """Refuse trials that cannot be timed, before any work starts."""
        self.setting.check()
        if self.calls < 1 or not 0 <= self.warmup_ratio < 1:
            raise InputError(
                f"calls should be at least 1 and the warm-up ratio in [0, 1), got {self.calls} and "
                f"{self.warmup_ratio:g}"
            )
        for tokens in self.lengths:
            self.setting.check_length(tokens)
        if self.within is not None and (self.setting.target.runtime, self.setting.number_format) != ("torch", "float"):
            raise InputError(
                "shared weights are sliced at every call, which only the runtime torch can do; "
                f"got {self.setting.target.runtime}, {self.setting.number_format}"
            )
        if self.within is not None and not self.shape <= self.within:
            raise InputError(f"{self.shape} is not a slice of the super model, {self.within}")

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        shapes = {"shape": self.shape.to_json(), "within": self.within and self.within.to_json()}
        return asdict(self) | shapes | {"lengths": list(self.lengths), "setting": self.setting.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Trial:
        """Inverse of :meth:`to_json`."""
        given = {name: data[name] for name in ("calls", "warmup_ratio")}
        within = Shape.from_json(data["within"]) if data["within"] else None
        setting = Setting.from_json(data["setting"])
        return cls(Shape.from_json(data["shape"]), setting, **given, lengths=tuple(data["lengths"]), within=within)


def time_trial(trial: Trial) -> np.ndarray:
    """Time a trial in a fresh process: seconds of every call after the warm-up."""
    from limbeck.measure.isolation import run_timed

    trial.check()
    answer = run_timed("limbeck.measure.trial:session", {"trial": trial.to_json()}, trial.setting.target)
    return np.asarray(answer["seconds"])


def peak_memory(trial: Trial, calls: int = 3) -> int:
    """Measure the memory, in bytes, that a fresh process needs for a model and its answers beyond the runtime.

    It is the resident memory, or on a GPU that of the device. An ONNX graph is written beforehand, since making it is
    not part of serving.
    """
    from limbeck.measure.isolation import run_isolated
    from limbeck.model.onnx.onnx_model import write

    trial.check()
    with temporary_folder() as folder:
        payload: dict[str, Any] = {"trial": trial.to_json(), "file": None, "calls": calls}
        if trial.setting.target.runtime != "torch":
            payload["file"] = str(write(graph_of(trial.shape, trial.setting), folder / "model.onnx"))
        answer = run_isolated("limbeck.measure.trial:memory_session", payload, trial.setting.target.threads)
    return max(int(answer["bytes"]), 0)


def memory_session(payload: dict[str, Any]) -> dict[str, Any]:
    """Import everything in the child process, note the memory, open the model and answer."""
    import gc
    import importlib

    from limbeck.measure import memory

    trial, file = Trial.from_json(payload["trial"]), payload["file"]
    target = trial.setting.target
    import_runtime(target.runtime)
    longest = max(trial.lengths or (trial.setting.seq_len,))
    batch = inputs(replace(trial.setting, seq_len=longest))
    if target.runtime == "torch":
        importlib.import_module("limbeck.model.encoder")
    gc.collect()
    before = used_memory(target.device) or memory.resident()
    call = _call(trial, [batch], file)
    gc.collect()
    memory.forget_peak()
    for turn in range(payload["calls"]):
        call(turn)
    # allocators on a GPU keep what they had at most
    return {"bytes": (used_memory(target.device) or max(memory.peak(), memory.resident())) - before}


def session(payload: dict[str, Any]) -> dict[str, Any]:
    """Time the calls of a trial in the child process."""
    from limbeck.measure.accelerator import clock, warm_up
    from limbeck.measure.timing import alternate

    trial = Trial.from_json(payload["trial"])
    lengths = trial.lengths or (trial.setting.seq_len,)
    call = _call(trial, [inputs(replace(trial.setting, seq_len=length)) for length in lengths])
    device = trial.setting.target.device
    warm_up([call], device)
    (timing,) = alternate([call], trial.calls, 1, warmup=0, now=clock(device))
    return {"seconds": timing.seconds[0][int(trial.calls * trial.warmup_ratio) :]}


def _call(
    trial: Trial, batches: Sequence[dict[str, np.ndarray]], graph: str | None = None
) -> Callable[[int], np.ndarray]:
    """Load the model of a trial, from the file of its graph if there is one; return a call that answers a batch."""
    if trial.within is None:
        runner = runner_of(trial.shape, trial.setting, graph)
        prepared = [runner.prepare(batch) for batch in batches]
        return lambda turn: runner(prepared[turn % len(prepared)])
    import torch

    target = trial.setting.target
    device = torch.device(target.device)
    model = stand_in(trial.within, trial.setting).eval().to(device, getattr(torch, target.precision))
    answer = torch.compile(model.run) if target.compile else model.run
    tensors = [{name: torch.as_tensor(array).to(device) for name, array in batch.items()} for batch in batches]

    def run(turn: int) -> np.ndarray:
        with torch.inference_mode():
            logits = answer(tensors[turn % len(tensors)], shape=trial.shape)[0]
        array: np.ndarray = logits.float().cpu().numpy()
        return array

    return run
