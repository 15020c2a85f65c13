"""Measure the size of a candidate: resident memory while it serves, bytes on disk, parameters, multiply-accumulates."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.measurement import Measurement
from limbeck.core.step import Probe, RunContext, StepInfo, step
from limbeck.errors import StoreError

if TYPE_CHECKING:
    from limbeck.core.model import EncoderStyle, Runnable
    from limbeck.core.shape import Shape


@step(
    StepInfo(
        "memory",
        reads={"target"},
        machine_bound=True,
        example={"samples": 2},
    )
)
class Memory(Probe):
    """Measure the peak of resident memory of a fresh process that opens the model and answers batches.

    What the same process held just before, with the runtime imported, is subtracted: a server pays that once, however
    many models it holds. On a GPU there is a second fact, ``device_memory_peak``: the memory of the device that is in
    use after the batches, less what was in use before the model was opened. Allocators keep what they had at most;
    what other processes take meanwhile would count, too.

    Units: bytes.
    """

    samples: Annotated[int, Ge(1), Le(100_000)] = 8  #: batches to answer
    split: str = "test"  #: where the texts come from

    def required_splits(self) -> tuple[str, ...]:
        """Return the split whose texts are read."""
        return (self.split,)

    def measure(self, candidates: Sequence[Candidate], context: RunContext) -> Iterable[tuple[int, Measurement]]:
        """Yield one fact for each candidate, or two on a GPU, each candidate from a process of its own."""
        from limbeck.measure.backends import check_models, runner_options
        from limbeck.measure.isolation import run_isolated
        from limbeck.measure.samples import sample_rows, token_batches
        from limbeck.measure.timed_session import stored

        check_models(context.target, [candidate.model for candidate in candidates])
        for index, candidate in enumerate(candidates):
            target, _ = context.target.of_sub_batch()
            rows = sample_rows(candidate.task, self.split, self.samples * target.batch)
            inputs = token_batches(candidate, self.split, rows, target)
            with stored(candidate) as folder:
                payload = {"model": str(folder), "inputs": inputs, **runner_options(target)}
                answer = run_isolated("limbeck.measure.memory:serve", payload, target.threads)
            value = float(answer["peak"] - answer["baseline"])
            detail = {"baseline": answer["baseline"], "runtime": answer["words"]}
            where: dict[str, Any] = {"n": 1, "target": str(context.target), "detail": detail}
            yield index, Measurement("memory_peak", value, "B", **where)
            if context.target.on_gpu:
                yield index, Measurement("device_memory_peak", float(answer["device"]), "B", **where)


def serve(payload: dict[str, Any]) -> dict[str, Any]:
    """Import everything in the child process, note the memory, then open the model and answer."""
    import gc
    import importlib

    import numpy as np

    from limbeck.measure.accelerator import used_memory
    from limbeck.measure.backends import RUNNER_OPTIONS, import_runtime, make_runner
    from limbeck.model.checkpoints import open_model

    import_runtime("openvino" if payload["runtime"] == "openvino" else "onnxruntime")
    before = used_memory(payload["device"])  # with the context of the device, which is the runtime's
    importlib.import_module("transformers.modeling_utils")
    gc.collect()
    baseline = resident()
    forget_peak()
    model = open_model(payload["model"])[0]
    runner = make_runner(model, **{name: payload[name] for name in RUNNER_OPTIONS}, plain=False)
    for batch in payload["inputs"]:
        runner(runner.prepare({name: np.array(rows) for name, rows in batch.items()}))
    held = used_memory(payload["device"]) - before
    return {"baseline": baseline, "peak": max(peak(), resident()), "device": held, "words": runner.words}


def resident() -> int:
    """Resident memory of this process, in bytes."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def forget_peak() -> None:
    """Reset the peak where the system can (Linux); elsewhere imports may hide a small model."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak() -> int:
    """Highest resident memory so far, in bytes."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource  # not on Windows, which has no /proc either

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@step(
    StepInfo(
        "size",
        with_teacher=True,
        example={"samples": 4},
    )
)
class Size(Probe):
    """Count bytes of the files needed to serve, parameters, and multiply-accumulates at the mean length of the task.

    Where texts may leave early, the operations are those of a text that goes to the end; of a cascade, of both models.

    Units: bytes; parameters are a count; one multiply-accumulate is one unit (two floating-point operations).
    """

    split: str = "test"  #: the split whose mean length counts
    samples: Annotated[int, Ge(1), Le(100_000)] = 200  #: texts that are tokenized for the mean length

    def required_splits(self) -> tuple[str, ...]:
        """Return the split whose texts are read."""
        return (self.split,)

    def measure(self, candidates: Sequence[Candidate], context: RunContext) -> Iterable[tuple[int, Measurement]]:
        """Yield three facts for each candidate."""
        from limbeck.core import analytic_cost as counts
        from limbeck.measure.samples import sample_rows, token_lists

        for index, candidate in enumerate(candidates):
            models = shapes_of(candidate.model)
            labels, pooler = candidate.task.num_labels, not candidate.task.task_kind.per_token
            rows = sample_rows(candidate.task, self.split, self.samples)
            lists = token_lists(candidate.task, self.split, rows, candidate.tokenizer)
            tokens = sum(map(len, lists)) / len(lists)
            yield index, Measurement("size", float(stored_bytes(candidate)), "B")
            parameters = sum(counts.parameters(shape, style, labels, pooler) for shape, style in models)
            yield index, Measurement("parameters", float(parameters), "1")
            count = partial(counts.macs, all_tokens=not pooler or candidate.task.task_kind.vectors)
            macs = sum(count(shape, tokens, style, labels, pooler) for shape, style in models)
            yield index, Measurement("macs", float(macs), "MAC", detail={"mean_tokens": round(tokens, 2)})


def shapes_of(model: Runnable) -> list[tuple[Shape, EncoderStyle]]:
    """Return the shape and the style of a model; of a cascade those of the larger and of the smaller model."""
    from limbeck.core.analytic_cost import of_model
    from limbeck.model.layout import shape_of, style_of
    from limbeck.model.onnx.onnx_model import OnnxModel

    shapes = [of_model(model)]
    if isinstance(model, OnnxModel) and (cascade := model.cascade) is not None:
        shapes.append((shape_of(cascade.small), style_of(cascade.small)))
    return shapes


def stored_bytes(candidate: Candidate) -> int:
    """Return the bytes of the weights' file: model.safetensors, or the ONNX file with the data beside it.

    Args:
        candidate: The candidate; one that is not stored has the bytes of its tensors.

    Raises:
        StoreError: There is no such file, or it is empty.
    """
    from limbeck.model.external import files

    model, folder = candidate.model, candidate.folder
    if model.runtime != "torch":
        where, paths = Path(model.path), files(Path(model.path))
    elif folder is not None:
        where, paths = folder, sorted(folder.glob("*.safetensors"))
    else:
        return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    size = sum(path.stat().st_size for path in paths if path.is_file())
    if size == 0:  # a fact of 0 bytes would be kept, and meet any budget
        raise StoreError(f"{where} has no weights to measure; they were removed meanwhile, so run again")
    return size
