"""One interface to models in any runtime and on any device: prepare a batch once, then run it as often as needed."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from limbeck.core.target import is_gpu
from limbeck.errors import InputError, LimbeckError, MissingExtra, nearest, shown
from limbeck.measure.accelerator import check_provider, providers

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from transformers import PreTrainedModel

    from limbeck.core.model import Runnable
    from limbeck.core.target import Target
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.onnx.onnx_model import OnnxModel

Batch = Mapping[str, np.ndarray]
"""input_ids, attention_mask and, where the tokenizer makes them, token_type_ids, int64 [batch, seq]."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
RUNNER_OPTIONS = ("threads", "runtime", "device", "precision", "compile")
"""Options of :func:`make_runner` that a target and its process decide."""


class Runner(Protocol):
    """A loaded model. ``prepare`` does the untimed work; calling the runner returns logits."""

    words: str  #: the runtime and the implementation, in words

    def prepare(self, batch: Batch) -> Any:  # each runtime has inputs of its own type, which callers pass on
        """Convert a batch to the inputs of the runtime."""
        ...

    def __call__(self, prepared: Any) -> np.ndarray:
        """Logits of a prepared batch."""
        ...


def check_runtime(runtime: str) -> None:
    """Refuse a runtime that is not installed, before any work starts."""
    if runtime == "openvino" and importlib.util.find_spec("openvino") is None:
        raise MissingExtra("openvino", "openvino")


def check_device(device: str) -> None:
    """Refuse a device that torch does not have here, before any work starts.

    Args:
        device: 'cpu', 'cuda', 'cuda:N' or 'mps'.

    Raises:
        InputError: There is no such device.
    """
    if device == "cpu":  # torch need not be loaded
        return
    if not re.fullmatch(r"cuda(:[0-9]{1,3})?|mps", device):
        raise InputError(f"no device {shown(device)}; {nearest(device, ['cpu', 'cuda', 'cuda:0', 'mps'])}")
    import torch

    if device == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("torch finds no device 'mps' here; use 'cpu'")
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= count:
        present = f"only {', '.join(f'cuda:{index}' for index in range(count))} and cpu" if count else "only 'cpu'"
        raise InputError(f"torch finds no device '{device}' here, {present}")


def check_models(target: Target, models: Iterable[Runnable]) -> None:
    """Refuse a target that is not there, and models that it cannot run, before any work starts.

    Args:
        target: Where the models are to run.
        models: The models.

    Raises:
        LimbeckError: The runtime, the device or the runtime's part for it is missing.
        InputError: A model is of a form that cannot run there.
    """
    check_runtime(target.runtime)
    check_device(target.device)
    for model in models:
        if model.runtime == "torch":
            continue
        check_provider(target.runtime, target.device)
        if model.int8 and target.device != "cpu":
            raise InputError(NO_INT8.format(device=target.device))


NO_INT8 = (
    "INT8 graphs are made for processors, and ONNX Runtime has no CUDA kernels for their operators: on {device} each "
    "would be computed on the processor; leave 'quantize' out, and export with 'precision: float16'"
)


def runner_options(target: Target) -> dict[str, Any]:
    """Return the options of :func:`make_runner` that a target decides, as plain data for another process."""
    return {name: getattr(target, name) for name in RUNNER_OPTIONS if name != "threads"}


def import_runtime(name: str) -> ModuleType:
    """Import the module of a runtime.

    TensorRT is a part of ONNX Runtime. OpenVINO comes without its telemetry, which at import sends a message from a
    forked process that may outlive ours.
    """
    if name == "openvino":
        sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))  # None: cannot be imported
    return importlib.import_module("onnxruntime" if name == "tensorrt" else name)


def make_runner(
    model: Runnable,
    *,
    threads: int = 1,
    runtime: str = "onnxruntime",
    device: str = "cpu",
    precision: str = "float32",
    compile: bool = False,
    plain: bool = True,
) -> Runner:
    """Load a model for running: a torch model in torch, an ONNX one in ``runtime``.

    Args:
        model: A torch encoder or an ONNX model.
        threads: Threads of the runtime; torch uses those of the process.
        runtime: ``onnxruntime``, ``tensorrt`` or ``openvino``, for an ONNX model.
        device: Where the model runs.
        precision: What a torch model computes in; a graph says so itself.
        compile: Whether a torch model goes through ``torch.compile``.
        plain: Whether a torch model whose shape transformers can express runs in transformers' own implementation,
            as users run it today, instead of ours.
    """
    if model.runtime == "torch":
        encoder = cast("LimbeckForSequenceClassification", model)
        return TorchRunner(encoder, device, plain, precision=precision, compile=compile)
    onnx = cast("OnnxModel", model)
    if runtime == "openvino":
        return OpenVinoRunner(onnx.path, threads)
    if not is_gpu(device):
        return OnnxRunner(onnx.session(threads), onnx.path.name)
    from limbeck.model.onnx.onnx_model import open_session

    session = open_session(onnx.path, threads, providers=providers(runtime, device))
    return OnnxRunner(session, f"{onnx.path.name}, {'TensorRT' if runtime == 'tensorrt' else 'CUDA'}")


class TorchRunner:
    """PyTorch in inference mode, eager or compiled; the number of threads is that of the process."""

    def __init__(
        self,
        model: LimbeckForSequenceClassification,
        device: str = "cpu",
        plain: bool = True,
        *,
        precision: str = "float32",
        compile: bool = False,
    ) -> None:
        """Move the model to its device; it is converted in place if the precision is another than its own.

        Args:
            model: A torch encoder.
            device: Where it runs.
            plain: As for :func:`make_runner`.
            precision: As for :func:`make_runner`.
            compile: As for :func:`make_runner`.
        """
        import torch

        self.device = torch.device(device)
        self.ours = True
        running: PreTrainedModel = model
        if plain:
            from limbeck.model.pretrained import to_transformers

            with contextlib.suppress(InputError):  # a ragged shape has no plain counterpart
                running, self.ours = to_transformers(model), False
        self.model = running.eval().to(self.device, getattr(torch, precision))
        self.compiled = compile
        self._run = self.model.run if self.ours else self.model
        if compile:
            self._run = torch.compile(self._run)
        how = f"torch {'compiled' if compile else 'eager'}, {type(running).__name__}"
        self.words = how + (f", {precision}" if precision != "float32" else "")

    def prepare(self, batch: Batch) -> dict[str, Any]:
        """Convert a batch to the inputs of the runtime."""
        import torch

        return {name: torch.as_tensor(batch[name]).to(self.device) for name in INPUTS if name in batch}

    def __call__(self, prepared: dict[str, Any]) -> np.ndarray:
        """Logits of a prepared batch."""
        import torch

        with torch.inference_mode(), self._explained():
            logits = self._run(prepared)[0] if self.ours else self._run(**prepared).logits
        array: np.ndarray = logits.float().cpu().numpy()  # to the processor: an accelerator has then finished
        return array

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what to do where the compiler fails, which happens at the first call."""
        try:
            yield
        except Exception as error:
            if not self.compiled:
                raise
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            message = f"torch.compile cannot run {type(self.model).__name__}; leave 'compile' out: {first[:300]}"
            raise LimbeckError(message) from error


class OnnxRunner:
    """ONNX Runtime, on the processor or with the providers that the session was opened with."""

    def __init__(self, session: InferenceSession, words: str) -> None:
        self.session, self.words = session, f"onnxruntime, {words}"
        self.names = {entry.name for entry in session.get_inputs()}

    def prepare(self, batch: Batch) -> dict[str, np.ndarray]:
        """Convert a batch to the inputs of the runtime."""
        return _feed(batch, self.names)

    def __call__(self, prepared: dict[str, np.ndarray]) -> np.ndarray:
        """Logits of a prepared batch."""
        return np.asarray(self.session.run(None, prepared)[0])


class OpenVinoRunner:
    """OpenVINO on the processor, tuned for the latency of one request."""

    def __init__(self, path: Path, threads: int) -> None:
        openvino = import_runtime("openvino")
        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        options["INFERENCE_PRECISION_HINT"] = "f32"  # else bfloat16 where the processor has it: other answers
        try:
            compiled = openvino.Core().compile_model(str(path), "CPU", options)
        except RuntimeError as error:
            cure = "export with fused: false, and quantize with mode: static"
            raise LimbeckError(f"OpenVINO cannot read {path.name}; {cure}: {str(error).strip()[:500]}") from error
        self.names = {name for entry in compiled.inputs for name in entry.get_names()}
        self.request = compiled.create_infer_request()
        self.words = f"openvino, {path.name}"

    def prepare(self, batch: Batch) -> dict[str, np.ndarray]:
        """Convert a batch to the inputs of the runtime."""
        return _feed(batch, self.names)

    def __call__(self, prepared: dict[str, np.ndarray]) -> np.ndarray:
        """Logits of a prepared batch."""
        return np.asarray(self.request.infer(prepared)[0])


def prepared_calls(runner: Runner, calls: Sequence[Sequence[Mapping[str, Any]]]) -> Callable[[int], list[np.ndarray]]:
    """Prepare calls once and return a function that makes one of them, given its index.

    Args:
        runner: The model.
        calls: The batches of each call, as nested lists or arrays; most calls have one.
    """
    prepared = [
        [runner.prepare({name: np.array(rows) for name, rows in batch.items()}) for batch in call] for call in calls
    ]
    return lambda index: [runner(inputs) for inputs in prepared[index]]


def _feed(batch: Batch, names: Set[str]) -> dict[str, np.ndarray]:
    """Select the inputs that a graph reads; token types are zeros where the tokenizer makes none."""
    given = {name: np.asarray(batch[name], dtype=np.int64) for name in INPUTS if name in batch}
    given.setdefault("token_type_ids", np.zeros_like(given["input_ids"]))
    return {name: array for name, array in given.items() if name in names}
