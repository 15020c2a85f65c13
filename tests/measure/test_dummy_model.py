import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from limbeck.core.analytic_cost import as_shape
from limbeck.core.candidate import Candidate
from limbeck.core.shape import LayerShape, Shape
from limbeck.core.target import Target
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.measure.dummy_model import Setting, graph_of, inputs, runner_of, stand_in, style_of
from limbeck.measure.samples import typical_batch, typical_length
from limbeck.model.encoder import Style

RAGGED = Shape(32, 8, (LayerShape(4, 64), LayerShape(1, 16), LayerShape(0, 32)))


@pytest.mark.parametrize("number_format", ["float", "int8"])
@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_stand_in_answers_in_the_runtime(number_format, per_token, runtime):
    pytest.importorskip(runtime)
    setting = Setting(style_of(Style()), Target(runtime=runtime, batch=3), number_format, 7, per_token)
    runner = runner_of(RAGGED, setting)
    logits = runner(runner.prepare(inputs(setting)))
    assert logits.shape[:1] == (3,)
    assert logits.ndim == (3 if per_token else 2)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_padding_is_a_word_of_the_small_vocabulary(runtime):
    """ModernBERT's is token 50,283."""
    style = style_of(Style(pad_token_id=50_283))
    setting = Setting(style, Target(runtime=runtime, batch=2), seq_len=7, text_lengths=(7, 3))
    runner = runner_of(RAGGED, setting)
    assert np.isfinite(runner(runner.prepare(inputs(setting)))).all()


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_a_stand_in_answers_in_half_precision(runtime):
    answers = []
    for precision in ("float32", "float16"):
        setting = Setting(style_of(Style()), Target(runtime=runtime, batch=3, precision=precision), seq_len=7)
        assert Setting.from_json(setting.to_json()) == setting
        torch.manual_seed(0)
        runner = runner_of(RAGGED, setting)
        answers.append(runner(runner.prepare(inputs(setting))))
    assert 0 < np.abs(answers[0] - answers[1]).max() < 0.02
    assert setting.form == "float16"
    assert replace(setting, number_format="int8").form == "int8"
    assert replace(setting, target=Target(runtime="torch", compile=True)).form == "float, compiled"


def test_int8_is_not_timed_on_a_gpu():
    with pytest.raises(InputError, match="INT8 graphs are made for processors"):
        Setting(style_of(Style()), Target(device="cuda"), "int8").check()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_shapes_are_timed_on_a_gpu(precision):
    from limbeck.cost_models.collection import Collection, time_group

    target = Target("cuda", "torch", batch=8, precision=precision)
    setting = Setting(style_of(Style()), target, seq_len=64)
    setting.check()
    small, large = (Shape.uniform(layers, hidden=768, heads=12, ffn=3072) for layers in (2, 12))
    plan = Collection((small, large), (setting,), rounds=8, calls=3, seconds=0.0)
    seconds = time_group(plan.shapes, setting, plan)
    assert 1.5 * np.median(seconds[0]) < np.median(seconds[1])


def test_it_has_the_shape_and_travels_as_plain_data():
    setting = Setting(style_of(Style()), Target(runtime="torch"))
    assert as_shape(stand_in(RAGGED, setting).shape) == RAGGED
    assert Setting.from_json(setting.to_json()) == setting


@pytest.mark.parametrize(
    ("options", "nodes"),
    [
        ({"relative_buckets": 32, "relative_heads": 4}, {"Range"}),
        ({"pos_att_type": ("c2p",)}, {"FusedMatMul"}),
        ({"rotary_theta": (1e4, 1e4, 1e4)}, {"RotaryEmbedding"}),
    ],
)
def test_it_has_the_positions_of_its_family(options, nodes):
    style = Style(**options, max_relative_positions=16, masks_queries="pos_att_type" in options)
    setting = Setting(style_of(style), Target(runtime="onnxruntime"), "int8", 7)
    assert Setting.from_json(json.loads(json.dumps(setting.to_json()))) == setting
    graph = graph_of(RAGGED, setting)
    assert nodes <= {node.op_type for node in graph.graph.node}
    assert style_of(Style()).keys() == style_of(Style(dropout=0.3)).keys() < setting.style.keys()


def test_batches_are_padded_as_those_of_the_texts(candidate):
    whole = Setting.of(candidate, Target(runtime="onnxruntime", batch=4, seq_len=9), "int8")
    assert inputs(whole)["attention_mask"].sum(1).tolist() == [9] * 4
    assert "text_lengths" not in whole.to_json()
    padded = Setting.of(candidate, Target(runtime="onnxruntime", batch=4), "int8")
    assert Setting.from_json(json.loads(json.dumps(padded.to_json()))) == padded
    batch = inputs(padded)
    assert tuple(batch["attention_mask"].sum(1)) == padded.text_lengths == typical_batch(candidate, 4)
    assert batch["attention_mask"].min() == 0
    assert ((batch["input_ids"] == padded.style["pad_token_id"]) == (batch["attention_mask"] == 0)).all()
    assert not Setting.of(candidate, Target(runtime="onnxruntime"), "int8").text_lengths


def test_graphs_for_long_texts_are_those_of_the_texts():
    def attention(setting):
        assert Setting.from_json(json.loads(json.dumps(setting.to_json()))) == setting
        return {node.op_type for node in graph_of(RAGGED, setting).graph.node} & {"QAttention", "If"}

    style, target = style_of(Style()), Target(runtime="onnxruntime")
    assert attention(Setting(style, target, "int8", 32)) == {"QAttention"}
    assert attention(Setting(style, target, "int8", 128)) == {"If"}
    assert attention(Setting(style, target, "int8", 128, long_texts=False)) == {"QAttention"}  # cut to a fixed length
    assert attention(Setting(style, target, "int8", 32, long_texts=True)) == {"If"}
    old = Setting(style, target, "int8", 128).to_json()
    del old["long_texts"]  # as files from before have it
    assert Setting.from_json(old) == Setting(style, target, "int8", 128, long_texts=False)
    assert not Setting(style, Target(runtime="torch"), seq_len=512, long_texts=True).long_texts


def test_vectors_are_stood_in_for_by_an_average(make_model):
    """The last layer of a first-token classifier would be cheaper than that of any model of vectors."""
    task = toy_task("embedding")
    candidate = Candidate(make_model(), toy_tokenizer(task), task)
    setting = Setting.of(candidate, Target(), "float")
    assert setting.reads_all
    assert stand_in(RAGGED, setting).encoder.style.pooling == "mean"
    texts = toy_task()
    setting = Setting.of(Candidate(make_model(), toy_tokenizer(texts), texts), Target(), "float")
    assert not setting.reads_all
    assert setting.seq_len == typical_length(Candidate(make_model(), toy_tokenizer(texts), texts))


def test_int8_is_not_timed_in_torch():
    with pytest.raises(InputError, match="the target says torch"):
        Setting(style_of(Style()), Target(runtime="torch"), "int8").check()
