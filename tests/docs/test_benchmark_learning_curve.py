import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from limbeck.cost_models.shape_sampling import sample_shapes
from limbeck.errors import InputError

FILE = Path(__file__).parent.parent.parent / "benchmarks" / "learning_curve.py"
CURVE = SimpleNamespace(**runpy.run_path(str(FILE)))


@pytest.mark.slow
def test_the_error_falls_with_the_number_of_shapes(setting, space, pretended):
    shapes, rng = sample_shapes(space, 200), np.random.default_rng(0)
    seconds = np.array([pretended(shape) * np.exp(rng.normal(0, 0.01)) for shape in shapes])
    rows = CURVE.learning_curve(shapes, seconds, setting, [25, 150], repeats=2)
    assert [(row["size"], row["left_out"]) for row in rows] == [(25, 175), (150, 50)]
    assert rows[1]["median"] < rows[0]["median"]
    assert rows[1]["tau"] > rows[0]["tau"]
    with pytest.raises(InputError, match="sizes: should be from 20 to below the 200"):
        CURVE.learning_curve(shapes, seconds, setting, [200])
