"""Fewer tokens in later layers as ONNX nodes: the answers of torch at every length, alone and in batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.measure.backends import OpenVinoRunner
from limbeck.model.attention_conversion import convert
from limbeck.model.onnx.graph import build
from limbeck.model.onnx.onnx_model import open_session, parts, read_parts, to_onnx
from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize

SHAPE = Shape.uniform(layers=4, hidden=32, heads=4, ffn=48).with_tokens(0.8, 0.8, 0.301, 0.2)
STYLES = {
    "bert": {},
    "pre-norm": {"norm_first": True, "position_offset": 1, "pad_token_id": 1, "token_types": 1},
    "rotary": {"rotary_theta": (100.0,), "absolute_positions": False, "token_types": 0},
    "relative": {"relative_buckets": 8, "relative_heads": 4, "relative_distance": 9, "token_types": 0},
}
LONGEST = 62
OUTPUTS = {"first": ("classification", {}), "mean": ("classification", {"pooling": "mean"}), "tokens": ("tokens", {})}


def batches(pad):
    """Single texts of every kind of length, and batches with padding and without."""
    for lengths in ((1,), (2,), (3,), (7,), (LONGEST,), (9, 1, 2, 16, 15), (12, 12), (31, 30, LONGEST)):
        longest = max(lengths)
        ids = torch.randint(5, 60, (len(lengths), longest), generator=torch.Generator().manual_seed(longest))
        mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
        yield {
            "input_ids": torch.where(mask.bool(), ids, pad),
            "attention_mask": mask,
            "token_type_ids": torch.zeros_like(ids),
        }


def answers(session, batch, output=0):
    read = {entry.name for entry in session.get_inputs()}
    return session.run(None, {name: value.numpy() for name, value in batch.items() if name in read})[output]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("style", STYLES)
def test_texts_of_every_length_are_answered_as_in_torch(make_model, tmp_path, style, output, fused):
    kind, pooling = OUTPUTS[output]
    model = make_model(SHAPE, kind=kind, labels=3, **STYLES[style], **pooling)
    session = open_session(to_onnx(model, tmp_path / "model.onnx", fused=fused))
    for batch in batches(model.encoder.style.pad_token_id):
        real = batch["attention_mask"].numpy().astype(bool) if kind == "tokens" else slice(None)
        np.testing.assert_allclose(answers(session, batch)[real], model.predict(batch)[real], atol=1e-4)


CORES = {
    "local": ("softmax", "local:3", "softmax", "local:3"),
    "local first": ("local:3", "softmax", "local:3", "softmax"),
    "window": ("window:3", "softmax", "window:3", "window:3"),
    "kernel": ("softmax", "kernel", "softmax", "kernel"),
    "linformer": ("linformer:5", "softmax", "linformer:5", "linformer:5"),
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("output", ["first", "tokens"])
@pytest.mark.parametrize("cores", CORES)
def test_layers_with_other_cores_read_what_remains(make_model, tmp_path, cores, output, fused):
    kind = OUTPUTS[output][0]
    model = make_model(SHAPE, kind=kind, labels=3, **STYLES["rotary"])
    model = convert(model, CORES[cores], tokens=20)
    assert model.shape.tokens == SHAPE.tokens
    session = open_session(to_onnx(model, tmp_path / "model.onnx", fused=fused))
    for batch in batches(0):
        real = batch["attention_mask"].numpy().astype(bool) if kind == "tokens" else slice(None)
        np.testing.assert_allclose(answers(session, batch)[real], model.predict(batch)[real], atol=1e-4)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_vectors_and_the_states_of_all_tokens_are_those_of_torch(make_model, tmp_path, pooling, fused):
    from limbeck.core.sentence_embedding import SentenceEmbedding

    model = make_model(SHAPE, kind="embedding")
    model.embedding = SentenceEmbedding(pooling=pooling)
    session = open_session(to_onnx(model, tmp_path / "model.onnx", fused=fused))
    for batch in batches(0):
        real = batch["attention_mask"].bool()
        with torch.no_grad():
            states = model.encoder(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])[0]
        np.testing.assert_allclose(answers(session, batch), model.predict(batch), atol=1e-4)
        np.testing.assert_allclose(answers(session, batch, 1)[real.numpy()], states[real].numpy(), atol=1e-4)


@pytest.mark.parametrize("output", OUTPUTS)
def test_int8_is_near_torch_and_its_padding_plays_no_part(make_model, tmp_path, output):
    kind, pooling = OUTPUTS[output]
    model = make_model(SHAPE, kind=kind, labels=3, **pooling)
    path = to_onnx(model, tmp_path / "model.onnx")
    blueprint, weights = read_parts(path)
    assert blueprint.shape == SHAPE
    names = quantizable_modules(blueprint, weights)
    ranges = dict.fromkeys(names, (-8.0, 8.0))  # fixed, so that a text is rounded alike in every batch
    static = open_session(quantize(blueprint, weights, Int8(frozenset(names), ranges=ranges)))
    dynamic = open_session(quantize(blueprint, weights, Int8(frozenset(names))))
    distances = []
    for batch in batches(0):
        together, spread = answers(static, batch), model.predict(batch).std()
        for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
            alone = {name: value[row : row + 1, :length] for name, value in batch.items()}
            expected = answers(static, alone)[0]
            seen = together[row, :length] if kind == "tokens" else together[row]
            np.testing.assert_allclose(seen, expected, atol=1e-4)
            distances.append(np.abs(answers(dynamic, alone) - model.predict(alone)).mean() / spread)
    assert np.median(distances) < 0.2


@pytest.mark.parametrize("output", OUTPUTS)
def test_openvino_gives_the_same(make_model, tmp_path, output):
    pytest.importorskip("openvino")
    kind, pooling = OUTPUTS[output]
    model = make_model(SHAPE, kind=kind, labels=3, **pooling)
    runner = OpenVinoRunner(to_onnx(model, tmp_path / "model.onnx", fused=False), 1)
    for batch in batches(0):
        real = batch["attention_mask"].numpy().astype(bool) if kind == "tokens" else slice(None)
        seen = np.asarray(runner(runner.prepare({name: value.numpy() for name, value in batch.items()})))
        np.testing.assert_allclose(seen[real], model.predict(batch)[real], atol=1e-4)


def test_layers_run_on_the_tokens_that_remain(make_model):
    """Also the output projection and the neurons of the layer that chooses them, where the first token answers."""
    from onnx import TensorProto, helper

    expected = {"classification": {0: 32, 2: 13, 3: 1}, "tokens": {0: 40, 2: 32, 3: 13}}
    for kind, rows in expected.items():
        proto, inputs = build(*parts(make_model(SHAPE, kind=kind)))
        names = {layer: inputs[f"layers.{layer}.down"] for layer in rows}
        proto.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names.values())
        session = open_session(proto)
        ids = np.full((1, 40), 7)
        batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        sizes = [array.squeeze(0).reshape(-1, 48).shape[0] for array in session.run(list(names.values()), batch)]
        assert dict(zip(names, sizes, strict=True)) == rows


def test_a_graph_without_a_schedule_has_none_of_these_nodes(make_model):
    kinds = [node.op_type for node in build(*parts(make_model()))[0].graph.node]
    assert not {"TopK", "GatherND", "ScatterND"} & set(kinds)
