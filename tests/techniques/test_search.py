import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.facts import Measurement
from limbeck.core.shape import Shape
from limbeck.core.space import Range, Space
from limbeck.core.step import Lab
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.measure.counts import as_shape
from limbeck.model.extract import extract
from limbeck.techniques.search import Search

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
SPACE = Space(Range(1, 3), Range(16, 32, 16), Range(1, 4), Range(16, 64, 16), Range(8, 8))


@pytest.fixture
def supernet(make_model):
    task = toy_task(train=16, validation=40)
    tokenizer = toy_tokenizer(task)
    model = make_model(FULL, labels=task.num_labels, vocab_size=len(tokenizer))
    model.config.space = SPACE.to_json()
    return Candidate(model, tokenizer, task)


def latency(shape, number_format="int8"):
    """A machine on which every neuron and channel takes its time, and INT8 half of it; within 10 %."""
    value = 1e-6 * sum(shape.hidden * (row.heads + row.ffn) for row in shape.layers)
    value *= 0.5 if number_format == "int8" else 1.0
    return Measurement("latency_p50", value, "s", 0.9 * value, 1.1 * value)


@pytest.mark.parametrize("method", ["evolution", "random"])
@pytest.mark.parametrize("number_format", ["float", "int8"])
def test_winners_are_slices_that_fit(supernet, method, number_format):
    told = []
    lab = Lab(cost=latency, log=lambda message, **numbers: told.append(message))
    step = Search(method=method, speedup=2.0, at_least=0.3, population=5, generations=3, winners=3)
    step = type(step)(**{**vars(step), "number_format": number_format})
    made = list(step.apply(supernet, lab))
    bound = latency(SPACE.largest, number_format).value / 2
    shapes = [as_shape(one.model.shape) for one in made]
    assert len(set(shapes)) == 3
    for shape in shapes:
        assert shape in SPACE
        assert latency(shape, number_format).high <= bound
        assert latency(shape, number_format).value >= 0.3 * bound
    expected = extract(supernet.model, shapes[0]).state_dict()
    assert all(value.equal(expected[name]) for name, value in made[0].model.state_dict().items())
    scores = [float(line.split("accuracy ")[1].split(",")[0]) for line in told if ": accuracy" in line]
    assert scores == sorted(scores, reverse=True)


def test_the_rule_keeps_to_its_shapes(supernet):
    wide = Space(Range(1, 3), Range(16, 32, 8), Range(1, 4), Range(16, 64, 4), Range(8, 8))
    supernet.model.config.space = wide.to_json()
    step = Search(method="rule", keep=1.0, at_least=0.1, population=4, generations=1, winners=4, cost="macs")
    for made in step.apply(supernet, Lab()):
        shape = as_shape(made.model.shape)
        assert 1.6 * shape.hidden <= shape.layers[0].ffn <= 1.9 * shape.hidden


def test_an_interrupted_search_asks_for_the_rest(supernet, tmp_path):
    step = Search(keep=0.9, at_least=0.1, cost="macs", population=4, generations=3)
    whole = [as_shape(one.model.shape) for one in step.apply(supernet, Lab(scratch=tmp_path / "whole"))]
    stopped = 0

    def log(message, **numbers):
        nonlocal stopped
        stopped += bool(numbers)
        if stopped == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(step.apply(supernet, Lab(scratch=tmp_path / "cut", log=log)))
    assert len((tmp_path / "cut" / "scores.jsonl").read_text().splitlines()) == 5
    assert [as_shape(one.model.shape) for one in step.apply(supernet, Lab(scratch=tmp_path / "cut"))] == whole


def test_what_cannot_be_searched(supernet):
    assert "one bound" in Search(latency_ms=1.0, keep=0.5).problems()[0]
    assert "needs cost: latency" in Search(latency_ms=1.0, cost="macs").problems()[0]
    with pytest.raises(InputError, match="give a bound"):
        list(Search().apply(supernet, Lab(cost=latency)))
    with pytest.raises(InputError, match="no shape of the space costs between"):
        list(Search(latency_ms=1e-6).apply(supernet, Lab(cost=latency)))
    other = Candidate(extract(supernet.model, Shape.uniform(2, 32, 4, 64)), supernet.tokenizer, supernet.task)
    with pytest.raises(InputError, match="its space goes up to"):
        list(Search(keep=0.5, cost="macs").apply(other, Lab()))
    del supernet.model.config.space
    with pytest.raises(InputError, match="train it with 'supernet' first"):
        list(Search(keep=0.5, cost="macs").apply(supernet, Lab()))
