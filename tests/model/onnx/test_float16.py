"""Graphs in half precision beside those in float32 and beside torch, in every family and attention."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from family_models import CASES, ours

from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.model import external
from limbeck.model.attention_conversion import convert
from limbeck.model.checkpoints import open_model
from limbeck.model.onnx.export import HALF_TOLERANCE
from limbeck.model.onnx.float16 import half, to_float16
from limbeck.model.onnx.graph import build
from limbeck.model.onnx.onnx_model import answer, open_session, parts, read_parts, to_onnx, write
from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize

SHAPE = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)


def close(model, batch, fused):
    """Assert that both precisions give torch's logits, each within its tolerance."""
    graph, _ = build(*parts(model, fused=fused))
    truth = model.predict(batch)
    real = batch["attention_mask"].numpy().astype(bool) if truth.ndim == 3 else slice(None)
    spread = max(1.0, float(np.abs(truth[real] - np.median(truth[real])).max()))
    exact, rough = (answer(open_session(each), batch)[real] for each in (graph, to_float16(graph)))
    assert rough.dtype == np.float32
    assert np.abs(exact - truth[real]).max() < 1e-3 * spread
    assert 0 < np.abs(rough - truth[real]).max() < HALF_TOLERANCE * spread


@pytest.mark.parametrize("case", [case for case in CASES if case.endswith("small")])
@pytest.mark.parametrize("fused", [True, False])
def test_every_family(case, fused, make_batch):
    model, batch = ours(case), make_batch()
    if model.style.token_types < 2:
        del batch["token_type_ids"]
    close(model, batch, fused)


@pytest.mark.parametrize("core", ["linformer:4", "window:3", "kernel"])
@pytest.mark.parametrize("fused", [True, False])
def test_every_attention(core, fused, make_model, make_batch):
    close(convert(make_model(SHAPE), (core, core)).eval(), make_batch(), fused)


@pytest.mark.parametrize("kind", ["tokens", "embedding"])
def test_tokens_and_vectors(kind, make_model, make_batch):
    close(make_model(SHAPE, kind=kind), make_batch(), True)


def test_a_text_of_padding_alone_has_finite_logits(make_model, make_batch):
    batch = make_batch()
    batch["attention_mask"][1] = 0
    for fused in (True, False):
        graph = to_float16(build(*parts(make_model(SHAPE), fused=fused))[0])
        assert np.isfinite(answer(open_session(graph), batch)).all()


def test_nodes_stay_and_bytes_are_halved(make_model, tmp_path):
    model = make_model(SHAPE, vocab_size=5000)
    full, small = (to_onnx(model, tmp_path / f"{name}.onnx", precision=name) for name in ("float32", "float16"))
    before, after = (Counter(node.op_type for node in onnx.load(path).graph.node) for path in (full, small))
    assert after == before + Counter({"Cast": 1})
    assert small.stat().st_size < 0.55 * full.stat().st_size
    onnx.checker.check_model(onnx.load(small))
    floats = {entry.data_type for entry in onnx.load(small).graph.initializer} & {onnx.TensorProto.FLOAT}
    assert not floats


def test_weights_come_back_in_float32(make_model, make_batch, tmp_path):
    """So that INT8 can be made of such a file."""
    model = make_model(SHAPE)
    blueprint, weights = read_parts(to_onnx(model, tmp_path / "half.onnx", precision="float16"))
    assert {array.dtype for array in weights.values() if array.dtype.kind == "f"} == {np.dtype("float32")}
    again = answer(open_session(build(blueprint, weights)[0]), make_batch())
    np.testing.assert_allclose(again, model.predict(make_batch()), atol=0.02)


def test_graphs_beyond_one_protocol_buffer(make_model, make_batch, tmp_path, monkeypatch):
    model = make_model(SHAPE)
    whole = to_float16(build(*parts(model))[0])
    monkeypatch.setattr(external, "LIMIT", 1000)
    large = to_float16(build(*parts(model))[0])
    assert isinstance(large, external.LargeGraph)
    assert {array.dtype for array in large.arrays.values()} == {np.dtype("float16")}
    sessions = (open_session(whole), open_session(large), open_session(write(large, tmp_path / "large.onnx")))
    expected, *others = (answer(session, make_batch()) for session in sessions)
    for logits in others:
        np.testing.assert_array_equal(logits, expected)


def test_a_quantized_graph_is_refused(make_model):
    graph_parts = parts(make_model(SHAPE))
    with pytest.raises(InputError, match="in INT8 cannot be converted"):
        to_float16(quantize(*graph_parts, Int8(frozenset(quantizable_modules(*graph_parts)))))


def test_constants_stay_within_the_range():
    array = half(np.array([-1e9, 7e4, -0.0, 1e-9], dtype=np.float32))
    assert array.tolist() == [-32752.0, 32752.0, 0.0, 0.0]
    assert float(half(np.float32(1e-38))) > 0  # divided by


@pytest.mark.slow
def test_a_real_model_gives_the_same_answers_on_real_texts(tmp_path):
    from limbeck.data.calibration import first_batches
    from limbeck.data.loading import load_task
    from limbeck.engine.run import run
    from limbeck.recipe.recipe import Recipe
    from limbeck.techniques.finetune import Finetune

    task = load_task({"path": "movie-reviews", "limit": {"train": 512, "validation": 300, "test": 10}})
    recipe = Recipe(
        "minilm-l6", "movie-reviews", (Finetune.of(num_train_epochs=1, linear_probe=False),), allow_weak_teacher=True
    )
    result = run(recipe, tmp_path / "store", tmp_path / "run", task=task, progress=False)
    model, tokenizer = open_model(result.stored(result.front[0])[0])
    session = open_session(to_onnx(model, tmp_path / "half.onnx", precision="float16"))
    differences, same = [], 0
    for batch in first_batches(task, "validation", tokenizer, 300)[0]:
        truth, rough = model.predict(batch), answer(session, batch)
        differences.append(np.abs(truth - rough).max())
        same += int((truth.argmax(-1) == rough.argmax(-1)).sum())
    assert max(differences) < HALF_TOLERANCE
    assert same == 300
