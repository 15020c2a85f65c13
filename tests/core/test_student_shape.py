import itertools

import pytest

from limbeck.core.shape import Shape
from limbeck.core.student_shape import StudentShape, layer_map
from limbeck.errors import InputError

TEACHER = Shape.uniform(layers=6, hidden=48, heads=4, ffn=96)


@pytest.mark.parametrize(
    ("init", "layers"), [("layers", (1, 3, 5)), ("fresh", (1, 3, 5)), ("slice", (0, 1, 2)), ("resplit", (0, 1, 2))]
)
def test_copied_layers_are_spread_and_sliced_ones_are_the_first(init, layers):
    assert StudentShape(layers=3, init=init).source_layers(6) == layers
    assert StudentShape(init=init).source_layers(2) == (0, 1)


def test_width_heads_and_head_width_agree():
    for hidden in (12, 24):
        for fields in ({"heads": 2}, {"head_dim": 6}, {"heads": 2, "head_dim": 6}, {}):
            shape = StudentShape(hidden=hidden, **fields).of(TEACHER)
            assert shape.hidden == hidden
            assert fields.get("head_dim", shape.head_dim) == shape.head_dim
            if len(fields) < 2:
                assert shape.layers[0].heads * shape.head_dim == hidden


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": 7}, "layers: 7 is more than the model's 6"),
        ({"hidden": 45}, "heads: 4 does not divide the hidden width 45; use"),
        ({"ffn": 97}, "is larger than the model"),
    ],
)
def test_impossible_students(fields, message):
    with pytest.raises(InputError, match=message):
        StudentShape(**fields).of(TEACHER)


@pytest.mark.parametrize("kind", ["uniform", "last_of_block", "top", "bottom"])
@pytest.mark.parametrize(("student", "teacher"), [(1, 6), (2, 6), (4, 6), (6, 6), (4, 12), (5, 12)])
def test_layer_maps_are_ascending_and_in_range(kind, student, teacher):
    mapped = layer_map(kind, student, teacher)
    assert len(mapped) == student
    assert all(a < b for a, b in itertools.pairwise(mapped))
    assert mapped[0] >= 1
    assert mapped[-1] <= teacher
    if kind != "bottom":
        assert mapped[-1] == teacher
