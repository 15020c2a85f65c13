"""What timing on a GPU needs: a clock on the device, warm clock rates, the memory in use, a provider of the runtime.

On a processor all of it does nothing, so that callers need not ask which device it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from limbeck.core.target import is_gpu
from limbeck.errors import LimbeckError
from limbeck.measure.timing import Clock

if TYPE_CHECKING:
    import torch

Provider: TypeAlias = "str | tuple[str, dict[str, Any]]"
"""A provider of ONNX Runtime by name, perhaps with its options."""

PROVIDERS = {
    "onnxruntime": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}
"""Providers of ONNX Runtime that each runtime uses on a GPU, the first preferred; last comes the processor."""
PROCESSOR = "CPUExecutionProvider"
WARM_SECONDS = 1.0
"""How long a GPU is kept busy before it is timed: idle, it lowers its clock rate within fractions of a second."""


def providers(runtime: str, device: str) -> list[Provider]:
    """Return the providers of a session.

    >>> providers("onnxruntime", "cuda:1")
    [('CUDAExecutionProvider', {'device_id': 1}), 'CPUExecutionProvider']
    """
    if not is_gpu(device):
        return [PROCESSOR]
    number = int(device.partition(":")[2] or 0)
    return [*((name, {"device_id": number}) for name in PROVIDERS[runtime]), PROCESSOR]


def check_provider(runtime: str, device: str) -> None:
    """Refuse a runtime of exported models that cannot use the device, before any work starts.

    Args:
        runtime: ``onnxruntime``, ``tensorrt`` or ``openvino``.
        device: As torch names it.

    Raises:
        LimbeckError: The installed ONNX Runtime lacks the provider; or exported models never run on such a device.
    """
    if device == "cpu":
        return
    if not is_gpu(device) or runtime not in PROVIDERS:
        raise LimbeckError(f"exported models run on the processor or on CUDA, not in {runtime} on {device}; use 'cpu'")
    import onnxruntime

    wanted, present = PROVIDERS[runtime][0], onnxruntime.get_available_providers()
    if wanted not in present:
        raise LimbeckError(
            f"runtime {runtime} on {device} needs {wanted}, and the installed ONNX Runtime has only "
            f"{', '.join(present)}; do: pip uninstall onnxruntime; pip install onnxruntime-gpu"
        )


class EventClock:
    """The time of a GPU, from CUDA events: the host's waking up after a call is not part of it.

    Called between calls that have ended, it waits for its own event alone. Each interval is read by itself: the
    difference of two long ones would lose the microseconds.
    """

    def __init__(self, event: Callable[[], torch.cuda.Event]) -> None:
        """Start the clock.

        Args:
            event: Returns an event recorded now.
        """
        self._event, self._total = event, 0.0
        self._last = event()
        self._last.synchronize()

    def __call__(self) -> float:
        """Return seconds since the start."""
        now = self._event()
        now.synchronize()
        self._total += self._last.elapsed_time(now) * 1e-3
        self._last = now
        return self._total


def clock(device: str) -> Clock:
    """Return the clock that calls on a device are timed with; of a GPU that torch does not reach, the host's."""
    if not is_gpu(device):
        return time.perf_counter
    import torch

    if not torch.cuda.is_available():
        return time.perf_counter
    torch.cuda.set_device(torch.device(device))

    def event() -> torch.cuda.Event:
        recorded = torch.cuda.Event(enable_timing=True)
        recorded.record()
        return recorded

    return EventClock(event)


def warm_up(
    calls: Sequence[Callable[[int], object]],
    device: str,
    seconds: float = WARM_SECONDS,
    now: Clock = time.perf_counter,
) -> int:
    """Make calls in turn until a GPU has been busy for a while, so that its clock rate has risen.

    Args:
        calls: What is about to be timed.
        device: Where it runs; a processor needs no such time, for its rounds are many and short.
        seconds: How long.
        now: Clock in seconds.

    Returns:
        How many times every call was made.
    """
    turns, start = 0, now()
    while is_gpu(device) and now() - start < seconds:
        for call in calls:
            call(0)
        turns += 1
    return turns


def used_memory(device: str) -> int:
    """Return the bytes in use on a GPU, by whatever process; 0 on a processor."""
    if not is_gpu(device):
        return 0
    import torch

    free, total = torch.cuda.mem_get_info(torch.device(device))
    return int(total - free)


def clock_rate(device: str) -> float | None:
    """Return the clock rate of a GPU in MHz; None on a processor, and where the driver's library does not say."""
    if not is_gpu(device):
        return None
    import torch

    try:
        return float(torch.cuda.clock_rate(torch.device(device)))
    except Exception:  # nvidia-ml-py is missing, or the driver refuses; each raises errors of its own
        return None
