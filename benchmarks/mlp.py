"""The latency predictor of AutoTinyBERT and Bigger&Faster, for comparison: a multilayer perceptron on four features.

References: Yin et al., 2021, arXiv:2107.13686; Bigger&Faster, 2022, arXiv:2209.12127 (both after HAT, Wang et al.,
2020, arXiv:2005.14187). Three hidden layers (of 2000 neurons; of 400 in Bigger&Faster), ReLU, Adam with a learning rate
of 1e-5, 5000 steps of 128 shapes, mean squared error of latency / 200 ms. Where layers differ, their mean width counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.cost_models.features import columns_of
from limbeck.errors import InputError

SCALE = 0.2  #: seconds that count as one
FEATURES = ("hidden / 768", "layers / 12", "mean neurons / 3072", "mean attention width / 768")


def features(shapes: Sequence[Shape]) -> np.ndarray:
    """Compute the four features [shapes, 4]."""
    columns = columns_of(shapes)
    depth = np.maximum(columns.depth, 1)
    neurons, width = columns.ffn.sum(1) / depth, columns.heads.sum(1) * columns.head_dim / depth
    return np.stack([columns.hidden / 768, columns.depth / 12, neurons / 3072, width / 768], axis=1)


@dataclass(frozen=True)
class MlpPredictor:
    """Latency of shapes, without an interval. ``network`` maps features to latency / 200 ms."""

    network: Any
    target: str = ""

    @classmethod
    def fit(
        cls,
        shapes: Sequence[Shape],
        seconds: Sequence[float] | np.ndarray,
        *,
        width: int = 2000,
        steps: int = 5000,
        batch: int = 128,
        learning_rate: float = 1e-5,
        seed: int = 0,
        target: str = "",
    ) -> MlpPredictor:
        """Train as the originals do; batches are sampled without replacement within an epoch.

        Args:
            shapes: Measured shapes.
            seconds: Their latencies [shapes].
            width: Neurons of each hidden layer.
            steps: Optimizer steps.
            batch: Shapes in a step.
            learning_rate: Learning rate of Adam.
            seed: Seed of the weights and of the batches.
            target: Description of the target, for the measurements.
        """
        import torch
        from torch import nn

        if len(shapes) < 2 or len(shapes) != len(seconds):
            raise InputError(f"an MLP learns from at least two shapes with their seconds, got {len(shapes)}")
        inputs = torch.as_tensor(features(shapes), dtype=torch.float32)
        wanted = torch.as_tensor(np.asarray(seconds) / SCALE, dtype=torch.float32)[:, None]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = [len(FEATURES), width, width, width, 1]
            parts = [layer for low, high in pairwise(sizes) for layer in (nn.Linear(low, high), nn.ReLU())]
            network = nn.Sequential(*parts[:-1])
            optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
            order = torch.empty(0, dtype=torch.long)
            for _ in range(steps):
                if len(order) < min(batch, len(shapes)):
                    order = torch.cat([order, torch.randperm(len(shapes))])
                chosen, order = order[:batch], order[batch:]
                loss = nn.functional.mse_loss(network(inputs[chosen]), wanted[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return cls(network.eval(), target)

    def seconds_of(self, shapes: Sequence[Shape]) -> np.ndarray:
        """Predicted seconds [shapes]."""
        import torch

        with torch.inference_mode():
            scaled = self.network(torch.as_tensor(features(shapes), dtype=torch.float32))
        seconds: np.ndarray = scaled[:, 0].double().numpy() * SCALE
        return seconds

    def __call__(self, shape: Shape) -> Measurement:
        """Predicted latency."""
        value = float(self.seconds_of([shape])[0])
        return Measurement("latency_p50", value, "s", target=self.target, detail={"source": "mlp"})
