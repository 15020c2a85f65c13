from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from limbeck.core.candidate import Candidate
from limbeck.core.shape import LayerShape, Shape
from limbeck.core.step import RunContext
from limbeck.core.step_keys import identity
from limbeck.data.loading import task_from_lists
from limbeck.errors import InputError, LimbeckError
from limbeck.model.checkpoints import open_model
from limbeck.model.onnx import onnx_model as limbeck_onnx
from limbeck.techniques.export import Export

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


@pytest.fixture
def candidate(make_model):
    """A random model with ragged heads, on a toy task."""
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[4:], rng.integers(1, 12))) + f" {index}" for index in range(40)]
    labels = ["up" if "good" in text else "down" for text in texts]
    task = task_from_lists("toy", train=(texts[:24], labels[:24]), validation=(texts[24:], labels[24:]))
    model = make_model(Shape(32, 8, (LayerShape(3, 40), LayerShape(1, 0))))
    return Candidate(model, fast, task)


def test_half_precision_is_another_file_with_the_same_answers(candidate, tmp_path):
    messages, files = [], []
    for precision in ("float32", "float16"):
        step = Export(**{**Export.info.example, "precision": precision})
        context = RunContext(scratch=tmp_path / precision, log=messages.append)
        (exported,) = step.apply(candidate, context)
        files.append(exported.model.path.stat().st_size)
        exported.model.close()
    assert files[1] < files[0]
    assert all(line.startswith("ONNX gives torch's logits") and "other answers" not in line for line in messages)
    assert identity(Export()) == identity(Export(precision="float32"))
    assert "precision" not in identity(Export())  # keys are those of before there was a choice
    assert identity(Export(precision="float16"))["precision"] == "float16"
    assert [identity(Export(precision=each)).get("pooled") for each in ("float32", "float16")] == [None, "float32"]


@pytest.mark.parametrize(
    ("given", "tokens", "long"), [(None, 128, False), (None, 2, True), (True, 128, True), (False, 2, False)]
)
def test_attention_fits_the_length_of_the_texts(candidate, tmp_path, monkeypatch, given, tokens, long):
    monkeypatch.setattr("limbeck.model.onnx.graph.LONG_TEXT", tokens)
    (exported,) = Export(long_texts=given).apply(candidate, RunContext(scratch=tmp_path))
    assert limbeck_onnx.read_parts(exported.model.path)[0].long_texts is long
    assert "long_texts" not in identity(Export())


def test_logits_out_of_the_range_of_float16_are_refused(candidate, tmp_path):
    import torch

    with torch.no_grad():
        candidate.model.classifier.weight.mul_(1e6)
    list(Export(**Export.info.example).apply(candidate, RunContext(scratch=tmp_path / "full")))
    half = Export(**{**Export.info.example, "precision": "float16"})
    with pytest.raises(LimbeckError, match="logits in ONNX differ from torch"):
        list(half.apply(candidate, RunContext(scratch=tmp_path / "half")))


def test_the_folder_opens_as_the_same_model(candidate, tmp_path):
    notes = []
    (exported,) = Export(**Export.info.example).apply(candidate, RunContext(scratch=tmp_path, log=notes.append))
    assert exported.folder is None
    assert exported.model.runtime == "onnxruntime"
    assert exported.model.shape == candidate.model.shape
    reopened, tokenizer = open_model(exported.model.folder)
    batch = tokenizer(list(candidate.task.split("validation").texts), padding=True, return_tensors="pt")
    np.testing.assert_allclose(reopened.predict(batch), candidate.model.predict(batch), atol=1e-4)
    assert (exported.model.folder / "model.safetensors").is_file()
    assert "on 8 texts" in notes[0]


def test_it_needs_no_scratch_folder(candidate):
    (exported,) = Export(parity_texts=2, fused=False).apply(candidate, RunContext())
    assert exported.model.path.is_file()


def test_a_graph_that_differs_is_refused(candidate, tmp_path, monkeypatch):
    right = limbeck_onnx.parts

    def wrong(model, **options):
        blueprint, weights = right(model, **options)
        weights["layers.0.down.bias"] = weights["layers.0.down.bias"] + np.linspace(0, 1, 32, dtype=np.float32)
        return blueprint, weights

    monkeypatch.setattr(limbeck_onnx, "parts", wrong)
    with pytest.raises(LimbeckError, match=r"differ from torch by up to .* on 16 texts"):
        list(Export().apply(candidate, RunContext(scratch=tmp_path)))


def test_large_logits_may_differ_in_their_last_bits(candidate, tmp_path):
    candidate.model.classifier.bias.data += 8000.0
    (exported,) = Export(parity_texts=8).apply(candidate, RunContext(scratch=tmp_path))
    assert exported.model.path.is_file()


def test_a_wrong_graph_is_seen_beside_a_large_bias(candidate, tmp_path, monkeypatch):
    candidate.model.classifier.bias.data += 8000.0
    right = limbeck_onnx.parts

    def wrong(model, **options):
        blueprint, weights = right(model, **options)
        weights["classifier.bias"] = weights["classifier.bias"] + np.float32(0.5)
        return blueprint, weights

    monkeypatch.setattr(limbeck_onnx, "parts", wrong)
    with pytest.raises(LimbeckError, match=r"parity_tolerance 0\.001, logits up to 8e\+03"):
        list(Export().apply(candidate, RunContext(scratch=tmp_path)))


def test_logits_that_are_no_numbers_are_the_models_own(candidate, tmp_path):
    candidate.model.classifier.bias.data[0] = float("inf")
    with pytest.raises(InputError, match=r"gives no numbers for text 1 .* 1 infinite of 2"):
        list(Export().apply(candidate, RunContext(scratch=tmp_path)))


def test_the_module_imports_nothing_heavy():
    modules = "limbeck.techniques.export, limbeck.techniques.quantize"
    code = f"import json, sys, {modules}; print(json.dumps([*sys.modules]))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert not {"torch", "transformers", "onnx", "onnxruntime"} & set(loaded)
