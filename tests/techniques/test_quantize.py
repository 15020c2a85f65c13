from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from limbeck.core.candidate import Candidate
from limbeck.core.measurement import machine
from limbeck.core.step import RunContext
from limbeck.core.target import Target
from limbeck.data.batching import encode, predict
from limbeck.data.loading import task_from_lists
from limbeck.data.synthetic import toy_task
from limbeck.model.checkpoints import open_model, save_model
from limbeck.model.onnx.onnx_model import OnnxModel
from limbeck.techniques.export import Export
from limbeck.techniques.quantize import Quantize

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "good",
    "bad",
    "fine",
    "dull",
    "film",
    "plot",
    "cast",
    "is",
    "not",
    "so",
)


def tokenizer():
    bare = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    bare.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="[PAD]", unk_token="[UNK]")


def labeled_by(model, fast):
    """A task that the float model solves perfectly: its labels are the model's answers."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[4:], rng.integers(1, 12))) + f" {index}" for index in range(96)]
    batch = fast(texts, padding=True, return_tensors="pt")
    logits = model.predict(batch)
    model.classifier.bias.data += torch.from_numpy(np.median(logits[:, 1] - logits[:, 0]) * np.array([1, 0])).float()
    labels = [("down", "up")[index] for index in model.predict(batch).argmax(1)]
    halves = {"train": (texts[:32], labels[:32]), "validation": (texts[32:], labels[32:])}
    return task_from_lists("toy", **halves, label_names=("down", "up"))


@pytest.fixture
def parent(make_model, tmp_path):
    """The ONNX model of a random network, one of whose matrices does not survive a scale for the whole matrix."""
    model, fast = make_model(), tokenizer()
    weight = model.encoder.layers[0].down.weight.data
    weight[0, 0] = 300.0
    task = labeled_by(model, fast)
    (exported,) = Export(parity_texts=4, parity_tolerance=1e-2).apply(
        Candidate(model, fast, task), RunContext(scratch=tmp_path / "parent")
    )
    return exported


def quality(candidate):
    encoded = encode(candidate.task, "validation", candidate.tokenizer)
    return candidate.task.score(predict(candidate.model, encoded, 1), encoded.labels)


def int8_weights(candidate):
    graph = onnx.load(candidate.model.path).graph
    return {entry.name.removesuffix(".int8") for entry in graph.initializer if entry.name.endswith(".int8")}


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_the_folder_opens_as_an_int8_model(parent, tmp_path, mode):
    notes = []
    context = RunContext(scratch=tmp_path / "scratch", log=notes.append)
    (quantized,) = Quantize(mode=mode, **Quantize.info.example).apply(parent, context)
    assert quantized.model.file == "onnx/model_quantized.onnx"
    assert len(int8_weights(quantized)) == 2 + 2 * 4 + 1  # two tables, four maps a layer, the pooler
    assert [file.name for file in (quantized.model.folder / "onnx").iterdir()] == ["model_quantized.onnx"]
    assert (quantized.model.folder / "model.safetensors").is_file()
    assert notes[-1].startswith(f"INT8 ({mode})")
    reopened, fast = open_model(quantized.model.folder)
    batch = fast(list(quantized.task.split("validation").texts[:4]), padding=True, return_tensors="pt")
    np.testing.assert_array_equal(reopened.predict(batch), quantized.model.predict(batch))


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_smooth_inputs_are_part_of_the_file_and_of_the_log(parent, tmp_path, mode, monkeypatch):
    monkeypatch.setattr("limbeck.model.onnx.post_training.SURE", 0.0)  # random texts show nothing
    model = open_model(parent.model.folder, runtime="torch")[0]
    model.encoder.layers[0].attention_norm.weight.data[5] = 60.0
    model.encoder.layers[0].down.weight.data[0, 0] = 0.3
    context = RunContext(scratch=tmp_path / "export")
    (plain,) = Export(parity_texts=4, parity_tolerance=1e-2).apply(
        Candidate(model, parent.tokenizer, parent.task), context
    )
    notes = []
    context = RunContext(scratch=tmp_path / "smooth", log=notes.append)
    (quantized,) = Quantize(mode=mode, smooth=True).apply(plain, context)
    stored = {entry.name: entry for entry in onnx.load(quantized.model.path).graph.initializer}
    inverses = {name.removesuffix(".inverse") for name in stored if name.endswith(".inverse")}
    assert "layers.0.up" in inverses
    assert inverses <= int8_weights(quantized)
    assert onnx.numpy_helper.to_array(stored["layers.0.up.inverse"]).argmin() == 5
    assert notes[-1].startswith(f"INT8 ({mode}, {len(inverses)} inputs smoothed)")
    limited = Quantize(mode=mode, smooth=True, max_drop=0.0)
    (within_limit,) = limited.apply(plain, RunContext(scratch=tmp_path / "limited", log=notes.append))
    stored = {entry.name for entry in onnx.load(within_limit.model.path).graph.initializer}
    inverses = {name.removesuffix(".inverse") for name in stored if name.endswith(".inverse")}
    assert inverses <= int8_weights(within_limit)  # what fell back to float is not divided, nor counted
    assert f"{len(inverses)} inputs smoothed" in notes[-1]


def test_smoothing_that_does_not_help_is_left_out(parent, tmp_path, monkeypatch):
    monkeypatch.setattr("limbeck.model.onnx.smooth_quant.divisors", lambda *given, **options: {"layers.0.up": uneven})
    uneven = np.geomspace(1e-4, 1e4, 32).astype(np.float32)
    notes = []
    (quantized,) = Quantize(smooth=True, **Quantize.info.example).apply(
        parent, RunContext(scratch=tmp_path / "s", log=notes.append)
    )
    assert notes[-1].startswith("INT8 (dynamic, 0 inputs smoothed)")
    assert not any(entry.name.endswith(".inverse") for entry in onnx.load(quantized.model.path).graph.initializer)


def test_an_export_in_standard_operators_stays_one(parent, tmp_path):
    """Also where parts fall back to float."""
    model = open_model(parent.model.folder, runtime="torch")[0]
    context = RunContext(scratch=tmp_path / "export")
    options = {"parity_texts": 4, "parity_tolerance": 1e-2}
    (plain,) = Export(fused=False, **options).apply(Candidate(model, parent.tokenizer, parent.task), context)
    for mode in ("dynamic", "static"):
        step = Quantize(mode=mode, per_channel=False, max_drop=0.5, **Quantize.info.example)
        (quantized,) = step.apply(plain, RunContext(scratch=tmp_path / mode))
        assert {entry.domain for entry in onnx.load(quantized.model.path).opset_import} == {""}
        assert quality(parent) - quality(quantized) <= 0.05
        assert "layers.0.down" not in int8_weights(quantized)
        assert int8_weights(quantized)


def test_the_parent_stays_as_it_was(parent, tmp_path):
    before = parent.model.path.read_bytes()
    list(Quantize().apply(parent, RunContext(scratch=tmp_path / "scratch")))
    assert parent.model.path.read_bytes() == before


def test_parts_that_hurt_fall_back_to_float_until_the_drop_holds(parent, tmp_path):
    notes = []
    harmful = Quantize(per_channel=False)
    (plain,) = harmful.apply(parent, RunContext(scratch=tmp_path / "plain"))
    assert quality(parent) - quality(plain) > 0.05
    guarded = Quantize(per_channel=False, max_drop=0.5)
    (quantized,) = guarded.apply(parent, RunContext(scratch=tmp_path / "guarded", log=notes.append))
    assert quality(parent) - quality(quantized) <= 0.05
    stayed = int8_weights(plain) - int8_weights(quantized)
    assert "layers.0.down" in stayed
    assert int8_weights(quantized), "some parts remain in 8 bits"
    assert "stay in float (layers.0.down" in notes[0]


@pytest.mark.parametrize(("mode", "batch", "largest"), [("dynamic", 8, 8), ("dynamic", 1, 1), ("static", 8, 1)])
def test_the_drop_is_decided_in_batches_as_they_will_be_served(parent, tmp_path, monkeypatch, mode, batch, largest):
    """Static ranges do not depend on the other texts of a batch."""
    predict_batch, sizes = OnnxModel.predict, []

    def recorded(model, inputs):
        if model.int8:
            sizes.append(len(inputs["input_ids"]))
        return predict_batch(model, inputs)

    monkeypatch.setattr(OnnxModel, "predict", recorded)
    step = Quantize(mode=mode, per_channel=False, max_drop=0.5, **Quantize.info.example)
    list(step.apply(parent, RunContext(scratch=tmp_path / "scratch", target=Target(batch=batch))))
    assert max(sizes) == largest


def test_keys_have_the_target_only_where_it_decides():
    task, read = toy_task(train=4), {"target": "in keys"}
    keys = {
        (step.mode, step.max_drop, target.batch, target.candidates): step.decisive_services(read, task, target)
        for step in (Quantize(), Quantize(max_drop=1.0), Quantize(mode="static", max_drop=1.0))
        for target in (Target(threads=2), Target(batch=8), Target(candidates=50), Target(batch=8, candidates=50))
    }
    assert {key: value for key, value in keys.items() if value} == {
        ("dynamic", 1.0, 8, None): read,
        ("dynamic", 1.0, 1, 50): {**read, "machine": machine()},  # sub-batches are measured
        ("dynamic", 1.0, 8, 50): read,
    }


def test_only_keys_of_models_with_early_exits_are_marked_where_logits_are_compared():
    steps = (Quantize(), Quantize(mode="static"), Quantize(smooth=True), Quantize(max_drop=1.0))
    assert [dict(step.marks({"onnx", "exits"})) for step in steps] == [{}, {}, *[{"exits": "by head"}] * 2]
    assert not any(step.marks({"onnx", "fewer_tokens"}) for step in steps)


def test_nothing_falls_back_when_the_drop_holds(parent, tmp_path):
    (quantized,) = Quantize(max_drop=100.0).apply(parent, RunContext(scratch=tmp_path / "scratch"))
    assert len(int8_weights(quantized)) == 2 + 2 * 4 + 1


def test_embeddings_may_stay_in_float(parent, tmp_path):
    (quantized,) = Quantize(embeddings=False).apply(parent, RunContext(scratch=tmp_path / "scratch"))
    assert not {name for name in int8_weights(quantized) if name.startswith("embeddings")}


@pytest.mark.parametrize(
    "options",
    [{}, {"mode": "static"}, {"smooth": True}, {"mode": "static", "smooth": True, "max_drop": 0.0}, {"max_drop": 0.0}],
    ids=["dynamic", "static", "smooth", "static-smooth-limited", "limited"],
)
@pytest.mark.parametrize("limit", [10_000, 50_000], ids=["both-large", "float-large"])
def test_a_model_too_large_for_a_protocol_buffer_is_quantized_the_same(parent, tmp_path, monkeypatch, options, limit):
    (small,) = Quantize(**options).apply(parent, RunContext(scratch=tmp_path / "small"))
    monkeypatch.setattr("limbeck.model.external.LIMIT", limit)
    model = open_model(parent.model.folder, runtime="torch")[0]
    context = RunContext(scratch=tmp_path / "large", log=(notes := []).append)
    candidate = Candidate(model, parent.tokenizer, parent.task)
    (exported,) = Export(parity_texts=4, parity_tolerance=1e-2).apply(candidate, context)
    assert (exported.model.folder / "onnx" / "model.onnx_data").is_file()
    (quantized,) = Quantize(**options).apply(exported, context)
    save_model(quantized.model, quantized.tokenizer, tmp_path / "copy")
    reopened, fast = open_model(tmp_path / "copy")
    batch = fast(list(quantized.task.split("validation").texts[:4]), padding=True, return_tensors="pt")
    np.testing.assert_array_equal(exported.model.predict(batch), parent.model.predict(batch))
    np.testing.assert_array_equal(quantized.model.predict(batch), small.model.predict(batch))
    np.testing.assert_array_equal(reopened.predict(batch), small.model.predict(batch))
    files = {file.name for file in (tmp_path / "copy" / "onnx").iterdir()}
    assert files - {"model_quantized.onnx_data"} == {"model_quantized.onnx"}
    if limit == 10_000:
        assert "model_quantized.onnx_data" in files
    assert reopened.size_bytes == sum((tmp_path / "copy" / "onnx" / name).stat().st_size for name in files)
    assert f"{exported.model.size_bytes / 1e6:.1f} MB -> {quantized.model.size_bytes / 1e6:.1f} MB" in notes[-1]
    assert quality(replace(quantized, model=reopened)) == quality(small)
