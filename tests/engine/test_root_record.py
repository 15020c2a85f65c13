from dataclasses import replace

import pytest
from exported_pairs import exported

from limbeck.core.candidate import Record
from limbeck.core.early_exits import EarlyExits
from limbeck.core.shape import Shape
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.root_record import check_graph, check_traits, root_record, untrained
from limbeck.errors import InputError
from limbeck.model.checkpoints import peek, save_model
from limbeck.model.early_exits import add_exits, set_rule
from limbeck.model.onnx.cascade import write_cascade
from limbeck.model.onnx.export import to_onnx
from limbeck.model.onnx.onnx_model import FLOAT_FILE, OnnxModel
from limbeck.techniques.prune import Prune
from limbeck.techniques.quantize import Quantize


@pytest.mark.parametrize(("role", "traits"), [("model", {"torch"}), ("teacher", {"torch", "teacher"})])
def test_a_trained_model(make_model, role, traits):
    model = make_model(Shape.uniform(layers=1, hidden=8, heads=2, ffn=8))
    model.fresh_head = False
    record = root_record("k", role, "folder", model)
    assert (record.step, record.traits, record.shape, record.parameters) == (
        role,
        traits,
        model.shape,
        {"source": "folder"},
    )
    assert untrained(record) == ""


def test_the_note_of_a_fresh_head_says_what_is_missing(make_model):
    model = make_model(Shape.uniform(layers=1, hidden=8, heads=2, ffn=8))
    model.fresh_head, model.untrained = True, "classifier.weight is missing"
    assert untrained(root_record("k", "model", "folder", model)) == (
        "has no trained head for this task: classifier.weight is missing"
    )


def test_a_model_with_early_exits_says_so(make_model):
    model = make_model(Shape.uniform(layers=2, hidden=8, heads=2, ffn=8))
    add_exits(model, EarlyExits((1,)))
    assert "exits" not in root_record("k", "model", "folder", model).traits
    set_rule(model, EarlyExits((1,), "confidence", 0.9))
    assert "exits" in root_record("k", "model", "folder", model).traits


def test_a_model_whose_layers_pass_on_fewer_tokens_says_so(make_model):
    shape = Shape.uniform(layers=2, hidden=8, heads=2, ffn=8)
    assert "fewer_tokens" not in root_record("k", "model", "folder", make_model(shape)).traits
    assert "fewer_tokens" in root_record("k", "model", "folder", make_model(shape.with_tokens(0.5, 0.5))).traits


@pytest.mark.parametrize("threshold", [None, 0.9])
def test_the_configuration_alone_says_the_same(make_model, tmp_path, threshold):
    shape = Shape.uniform(layers=3, hidden=8, heads=2, ffn=8).with_tokens(1.0, 0.5, 0.5)
    model, tokenizer = make_model(shape), toy_tokenizer(toy_task())
    add_exits(model, EarlyExits((1,)))
    set_rule(model, EarlyExits((1,), "confidence", threshold))
    save_model(model, tokenizer, tmp_path / "torch")
    assert peek(tmp_path / "torch")["traits"] == root_record("k", "model", "", model).traits
    to_onnx(model, tmp_path / FLOAT_FILE)
    written = OnnxModel(tmp_path, FLOAT_FILE, {**model.config.to_dict(), "model_type": "limbeck"})
    save_model(written, tokenizer, tmp_path / "saved")
    assert peek(tmp_path / "saved")["traits"] == root_record("k", "model", "", written).traits


def test_a_step_that_cannot_take_a_model_is_refused():
    bare = Record("k", None, "model", {}, None, frozenset({"torch"}))
    check_traits(Prune.of(keep=0.5), bare, {"teacher"})
    with pytest.raises(InputError, match="prune needs a candidate with torch; k has none"):
        check_traits(Prune.of(keep=0.5), replace(bare, traits=frozenset({"onnx"})), set())
    with pytest.raises(InputError, match="prune would change the weights"):
        check_traits(Prune.of(keep=0.5), replace(bare, traits=frozenset({"torch", "exits"})), {"teacher"})
    fewer = replace(bare, traits=frozenset({"torch", "fewer_tokens"}))
    check_traits(Prune.of(keep=0.5), fewer, set())
    with pytest.raises(InputError, match="prune: hidden: needs layers that read all tokens"):
        check_traits(Prune.of(hidden=6), fewer, set())


def test_a_cascade_says_so_and_is_no_model_to_quantize(make_model, tmp_path):
    small, large = (exported(make_model, tmp_path / str(layers), layers, seed=layers).model for layers in (1, 2))
    cascade = write_cascade(small, large, tmp_path / "made", threshold=0.9)
    record = root_record("k", "model", "folder", cascade)
    assert record.traits == {"onnx", "cascade"}
    assert root_record("k", "model", "folder", large).traits == {"onnx"}
    with pytest.raises(InputError, match="quantize is for single models, and a cascade holds two; put it before"):
        check_traits(Quantize(), record, set())


def test_a_damaged_graph_is_an_error_when_a_run_begins(make_model, tmp_path):
    model = exported(make_model, tmp_path).model
    check_graph(model)
    model.close()
    model.path.write_bytes(model.path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"model\.onnx"):
        check_graph(model)
