import pytest

from limbeck.benchmark.grid import attention, depths, jointly, miniatures, narrowed, paired, widths
from limbeck.core.shape import Shape
from limbeck.errors import InputError

LARGE = Shape.uniform(layers=24, hidden=1024, heads=16, ffn=4096)


def test_one_dimension_at_a_time():
    assert [point.shape.depth for point in depths(LARGE, [2, 4, 8, 12])] == [2, 4, 8, 12]
    assert {point.shape.layers[0] for point in depths(LARGE, [2, 4])} == {LARGE.layers[0]}
    shapes = [point.shape for point in widths(LARGE, [128, 768])]
    assert [(shape.hidden, shape.layers[0].heads, shape.layers[0].ffn) for shape in shapes] == [
        (128, 2, 512),
        (768, 12, 3072),
    ]
    assert {(shape.head_dim, shape.depth) for shape in shapes} == {(64, 12)}


def test_of_a_base_with_few_heads_their_number_scales():
    few = Shape.uniform(layers=2, hidden=128, heads=1, ffn=256, head_dim=64)
    assert [point.shape for point in widths(few, [128])] == [few]
    assert [point.shape.layers[0].heads for point in widths(few, [64, 256])] == [1, 2]


def test_wider_layers_keep_their_attention():
    linear = Shape.uniform(layers=2, hidden=128, heads=4, ffn=256, attention="window:8")
    assert [point.shape.layers[0].attention for point in widths(linear, [64, 256])] == ["window:8"] * 2


def test_the_miniatures():
    shapes = {point.label: point.shape for point in miniatures()}
    assert len(shapes) == 24
    assert "google/bert_uncased_L-8_H-512_A-8" in {point.checkpoint for point in miniatures()}
    assert shapes["L2 H128"] == Shape.uniform(2, 128, 2, 512)  # BERT-Tiny
    assert shapes["L12 H768"] == Shape.uniform(12, 768, 12, 3072)  # BERT-Base


def test_a_share_of_the_attention():
    by_heads = [point.shape.layers[0].heads for point in attention(LARGE, [0.2, 0.4, 1.0], "head_num")]
    assert by_heads == [3, 6, 16]
    for approach in ("head_size_1", "head_size_2"):
        shapes = [point.shape for point in attention(LARGE, [0.2, 1.0], approach)]
        assert [(shape.head_dim, shape.layers[0].heads) for shape in shapes] == [(13, 16), (64, 16)]
        assert all(shape <= LARGE for shape in shapes)
    for ratio in (0, 1.2):
        with pytest.raises(InputError, match="at most 1"):
            narrowed(LARGE, ratio, "head_num")


def test_pairs():
    pairs = paired(LARGE, [2, 4, 24], [0.5, 0.25, 1.0], "head_num")
    assert [(point.shape.depth, point.shape.layers[0].heads) for point in pairs] == [(2, 8), (4, 4), (24, 16)]
    with pytest.raises(InputError, match=r"equally long; got 2 \(2, 4\) and 1 \(0.5\)"):
        paired(LARGE, [2, 4], [0.5], "head_num")


def test_jointly_every_combination():
    shapes = jointly(LARGE, [2, 4], [128, 512], [0.5, 1.0], "head_num")
    assert len({point.shape for point in shapes}) == len(shapes) == 8
    assert {(point.shape.depth, point.shape.hidden, point.shape.layers[0].heads) for point in shapes} == {
        (layers, hidden, round(ratio * hidden / 64)) for layers in (2, 4) for hidden in (128, 512) for ratio in (0.5, 1)
    }
    assert {point.group for point in shapes} == {"jointly"}
    with pytest.raises(InputError, match="at least two"):
        jointly(LARGE, [2, 4], [], [], "head_num")


def test_what_cannot_be():
    with pytest.raises(InputError, match="does not divide 100; use 128"):
        widths(LARGE, [100])
    with pytest.raises(InputError, match="at least 1, got 0"):
        depths(LARGE, [0])
