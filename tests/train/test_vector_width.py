from __future__ import annotations

import pytest
import torch

from limbeck.core.sentence_embedding import Dense
from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.train.vector_width import match_width, vector_width


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
