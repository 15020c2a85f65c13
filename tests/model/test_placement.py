from __future__ import annotations

import pytest
import torch

from limbeck.model.placement import on_accelerator


class Moved(torch.nn.Module):
    """A module that notes where it is sent."""

    device = "cpu"

    def to(self, device):
        self.device = device
        return self


@pytest.mark.parametrize(("present", "forced", "device"), [(1, 0, "cuda"), (0, 0, "cpu"), (1, 1, "cpu")])
def test_torch_models_go_where_training_does(monkeypatch, present, forced, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(present))
    monkeypatch.setenv("ACCELERATE_USE_CPU", str(bool(forced)))
    model, other = Moved(), object()
    assert on_accelerator(model) is model
    assert model.device == device
    assert on_accelerator(other) is other


@pytest.mark.gpu
def test_a_moved_model_gives_the_same_answers(make_model, make_batch):
    model = make_model()
    expected = model.predict(make_batch())
    assert on_accelerator(model).device.type == "cuda"
    assert abs(model.predict(make_batch()) - expected).max() < 1e-4
