from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from limbeck.core import analytic_cost as counts
from limbeck.core.shape import Shape
from limbeck.model.attention_conversion import convert
from limbeck.model.encoder import LimbeckConfig, LimbeckForSequenceClassification, LimbeckForTokenClassification
from limbeck.model.onnx.onnx_model import OnnxModel
from limbeck.model.style import Style

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
SHAPES = [FULL, FULL.with_layer(1, heads=1, ffn=17), FULL.with_layer(0, heads=0).with_layer(2, ffn=0)]


def model(shape, labels=3, kind=LimbeckForSequenceClassification, **style):
    rows = {"layer_heads": [row.heads for row in shape.layers], "layer_ffn": [row.ffn for row in shape.layers]}
    config = LimbeckConfig(shape.hidden, shape.head_dim, **rows, vocab_size=50, num_labels=labels, **style)
    return kind(config).eval()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("style", [{}, {"embedding_size": 16}, {"token_types": 0, "max_positions": 40}], ids=str)
def test_parameters_are_those_of_the_network(shape, style):
    net = model(shape, **style)
    assert counts.parameters(shape, net.config.style, labels=3) == sum(p.numel() for p in net.parameters())
    assert counts.bytes(shape, net.config.style, labels=3) == sum(p.nbytes for p in net.parameters())
    assert counts.of_model(net)[0] == shape


@pytest.mark.parametrize("share", ["none", "kv", "layer", "per_head"])
def test_parameters_of_projections_of_the_length(make_model, share):
    net = convert(make_model(FULL, max_positions=40), ("linformer:8", "linformer:5", "kernel"), share=share)
    shape, style = counts.of_model(net)
    assert counts.parameters(shape, style) == sum(p.numel() for p in net.parameters())
    assert counts.bytes(shape, style) == sum(p.nbytes for p in net.parameters())
    assert counts.lengths(FULL, style) == 0


@pytest.mark.parametrize("core", ["linformer:8", "window:4", "kernel"])
def test_macs_of_linear_attention(make_model, core):
    """Of a window in whole blocks: what is padded is computed, too, and the first token asks once more."""
    net = convert(make_model(FULL), (core,) * 3).eval()
    math = sdpa_kernel(SDPBackend.MATH)
    with math, FlopCounterMode(display=False) as counter, torch.inference_mode():
        net.run({"input_ids": torch.randint(5, 50, (1, 12))})
    counted = counter.get_total_flops()
    estimated = 2 * counts.macs(net.shape, 12, net.config.style)
    assert estimated == counted if core.startswith("linformer") else estimated == pytest.approx(counted, rel=0.02)


def test_parameters_without_a_pooler():
    net = model(FULL, kind=LimbeckForTokenClassification)
    assert counts.parameters(FULL, net.config.style, labels=3, pooler=False) == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("style", [{}, {"embedding_size": 16}], ids=str)
def test_macs_are_half_the_operations_that_torch_counts(shape, style):
    net = model(shape, **style)
    ids = torch.randint(0, 50, (1, 9))
    math = sdpa_kernel(SDPBackend.MATH)  # the counter does not know the fused kernel of the processor
    with math, FlopCounterMode(display=False) as counter, torch.inference_mode():
        net.run({"input_ids": ids})
    assert 2 * counts.macs(shape, 9, net.config.style, labels=3) == counter.get_total_flops()


def test_macs_count_the_tokens_that_a_layer_reads_and_passes_on():
    shape, style = FULL.with_tokens(0.5, 0.2, 0.2), model(FULL).config.style
    hidden, width, ffn = 32, 32, 64
    layers = [(40, 20), (20, 8), (8, 8)]
    expected = sum(
        read * 3 * hidden * width + 2 * read**2 * width + left * (hidden * width + 2 * hidden * ffn)
        for read, left in layers
    )
    assert counts.macs(shape, 40, style) == expected + hidden * hidden + 2 * hidden
    assert counts.parameters(shape, style) == counts.parameters(FULL, style)
    assert counts.as_shape(shape) == shape


def test_int8_is_a_quarter_apart_from_the_vectors():
    style = model(FULL).config.style
    vectors = 4 * counts.vectors(FULL, style)
    assert (counts.bytes(FULL, style) - vectors) == 4 * (counts.bytes(FULL, style, "int8") - vectors)


def test_an_onnx_models_configuration_is_a_dictionary():
    exported = OnnxModel("folder", "onnx/model.onnx", model(FULL).config.to_dict())
    shape, style = counts.of_model(exported)
    assert counts.parameters(shape, style) == counts.parameters(FULL, model(FULL).config.style)


def test_macs_of_all_tokens_are_those_that_layers_read():
    """Where every token is answered, or averaged, what a layer leaves behind still has its neurons."""
    shape, whole = FULL.with_tokens(*[0.5] * FULL.depth), {"all_tokens": True}
    averaged = counts.macs(shape, 40, Style("bert", pooling="mean"))
    assert counts.macs(shape, 40, Style("bert")) < averaged == counts.macs(shape, 40, Style("bert"), **whole)
    assert counts.macs(FULL, 40, Style("bert")) == counts.macs(FULL, 40, Style("bert"), **whole)


def test_macs_of_disentangled_attention():
    """Torch projects the embeddings of distances for each text besides; a graph has them as constants."""
    style = {"pos_att_type": ("c2p", "p2c"), "position_buckets": 16, "max_relative_positions": 32}
    net = model(FULL, **style).requires_grad_(False)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        net.run({"input_ids": torch.randint(5, 50, (1, 9))})
    rows = len(net.encoder.relative(9, FULL.hidden).rows)
    projections = 2 * rows * FULL.hidden**2 * FULL.depth
    assert counter.get_total_flops() == 2 * (counts.macs(FULL, 9, net.config.style, labels=3) + projections)
