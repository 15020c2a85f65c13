"""The multilayer perceptron that the latency predictor is compared with."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from limbeck.core.shape import LayerShape, Shape
from limbeck.cost_models.shape_sampling import sample_shapes
from limbeck.errors import InputError

MLP = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent.parent.parent / "benchmarks" / "mlp.py")))


def test_the_four_features():
    shape = Shape(384, 32, (LayerShape(12, 1536), LayerShape(6, 0)))
    assert MLP.features([shape]).tolist() == [[0.5, 2 / 12, 768 / 3072, 288 / 768]]


def test_it_learns_and_depends_on_the_seed_alone(space, pretended):
    shapes = sample_shapes(space, 64)
    seconds = np.array([100 * pretended(shape) for shape in shapes])  # about as slow as the originals' models
    options = {"width": 32, "steps": 400, "learning_rate": 3e-3}
    state = torch.random.get_rng_state()
    first, again, other = (
        MLP.MlpPredictor.fit(shapes, seconds, **options, seed=seed, target="here") for seed in (0, 0, 1)
    )
    assert (torch.random.get_rng_state() == state).all()
    predicted = first.seconds_of(shapes)
    assert np.median(np.abs(predicted / seconds - 1)) < 0.25
    assert predicted.tolist() == again.seconds_of(shapes).tolist() != other.seconds_of(shapes).tolist()
    fact = first(shapes[0])
    assert fact.value == pytest.approx(predicted[0], rel=1e-5)
    assert (fact.unit, fact.target, fact.low) == ("s", "here", None)


def test_the_network_is_the_papers():
    shapes = [Shape.uniform(layers, 128, 2, 128) for layers in (1, 2)]
    predictor = MLP.MlpPredictor.fit(shapes, [0.01, 0.02], width=400, steps=1)
    sizes = [tuple(layer.weight.shape) for layer in predictor.network if hasattr(layer, "weight")]
    assert sizes == [(400, 4), (400, 400), (400, 400), (1, 400)]
    with pytest.raises(InputError, match="two shapes"):
        MLP.MlpPredictor.fit(shapes[:1], [0.01])
