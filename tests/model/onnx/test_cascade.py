"""Two models in one graph: each answers what it would answer alone."""

from __future__ import annotations

import json

import exiting_models
import numpy as np
import onnx
import pytest
from scipy.special import softmax

from limbeck.core.cascade import cascade_logits
from limbeck.core.early_exits import EarlyExits
from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.measure.backends import make_runner
from limbeck.measure.service.graph_check import check_graph
from limbeck.model import external
from limbeck.model.checkpoints import save_model
from limbeck.model.onnx.builder import all_initializers, all_nodes
from limbeck.model.onnx.cascade import add_prefix, write_cascade
from limbeck.model.onnx.float16 import to_float16
from limbeck.model.onnx.graph import build
from limbeck.model.onnx.onnx_model import FLOAT_FILE, INT8_FILE, OnnxModel, parts, read_parts, write
from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize
from limbeck.model.onnx.vnni_emulation import integer, saturating

SMALL = Shape.uniform(layers=1, hidden=16, heads=2, ffn=24)
LARGE = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64).with_layer(1, heads=2)
ROBERTA = {"token_types": 1, "position_offset": 1, "pad_token_id": 1}


def exported(model, folder, form="float"):
    """A model as an ONNX folder, in a format."""
    blueprint, weights = parts(model, fused=form != "standard")
    if form == "int8":
        graph = quantize(blueprint, weights, Int8(frozenset(quantizable_modules(blueprint, weights))))
    else:
        graph, _ = build(blueprint, weights)
    graph = to_float16(graph) if form == "float16" else graph
    file = INT8_FILE if form == "int8" else FLOAT_FILE
    write(graph, folder / file)
    return OnnxModel(folder, file, {**model.config.to_dict(), "model_type": "limbeck"})


def alone(batch, row):
    length = int(batch["attention_mask"][row].sum())
    return {name: value[row : row + 1, :length] for name, value in batch.items() if name != "labels"}


def rows_of(model, batch):
    return np.concatenate([model.predict(alone(batch, row)) for row in range(len(batch["input_ids"]))])


def middle(logits, criterion="confidence"):
    """A threshold that half of the texts reach."""
    shares = softmax(logits.astype(float), axis=-1)
    sure = shares.max(-1) if criterion == "confidence" else -(shares * np.log(shares)).sum(-1)
    return float(np.median(sure))


@pytest.mark.parametrize("criterion", ["confidence", "entropy"])
@pytest.mark.parametrize(
    "forms",
    [("float", "float"), ("int8", "int8"), ("int8", "float"), ("standard", "float16")],
    ids=lambda forms: "-".join(forms),
)
def test_every_text_has_the_answer_of_one_of_both(make_model, make_batch, tmp_path, forms, criterion):
    models = [
        exported(make_model(shape, labels=3, seed=seed), tmp_path / str(seed), form)
        for seed, (shape, form) in enumerate(zip((SMALL, LARGE), forms, strict=True))
    ]
    batch = make_batch(rows=16)
    small, large = (rows_of(model, batch) for model in models)
    threshold = middle(small, criterion)
    cascade = write_cascade(*models, tmp_path / "made", threshold=threshold, criterion=criterion)
    assert cascade.file == (INT8_FILE if "int8" in forms else FLOAT_FILE)
    assert cascade.int8 == ("int8" in forms)
    answers = rows_of(cascade, batch)
    rule = EarlyExits((1,), criterion, threshold)
    expected = cascade_logits(rule, small, large)
    assert 0 < (expected == small).all(-1).mean() < 1
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    together = [model.predict(batch) for model in models]
    np.testing.assert_allclose(cascade.predict(batch), cascade_logits(rule, *together), atol=1e-5)
    if "int8" not in forms:  # its ranges span a batch
        np.testing.assert_allclose(cascade.predict(batch), expected, atol=2e-2 if "float16" in forms else 1e-5)


def test_the_larger_model_is_in_a_branch_with_its_weights(make_model, tmp_path):
    models = [exported(make_model(shape, seed=1), tmp_path / str(shape.depth)) for shape in (SMALL, LARGE)]
    cascade = write_cascade(*models, tmp_path / "made", threshold=0.9)
    proto = external.load(cascade.path)
    outer = {entry.name for entry in proto.graph.initializer}
    (branching,) = [node for node in proto.graph.node if node.op_type == "If"]
    inner = {entry.name for attribute in branching.attribute for entry in attribute.g.initializer}
    assert "small.layers.0.up.weight" in outer
    assert "large.layers.2.up.weight" in inner
    assert not [name for name in outer if name.startswith("large.")]
    assert len(outer | inner) == len(list(all_initializers(proto.graph)))
    sizes = [sum(external.array_of(each, entry).nbytes for entry in all_initializers(each.graph)) for each in
             (proto, *(external.load(model.path) for model in models))]  # fmt: skip
    assert 0 <= sizes[0] - sizes[1] - sizes[2] < 100  # the threshold
    assert [entry.name for entry in proto.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    onnx.checker.check_model(str(cascade.path))


def test_models_may_leave_early_themselves(make_model, make_batch, tmp_path):
    rule = EarlyExits(exiting_models.LAYERS, "confidence", 0.6)
    deep = Shape.uniform(layers=4, hidden=32, heads=4, ffn=64)
    large = exported(exiting_models.with_exits(make_model, deep, rule), tmp_path / "large")
    small = exported(exiting_models.with_exits(make_model, deep, rule), tmp_path / "small")
    other = exported(make_model(SMALL, labels=3), tmp_path / "other")
    batch = make_batch(rows=12)
    for pair in ((other, large), (small, exported(make_model(LARGE, labels=3, seed=2), tmp_path / "plain"))):
        logits = [rows_of(model, batch) for model in pair]
        threshold = middle(logits[0])
        cascade = write_cascade(*pair, tmp_path / "made", threshold=threshold)
        expected = cascade_logits(EarlyExits((1,), "confidence", threshold), *logits)
        np.testing.assert_allclose(rows_of(cascade, batch), expected, atol=1e-5)


def test_the_prefix_reaches_names_that_branches_read_from_outside(make_model, tmp_path):
    rule = EarlyExits(exiting_models.LAYERS, "confidence", 0.6)
    model = exported(exiting_models.with_exits(make_model, Shape.uniform(4, 32, 4, 64), rule), tmp_path)
    graph = external.load(model.path)
    add_prefix(graph, "x.")
    read = {name for node in all_nodes(graph.graph.node) for name in (*node.input, *node.output) if name}
    assert {name for name in read if not name.startswith("x.")} == {"input_ids", "attention_mask", "token_type_ids"}
    assert list(all_initializers(graph.graph)) == []


def test_inputs_are_those_that_one_of_both_reads(make_model, make_batch, tmp_path):
    small = exported(make_model(SMALL, **ROBERTA), tmp_path / "small")
    large = exported(make_model(LARGE), tmp_path / "large")
    assert small.inputs == {"input_ids", "attention_mask"}
    cascade = write_cascade(small, large, tmp_path / "made", threshold=0.9)
    assert cascade.inputs == {"input_ids", "attention_mask", "token_type_ids"}
    assert np.isfinite(cascade.predict(make_batch())).all()


def test_the_configuration_has_both_shapes_and_a_saved_folder_no_code(make_model, tmp_path):
    from limbeck.data.synthetic import toy_task, toy_tokenizer
    from limbeck.model.checkpoints import open_model, peek

    models = [exported(make_model(shape), tmp_path / str(shape.depth)) for shape in (SMALL, LARGE)]
    cascade = write_cascade(*models, tmp_path / "made", threshold=0.9)
    save_model(cascade, toy_tokenizer(toy_task()), tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["layer_heads"] == [4, 2, 4]
    assert config["cascade"]["small"]["layer_heads"] == [2]
    assert "auto_map" not in config
    assert not list((tmp_path / "saved").glob("*.py"))
    again, _ = open_model(tmp_path / "saved")
    assert again.cascade == cascade.cascade
    assert peek(tmp_path / "saved")["traits"] == {"onnx", "cascade"}
    with pytest.raises(InputError, match="saved"):
        open_model(tmp_path / "saved", runtime="torch")


def test_a_cascade_is_neither_quantized_nor_part_of_another(make_model, tmp_path):
    models = [exported(make_model(shape), tmp_path / str(shape.depth)) for shape in (SMALL, LARGE)]
    cascade = write_cascade(*models, tmp_path / "made", threshold=0.9)
    with pytest.raises(InputError, match="holds the two models of a cascade; quantize each"):
        read_parts(cascade.path)
    with pytest.raises(InputError, match="is a cascade already"):
        write_cascade(models[0], cascade, tmp_path / "again", threshold=0.9)
    other = exported(make_model(SMALL, labels=3), tmp_path / "other")
    with pytest.raises(InputError, match="the same classes; these have 3 and 2"):
        write_cascade(other, models[1], tmp_path / "again", threshold=0.9)


def test_processors_without_vnni_are_emulated_in_both_models(make_model, make_batch, tmp_path):
    models = [
        exported(make_model(shape, seed=seed), tmp_path / str(seed), "int8")
        for seed, shape in enumerate((SMALL, LARGE))
    ]
    cascade = write_cascade(*models, tmp_path / "made", threshold=0.9)
    _, pairs = saturating(integer(external.load(cascade.path)))
    assert pairs == sum(saturating(integer(external.load(model.path)))[1] for model in models)


def test_other_runtimes_and_a_measuring_service_take_it(make_model, make_batch, tmp_path):
    pytest.importorskip("openvino")
    models = [
        exported(make_model(shape, labels=3, seed=seed), tmp_path / str(seed), "standard")
        for seed, shape in enumerate((SMALL, LARGE))
    ]
    batch = make_batch(rows=12)
    cascade = write_cascade(*models, tmp_path / "made", threshold=middle(rows_of(models[0], batch)))
    check_graph(cascade.path, 59)
    with pytest.raises(InputError, match="its vocabulary has 60 tokens"):
        check_graph(cascade.path, 60)
    runner = make_runner(cascade, threads=1, runtime="openvino")
    for some in (batch, *(alone(batch, row) for row in range(12))):
        arrays = {name: np.asarray(value) for name, value in some.items() if name != "labels"}
        np.testing.assert_allclose(runner(runner.prepare(arrays)), cascade.predict(arrays), atol=1e-5)


def test_weights_that_do_not_fit_one_file_lie_beside_it(make_model, make_batch, tmp_path, monkeypatch):
    monkeypatch.setattr(external, "LIMIT", 10_000)
    models = [
        exported(make_model(shape, labels=3, seed=seed), tmp_path / str(seed))
        for seed, shape in enumerate((SMALL, LARGE))
    ]
    batch = make_batch(rows=12)
    small, large = (rows_of(model, batch) for model in models)
    cascade = write_cascade(*models, tmp_path / "made", threshold=middle(small))
    assert cascade.path.with_name("model.onnx_data").is_file()
    expected = cascade_logits(cascade.cascade.exits, small, large)
    np.testing.assert_allclose(rows_of(cascade, batch), expected, atol=1e-5)
