from __future__ import annotations

import time

import pytest
import torch

from limbeck.errors import LimbeckError
from limbeck.measure import accelerator
from limbeck.measure.accelerator import EventClock, check_provider, clock, clock_rate, providers, used_memory, warm_up


class Event:
    """An event at a moment in seconds; it measures as CUDA's do, in milliseconds and in single precision."""

    def __init__(self, moment):
        self.moment, self.waited = moment, 0

    def synchronize(self):
        self.waited += 1

    def elapsed_time(self, other):
        assert self.waited == other.waited == 1
        return float(torch.tensor((other.moment - self.moment) * 1e3, dtype=torch.float32))


def test_events_keep_microseconds_for_hours():
    moments = [0.0, 10_000.0, 10_000.000_002, 10_000.5]
    events = iter(map(Event, moments))
    now = EventClock(lambda: next(events))
    assert now() == pytest.approx(10_000.0)
    before = now()
    assert before - 10_000.0 == pytest.approx(2e-6, rel=1e-3)
    assert now() - before == pytest.approx(0.499_998)


def test_on_a_processor_nothing_happens():
    assert clock("cpu") is time.perf_counter
    assert warm_up([pytest.fail], "cpu") == 0
    assert (used_memory("cpu"), clock_rate("cpu")) == (0, None)
    assert providers("onnxruntime", "cpu") == ["CPUExecutionProvider"]
    check_provider("openvino", "cpu")


def test_a_gpu_is_kept_busy_for_a_while():
    moments, calls = iter([0.0, 0.1, 0.6, 1.1]), []
    assert warm_up([calls.append, calls.append], "cuda:0", 1.0, lambda: next(moments)) == 2
    assert calls == [0] * 4


def test_providers_of_a_device_in_their_order():
    names = [name if isinstance(name, str) else name[0] for name in providers("tensorrt", "cuda")]
    assert names == ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers("onnxruntime", "cuda:3")[0] == ("CUDAExecutionProvider", {"device_id": 3})


def test_a_missing_provider_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(LimbeckError, match=r"needs CUDAExecutionProvider.*only CPUExecutionProvider.*onnxruntime-gpu"):
        check_provider("onnxruntime", "cuda")
    with pytest.raises(LimbeckError, match="needs TensorrtExecutionProvider"):
        check_provider("tensorrt", "cuda:1")
    for runtime, device in (("onnxruntime", "mps"), ("openvino", "cuda")):
        with pytest.raises(LimbeckError, match=f"not in {runtime} on {device}; use 'cpu'"):
            check_provider(runtime, device)


@pytest.mark.gpu
def test_the_clock_of_a_gpu_agrees_with_the_host():
    now, size = clock("cuda"), 4096
    matrix = torch.randn(size, size, device="cuda")
    assert isinstance(now, EventClock)
    accelerator.warm_up([lambda _: (matrix @ matrix).sum().item()], "cuda", 0.5)
    start, here = now(), time.perf_counter()
    for _ in range(50):
        (matrix @ matrix).sum().item()
    device, host = now() - start, time.perf_counter() - here
    assert device == pytest.approx(host, rel=0.1)


@pytest.mark.gpu
def test_memory_in_use_grows_by_what_is_allocated():
    before = used_memory("cuda")
    held = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
    assert used_memory("cuda") - before >= held.numel()
