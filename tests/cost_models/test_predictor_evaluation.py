import numpy as np
import pytest

from limbeck.cost_models.latency_dataset import Dataset, Group, TimedShape, write
from limbeck.cost_models.predictor_evaluation import evaluate
from limbeck.cost_models.predictor_file import fit_predictor, write_predictor
from limbeck.cost_models.shape_sampling import sample_shapes
from limbeck.errors import InputError


@pytest.fixture
def file(setting, space, pretended, tmp_path):
    """A function that writes latency data of so many shapes, drawn with a seed."""

    def file(name, count, seed=0):
        shapes = sample_shapes(space, count, seed=seed)
        timed = tuple(TimedShape(shape, pretended(shape), 0.01, (1.0, 1.0)) for shape in shapes)
        path = tmp_path / name
        write(Dataset(groups=(Group("there", setting, "first", timed[0], timed[1:]),)), path)
        return path

    return file


def test_data_are_cross_validated(file):
    data = file("data.jsonl", 60)
    result, predictor = evaluate(data, {"number_format": "float"}), fit_predictor(data)
    assert (result.errors, result.additive) == (predictor.errors, predictor.errors_additive)
    seconds = np.array(predictor.seconds)
    crossed = predictor._crossed[int(predictor.boosted)]
    assert result.errors.rmse == pytest.approx(float(np.sqrt(np.mean((crossed - seconds) ** 2))))
    assert result.errors.mean == pytest.approx(float(np.mean(np.abs(crossed / seconds - 1))))
    assert "error on 60 shapes, cross-validated: median" in str(result)
    assert result.to_json()["shapes"] == 60
    with pytest.raises(InputError, match="no series fits number_format int8"):
        evaluate(data, {"number_format": "int8"})


def test_an_earlier_predictor_is_judged_by_what_it_never_saw(file, tmp_path):
    data, earlier = file("data.jsonl", 40), tmp_path / "predictor.json"
    write_predictor(fit_predictor(data), earlier)
    with pytest.raises(InputError, match=r"has 0 shapes that .* did not learn from"):
        evaluate(data, {}, against=earlier)
    other = file("other.jsonl", 30, seed=5)
    fresh = set(fit_predictor(other).shapes) - set(fit_predictor(data).shapes)
    result = evaluate(other, {}, against=earlier)
    assert (result.errors.count, result.additive) == (len(fresh), None)
    write_predictor(fit_predictor(other), tmp_path / "other.json")
    assert evaluate(tmp_path / "other.json", {}, against=earlier).errors.count == len(fresh)
