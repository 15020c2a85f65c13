import pytest
import torch

from limbeck.core.candidate import Candidate
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import LayerShape, Shape
from limbeck.core.step import RunContext
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.checkpoints import open_model, save_model
from limbeck.techniques.student_init import StudentInit
from limbeck.train.supernet_config import ChannelOrder

FULL = Shape.uniform(layers=6, hidden=32, heads=4, ffn=64)


def candidate(make_model, shape=FULL, **style):
    task = toy_task(train=8, validation=8, test=8)
    tokenizer = toy_tokenizer(task)
    return Candidate(make_model(shape, labels=3, vocab_size=len(tokenizer), **style), tokenizer, task)


def apply_step(step, parent, seed=0):
    (child,) = step.apply(parent, RunContext(seed=seed))
    return child.model


@pytest.mark.parametrize(
    ("count", "retained"), [(1, [5]), (2, [2, 5]), (3, [1, 3, 5]), (4, [1, 2, 3, 5]), (6, [*range(6)])]
)
def test_copied_layers_answer_as_a_model_that_skips_the_others(make_model, make_batch, count, retained):
    from limbeck.model.encoder import Gates

    batch = make_batch(vocabulary=20)
    gates = torch.zeros(6)
    gates[retained] = 1
    whole = candidate(make_model).model
    with torch.no_grad():
        expected = whole.run(batch, gates=Gates(layers=gates))[0]
        student = apply_step(StudentInit(layers=count, init="layers"), candidate(make_model))
        torch.testing.assert_close(student.run(batch)[0], expected)
    assert student.shape == Shape.uniform(layers=count, hidden=32, heads=4, ffn=64)


def test_copied_layers_keep_their_own_widths(make_model):
    ragged = FULL.with_layer(2, heads=1, ffn=5).with_layer(5, heads=2, ffn=7)
    student = apply_step(StudentInit(layers=2, init="layers"), candidate(make_model, ragged))
    assert student.shape.layers == (LayerShape(1, 5), LayerShape(2, 7))


def test_a_fresh_student_depends_on_the_seed_alone(make_model):
    weights = []
    for noise, seed in ((1, 0), (2, 0), (3, 1)):
        parent = candidate(make_model)
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        weights.append(apply_step(StudentInit(layers=2, hidden=16), parent, seed).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["encoder.layers.0.up.weight"], weights[2]["encoder.layers.0.up.weight"])


def test_fresh_weights_are_drawn_as_those_of_bert(make_model):
    big = candidate(make_model, Shape.uniform(layers=2, hidden=128, heads=4, ffn=256))
    student = apply_step(StudentInit(hidden=64), big)
    for name, tensor in student.state_dict().items():
        if tensor.dim() > 1:
            assert float(tensor.std()) == pytest.approx(0.02, rel=0.15), name
            assert abs(float(tensor.mean())) < 0.002, name
        else:
            assert set(tensor.tolist()) == {1.0 if "norm.weight" in name else 0.0}, name


def test_embeddings_are_kept_where_they_fit(make_model):
    parent = candidate(make_model)
    old = {name: tensor.clone() for name, tensor in parent.model.encoder.embeddings.state_dict().items()}
    same = apply_step(StudentInit(layers=2, ffn=16), parent).encoder.embeddings.state_dict()
    assert all(torch.equal(old[name], same[name]) for name in old)
    parent = candidate(make_model, embedding_size=8)
    old = parent.model.encoder.embeddings.word.weight.detach().clone()
    narrow = apply_step(StudentInit(hidden=16), parent).encoder.embeddings
    assert torch.equal(narrow.word.weight, old)
    assert narrow.project.weight.shape == (16, 8)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"layers": 2}, Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)),
        ({"hidden": 16}, Shape.uniform(layers=6, hidden=16, heads=4, ffn=64)),
        ({"hidden": 16, "heads": 2}, Shape.uniform(layers=6, hidden=16, heads=2, ffn=64)),
        ({"hidden": 16, "head_dim": 8}, Shape.uniform(layers=6, hidden=16, heads=2, ffn=64)),
        ({"hidden": 16, "heads": 3, "head_dim": 8}, Shape.uniform(layers=6, hidden=16, heads=3, ffn=64, head_dim=8)),
        ({"ffn": 12, "layers": 1}, Shape.uniform(layers=1, hidden=32, heads=4, ffn=12)),
    ],
)
def test_shapes(make_model, fields, expected):
    step = StudentInit(**fields)
    assert step.shape_after(FULL) == expected == apply_step(step, candidate(make_model)).shape
    assert expected <= FULL


def test_what_is_not_given_stays_also_where_layers_differ():
    ragged = FULL.with_layer(2, heads=1, ffn=5)
    assert StudentInit(layers=2, ffn=4).student.of(ragged).layers == (LayerShape(1, 4), LayerShape(4, 4))
    with pytest.raises(InputError, match=r"the layers have \[1, 4\] heads; give heads"):
        StudentInit(layers=2, hidden=16).student.of(ragged)


BAD = {
    "nothing": ({}, "give the shape of the student: layers, hidden, heads, ffn, head_dim"),
    "copied and narrowed": ({"layers": 2, "ffn": 8, "init": "layers"}, "cannot change ffn; use init: fresh"),
    "deeper": ({"layers": 7}, "student_init: layers: 7 is more than the model's 6"),
    "wider": ({"hidden": 64, "head_dim": 8}, "64 .* is larger than the model, 6x32"),
    "more neurons": ({"ffn": 65}, "is larger than the model"),
    "heads": ({"hidden": 16, "heads": 3}, "student_init: heads: 3 does not divide the hidden width 16; use [24]"),
    "width of heads": ({"hidden": 16, "head_dim": 7}, "student_init: head_dim: 7 does not divide .*; use 8"),
}


@pytest.mark.parametrize("case", BAD)
def test_impossible_students(make_model, case):
    fields, message = BAD[case]
    with pytest.raises(InputError, match=message):
        apply_step(StudentInit(**fields), candidate(make_model))


def test_a_student_keeps_labels_and_opens_again(make_model, make_batch, tmp_path):
    parent = candidate(make_model)
    parent.model.config.id2label = dict(enumerate(parent.task.label_names))
    student = apply_step(StudentInit(layers=2, hidden=16, ffn=8), parent)
    assert student.config.id2label == dict(enumerate(parent.task.label_names))
    save_model(student, parent.tokenizer, tmp_path)
    again, _ = open_model(tmp_path, task=parent.task)
    assert again.shape == student.shape
    batch = make_batch(vocabulary=20)
    assert (again.predict(batch) == student.predict(batch)).all()


def test_a_slice_answers_as_the_model_run_in_that_shape(make_model, make_batch):
    batch = make_batch(vocabulary=20)
    parent = candidate(make_model)
    whole = candidate(make_model).model
    parent.model.config.space = {"of": "a super-network"}
    student = apply_step(StudentInit(layers=2, hidden=16, heads=3, ffn=32, head_dim=4, init="slice"), parent)
    with torch.no_grad():
        torch.testing.assert_close(student.run(batch)[0], whole.run(batch, shape=student.shape)[0])
    assert student.config.space is None


def test_a_fresh_student_of_a_super_network_is_none(make_model):
    """Its weights are drawn anew, so it has no trained slices, even where it has the same shape."""
    parent = candidate(make_model)
    ranges = Range(6, 6), Range(32, 32), Range(1, 4), Range(64, 64), Range(8, 8)
    ChannelOrder(Space(*ranges)).mark(parent.model, answers=True)
    assert ChannelOrder.of(apply_step(StudentInit(layers=6, init="fresh"), parent)) is None
