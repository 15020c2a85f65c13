from __future__ import annotations

import pytest
import torch

from limbeck.core.sentence_embedding import Dense
from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.model.pruning.subnetwork import channel_scores, extract, sort_channels
from limbeck.train.vector_width import keep_width, match_width, vector_width


def test_a_student_gets_the_width_of_its_teacher_once(make_model, make_batch):
    teacher = make_model(kind="embedding")
    teacher.widen(Dense(48), torch.randn(48, 32), torch.randn(48))
    student = make_model(Shape.uniform(layers=1, hidden=16, heads=2, ffn=16), kind="embedding")
    notes = []
    for _ in range(2):
        match_width(student, teacher, notes.append)
    assert len(notes) == 1
    assert vector_width(student) == vector_width(teacher) == 48
    assert student.predict(make_batch()).shape == (3, 48)


def test_a_classifier_is_no_teacher_of_vectors(make_model):
    with pytest.raises(InputError, match="no vectors"):
        match_width(make_model(kind="embedding"), make_model(), print)


@pytest.mark.parametrize("dense", [False, True])
def test_slices_keep_the_width_of_the_whole_model_whose_vectors_do_not_change(make_model, make_batch, dense):
    model, batch = make_model(kind="embedding"), make_batch()
    if dense:
        model.widen(Dense(24), torch.randn(24, 32), torch.randn(24))
    before, layers = model.predict(batch), len(model.dense)
    keep_width(model)
    torch.testing.assert_close(model.predict(batch), before)
    assert len(model.dense) == max(1, layers)
    small = Shape.uniform(layers=1, hidden=16, heads=2, ffn=16)
    sliced = model.run(batch, shape=small)[0]
    assert sliced.shape == before.shape
    torch.testing.assert_close(extract(model, small).run(batch)[0], sliced)


@pytest.mark.parametrize("dense", [False, True])
def test_sorted_channels_make_the_same_vectors(make_model, make_batch, dense):
    model, batch = make_model(kind="embedding"), make_batch()
    if dense:
        model.widen(Dense(24), torch.randn(24, 32), torch.randn(24))
    before = model.predict(batch)
    keep_width(model)
    order = sort_channels(model, channel_scores(model))
    assert order.tolist() != list(range(32))
    torch.testing.assert_close(model.predict(batch), before, atol=1e-5, rtol=1e-4)
