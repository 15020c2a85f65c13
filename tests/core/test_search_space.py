import json
from dataclasses import replace
from random import Random

import pytest

from limbeck.core.search_space import Listed, Range, Space
from limbeck.core.shape import Shape
from limbeck.errors import InputError

UNIFORM = Space(Range(1, 6), Range(128, 384, 16), Range(1, 12), Range(128, 1536, 32), Range(32, 32))
RAGGED = Space(Range(2, 4), Range(64, 64), Range(0, 4), Range(32, 128, 32), Range(8, 16, 4), per_layer=True)
CORES = ("softmax", "linformer:8", "window:4", "kernel", "kernel", "softmax")
MIXED = [replace(space, attention=CORES) for space in (UNIFORM, RAGGED)]


@pytest.mark.parametrize("space", [UNIFORM, RAGGED, *MIXED])
def test_whatever_is_drawn_belongs_to_the_space(space):
    rng = Random(0)
    parent = space.sample(rng)
    for _ in range(300):
        other = space.sample(rng)
        for shape in (other, space.mutate(parent, rng, 0.5), space.cross(parent, other, rng)):
            assert shape in space
            assert shape <= space.largest
            assert [row.attention for row in shape.layers] == [*(space.attention or ("softmax",) * 6)][: shape.depth]
        parent = other
    assert {space.smallest, space.largest} <= {shape for shape in (space.smallest, space.largest) if shape in space}


def test_size_is_the_number_of_shapes():
    rng = Random(0)
    small = Space(Range(1, 2), Range(8, 16, 8), Range(1, 2), Range(4, 8, 4), Range(4, 4), per_layer=True)
    assert len({small.sample(rng) for _ in range(3000)}) == small.size == 2 * (4 + 16)


def test_a_mutation_is_a_small_change():
    rng, shape = Random(1), UNIFORM.sample(Random(2))
    for _ in range(200):
        other = UNIFORM.mutate(shape, rng)
        assert abs(other.depth - shape.depth) <= 1
        assert abs(other.hidden - shape.hidden) <= 16
        assert abs(other.layers[0].heads - shape.layers[0].heads) <= 2
        assert abs(other.layers[0].ffn - shape.layers[0].ffn) <= 64
    assert UNIFORM.mutate(shape, rng, 0.0) == shape


def test_json_and_bad_ranges():
    assert Space.from_json(RAGGED.to_json()) == RAGGED
    with pytest.raises(InputError, match="low <= high"):
        Range(4, 2)


def test_every_layer_has_a_core():
    for space in (UNIFORM, replace(UNIFORM, attention=CORES)):
        assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space
    with pytest.raises(InputError, match="the attention of 4 is known, but the space goes up to 6; use at most 4"):
        replace(UNIFORM, attention=CORES[:4])


def test_all_of_a_list_are_leading_slices_of_the_whole():
    rng = Random(1)
    few = Listed(tuple(RAGGED.sample(rng) for _ in range(6)))
    whole = few.whole
    assert whole.depth == max(shape.depth for shape in few.shapes)
    for shape in few.shapes:
        assert all(row <= largest for row, largest in zip(shape.layers, whole.layers, strict=False))
        assert shape <= whole
    assert {few.sample(rng) for _ in range(200)} == set(few.shapes)


def test_the_largest_and_the_smallest_of_a_list_belong_to_it():
    deep, wide, small = Shape.uniform(4, 32, 2, 64), Shape.uniform(2, 64, 4, 128), Shape.uniform(1, 32, 2, 64)
    few = Listed((deep, small, wide))
    assert (few.largest, few.smallest) == (wide, small)


@pytest.mark.parametrize("space", [UNIFORM, RAGGED])
def test_a_shape_is_its_values(space):
    rng = Random(3)
    for _ in range(100):
        shape = space.sample(rng)
        values = space.values(shape)
        assert values.keys() == space.dimensions.keys()
        assert all(values[name] in each for name, each in space.dimensions.items())
        assert space.build(values) == shape
