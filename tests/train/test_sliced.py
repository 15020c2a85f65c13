import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.core.space import Range, Space
from limbeck.errors import InputError
from limbeck.model.criteria import magnitude
from limbeck.train.elastic import Elastic
from limbeck.train.objectives import LiveTeacher, Progress
from limbeck.train.plan import Plan
from limbeck.train.sliced import OnCorpus, Sliced

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)


class Named(Sliced):
    name = "named"


def test_ranges_that_are_not_given_stay_unless_none_is():
    assert Named().free
    assert str(Named().space(Shape.uniform(6, 384, 12, 1536)).smallest) == "2x128 heads 4 of 32 ffn 256"
    space = Named(heads=(1, 4), ffn=(10, 40)).space(FULL)
    assert space == Space(Range(3, 3), Range(32, 32, 16), Range(1, 4), Range(10, 40, 32), Range(8, 8, 4))
    assert Named(layers=(1, 2), per_layer=True).space(FULL).per_layer


def test_bad_ranges_are_told():
    assert Named(layers=(3, 2), heads=(2, 1)).problems() == [
        "layers: the first should be the lower, got [3, 2]",
        "heads: the first should be the lower, got [2, 1]",
    ]
    for fields, said in (({"hidden": (16, 64)}, "has 32, got 64; use at most 32"), ({"ffn": (0, 8)}, "at least 1")):
        with pytest.raises(InputError, match=rf"named\.{next(iter(fields))}: .*{said}"):
            Named(**fields).space(FULL)


def test_time_is_that_of_the_slices():
    rows = {"train": 1000, "validation": 10**9}  # which is not looked at
    plain = Plan(evaluations_per_epoch=0).estimate(FULL, rows, 20.0)
    assert Named().estimate(FULL, rows, 20.0) == pytest.approx(1.3 * 2.2 * plain)
    assert Named(rule="single", samples=1).estimate(FULL, rows, 20.0) == pytest.approx(1.3 * 0.5 * plain)


def test_a_sorted_copy_of_the_teacher_has_its_hidden_states(make_model, make_batch):
    teacher, model, batch = make_model(FULL), make_model(FULL), make_batch()
    step = Named(hidden=(16, 32))
    order = step.put_in_order(model, magnitude(model, ()), step.space(FULL))
    assert not torch.equal(order, torch.arange(32))
    losses = []
    for known in (order, None):
        terms = step.slice_terms(("hidden",), step.space(FULL), teacher, known)
        with torch.no_grad():
            largest = next(iter(Elastic(terms, LiveTeacher(teacher), step.space(FULL))(model, batch, Progress(0, 1))))
        losses.append(float(largest.terms["largest_hidden"]))
    assert losses[0] == pytest.approx(0.0, abs=1e-9)
    assert losses[1] > 0.5


def test_of_a_narrower_model_the_projection_knows_the_channels_it_has(make_model):
    step = Named(hidden=(16, 24), hidden_step=8)
    model = make_model(FULL)
    order = step.put_in_order(model, magnitude(model, ()), step.space(FULL))
    project = step.slice_terms(("hidden",), step.space(FULL), make_model(FULL), order)["hidden"][1].project.weight
    expected = torch.zeros(32, 24)
    expected[order[:24], range(24)] = 1.0
    assert torch.equal(project, expected)


def test_what_training_on_a_corpus_leaves_is_read_back(make_model):
    model, teacher = make_model(FULL), make_model(FULL, seed=1)
    assert OnCorpus.of(model) is None
    made = OnCorpus(Named(hidden=(16, 32)).space(FULL), tuple(reversed(range(32))))
    made.mark(model)
    assert OnCorpus.of(model) == made
    assert made.beside(teacher).tolist() == list(made.order)
    made.mark(teacher)  # such as one that was fine-tuned from there
    assert made.beside(teacher) is None
    assert OnCorpus(made.space, ()).beside(teacher) is None
    model.encoder.shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    assert OnCorpus.of(model) is None  # of another shape, so of another space
