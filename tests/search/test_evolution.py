from random import Random

from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.search.evolution import evolve, sample_shapes, satisfies_rule

SPACE = Space(Range(1, 8), Range(64, 384, 16), Range(1, 12), Range(64, 1536, 32), Range(32, 32))
RAGGED = Space(Range(2, 4), Range(64, 64), Range(1, 8), Range(32, 256, 32), Range(16, 16), per_layer=True)


def cost(shape):
    return sum(shape.hidden * (row.heads * 32 * 4 + 2 * row.ffn) for row in shape.layers)


def truth(shape):
    """Depth and width help, each less and less; the best shapes are neither the deepest nor the widest."""
    return (
        shape.depth**0.3 * shape.hidden**0.4 * sum(row.heads**0.2 * row.ffn**0.2 for row in shape.layers) / shape.depth
    )


def small(shapes):
    return [sum(row.ffn for row in shape.layers) <= 320 for shape in shapes]


def bounded(shapes):
    return [0.85e6 <= cost(shape) <= 1.1e6 for shape in shapes]


def anything(shapes):
    return [True] * len(shapes)


def test_what_is_drawn_fits_and_is_new():
    rng = Random(0)
    first = sample_shapes(SPACE, bounded, 20, rng)
    second = sample_shapes(SPACE, bounded, 20, rng, dict.fromkeys(first, 0.0))
    assert len({*first, *second}) == 40
    assert all(bounded(first + second))
    assert all(shape in SPACE for shape in first + second)
    few = Space(Range(1, 2), Range(64, 64), Range(2, 2), Range(64, 64), Range(32, 32))
    assert len(sample_shapes(few, anything, 5, rng)) == 2


def test_few_questions_are_asked_for_many_shapes():
    """One shape in 200 fits: it is looked for in thousands at once, and nothing is asked twice in a batch."""
    scored = []

    def rare(shapes):
        scored.append(len(shapes))
        assert len(set(shapes)) == len(shapes)
        return [sum(row.ffn for row in shape.layers) <= 64 for shape in shapes]

    fitting = sample_shapes(RAGGED, rare, 3, Random(0))
    assert len(fitting) == 3
    assert all(sum(row.ffn for row in shape.layers) <= 64 for shape in fitting)
    assert sum(scored) / len(scored) > 50
    again = []

    def fits(shapes):
        again.extend(shapes)
        return [shape in fitting for shape in shapes]

    assert sample_shapes(RAGGED, fits, 3, Random(0)) == fitting


def test_evolution_beats_chance():
    """With as many shapes asked about, over ten seeds."""
    won = []
    for seed in range(10):
        scored = []

        def score(shapes, scored=scored):
            scored.extend(shapes)
            return [truth(shape) for shape in shapes]

        *_, scores = evolve(RAGGED, small, score, generations=6, rng=Random(seed))
        assert len(scored) == len(set(scored)) == len(scores) == 150
        random = max(truth(shape) for shape in sample_shapes(RAGGED, small, 150, Random(100 + seed)))
        won.append(max(scores.values()) - random)
    assert sum(won) / len(won) > 0.2
    assert sum(gain >= 0 for gain in won) >= 8


def test_ragged_spaces_too_and_by_seed_alone():
    runs = [
        list(evolve(RAGGED, anything, lambda shapes: [truth(s) for s in shapes], population=6, rng=Random(3)))
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert all(shape in RAGGED for shape in runs[0][-1])


def test_an_empty_space_ends_at_once():
    assert (
        list(evolve(RAGGED, lambda shapes: [False] * len(shapes), lambda shapes: [0.0], population=2, rng=Random(0)))
        == []
    )


def test_the_rule():
    assert satisfies_rule(Shape.uniform(4, 320, 10, 576))
    assert not satisfies_rule(Shape.uniform(4, 320, 4, 576, head_dim=32))
    assert not satisfies_rule(Shape.uniform(2, 320, 10, 576).with_layer(0, ffn=544))
