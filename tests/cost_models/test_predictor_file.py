import pytest

from limbeck.core.target import Target
from limbeck.cost_models.latency_dataset import Dataset, Group, TimedShape, write
from limbeck.cost_models.predictor_file import (
    check_file,
    file_problems,
    fit_predictor,
    is_predictor,
    open_predictor,
    read_predictor,
    write_predictor,
)
from limbeck.cost_models.shape_sampling import sample_shapes
from limbeck.errors import InputError


@pytest.fixture
def shapes(space):
    return sample_shapes(space, 30)


@pytest.fixture
def data(setting, shapes, pretended, tmp_path):
    timed = tuple(TimedShape(shape, pretended(shape), 0.01, (1.0, 1.0)) for shape in shapes)
    path = tmp_path / "machine.jsonl"
    write(Dataset(groups=(Group("there", setting, "first", timed[0], timed[1:]),)), path)
    return path


def test_it_is_taught_by_a_file_from_elsewhere(shapes, data):
    predictor = open_predictor(data, Target(), "float")
    assert (set(predictor.shapes), predictor.machine) == (set(shapes), "there")
    assert open_predictor(data, Target(seq_len=32), "float") == predictor
    check_file(data, "float")
    others = [{"seq_len": 33}, {"threads": 2}, {"device": "cuda:0"}, {"runtime": "torch"}, {"precision": "float16"}]
    for target in (Target(**fields) for fields in others):
        with pytest.raises(InputError, match=r"machine.jsonl: no series fits number_format float.*32 tokens"):
            open_predictor(data, target, "float")
    with pytest.raises(InputError, match="holds 0 shapes in int8; at least 20 are needed"):
        check_file(data, "int8")
    with pytest.raises(InputError, match="no such file"):
        open_predictor(data.with_name("nothing.jsonl"), Target(), "float")


def test_a_file_of_its_own_stands_for_the_data(data, space):
    path = data.with_name("predictor.json")
    predictor = fit_predictor(data, seed=3)
    write_predictor(predictor, path)
    assert (is_predictor(path), is_predictor(data)) == (True, False)
    again = open_predictor(path, Target(), "float")
    assert (again, again.seed) == (predictor, 3)
    unseen = sample_shapes(space, 10, seed=9)
    assert again.seconds_of(unseen).tolist() == predictor.seconds_of(unseen).tolist()
    assert file_problems(str(path), "float") == []
    (problem,) = file_problems(str(path), "int8")
    assert "predictor.json predicts latency for number_format float instead of int8" in problem
    with pytest.raises(InputError, match="for threads 1 instead of 2, seq_len 32 instead of 40"):
        open_predictor(path, Target(threads=2, seq_len=40), "float")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"version":1', '"version":7'),
        ('"seconds":[', '"seconds":[-1,'),
        ('"seconds":[', '"seconds":[NaN,'),
        ('"machine"', '"engine"'),
        ("}}", "}"),
    ],
)
def test_a_damaged_file_is_refused(data, old, new):
    path = data.with_name("predictor.json")
    write_predictor(fit_predictor(data), path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=r"predictor.json (is damaged|has version 7)"):
        read_predictor(path)
    with pytest.raises(InputError, match="there is no such file"):
        read_predictor(data.with_name("absent.json"))
    with pytest.raises(InputError, match="is not a latency predictor"):
        read_predictor(data)
