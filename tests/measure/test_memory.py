from __future__ import annotations

from dataclasses import replace

import pytest
from exported_pairs import exported as exported_model

from limbeck.core.candidate import Candidate
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext
from limbeck.core.target import Target
from limbeck.errors import StoreError
from limbeck.measure import memory
from limbeck.measure.memory import Memory, Size
from limbeck.model.checkpoints import open_model
from limbeck.model.onnx.cascade import write_cascade
from limbeck.model.onnx.onnx_model import to_onnx


def context(probe):
    return RestrictedContext(RunContext(), probe.info)


def test_memory_is_what_serving_adds(exported):
    ((index, fact),) = Memory(samples=2).measure([exported], context(Memory))
    assert (index, fact.name, fact.unit) == (0, "memory_peak", "B")
    assert 0 < fact.value < fact.detail["baseline"]
    assert fact.detail["runtime"] == "onnxruntime, model.onnx"


def test_on_a_gpu_its_memory_is_a_second_fact(exported, monkeypatch):
    """What the process there answers is pretended."""
    sent = {}

    def pretended(function, payload, threads):
        sent.update(payload, function=function)
        return {"baseline": 5, "peak": 9, "device": 7, "words": "words"}

    monkeypatch.setattr("limbeck.measure.isolation.run_isolated", pretended)
    monkeypatch.setattr("limbeck.measure.backends.check_models", lambda *_: None)
    target = Target(device="cuda", precision="float16")
    there = RestrictedContext(RunContext(target=target), Memory.info)
    facts = [fact for _, fact in Memory(samples=2).measure([exported], there)]
    assert [(fact.name, fact.value, fact.target) for fact in facts] == [
        ("memory_peak", 4.0, str(target)),
        ("device_memory_peak", 7.0, str(target)),
    ]
    assert (sent["device"], sent["precision"]) == ("cuda", "float16")


@pytest.mark.gpu
def test_the_weights_are_in_the_memory_of_the_gpu(make_model, tokenizer, task):
    large = make_model(Shape.uniform(layers=4, hidden=1024, heads=16, ffn=4096))
    target = Target(device="cuda", runtime="torch")
    there = RestrictedContext(RunContext(target=target), Memory.info)
    facts = dict((fact.name, fact) for _, fact in Memory(samples=2).measure([Candidate(large, tokenizer, task)], there))
    weights = sum(parameter.numel() * 4 for parameter in large.parameters())
    assert weights < facts["device_memory_peak"].value < 3 * weights


def test_the_peak_is_at_least_what_is_resident():
    assert memory.peak() >= 0.9 * memory.resident() > 0


def test_size_of_a_torch_model_and_its_export(candidate, exported):
    facts = {(index, fact.name): fact for index, fact in Size(samples=40).measure([candidate, exported], context(Size))}
    parameters = sum(parameter.numel() for parameter in candidate.model.parameters())
    assert facts[0, "parameters"].value == facts[1, "parameters"].value == parameters
    assert facts[0, "size"].value == 4 * parameters
    assert facts[1, "size"].value == exported.model.path.stat().st_size
    assert facts[0, "macs"].value == facts[1, "macs"].value > 0
    assert facts[0, "macs"].detail["mean_tokens"] == pytest.approx(20, abs=4)


def test_a_stored_model_counts_its_file(exported, candidate):
    stored = replace(candidate, folder=exported.folder)
    sizes = [fact.value for _, fact in Size(samples=4).measure([stored], context(Size)) if fact.name == "size"]
    assert sizes == [(exported.folder / "model.safetensors").stat().st_size]


def test_weights_that_are_gone_have_no_size(exported, candidate, tmp_path):
    """0 bytes would be kept as a fact, and meet any budget."""
    stored = replace(candidate, folder=tmp_path)
    for weights in (None, b""):
        if weights is not None:
            (tmp_path / "model.safetensors").write_bytes(weights)
        with pytest.raises(StoreError, match="no weights to measure"):
            memory.stored_bytes(stored)
    path = exported.model.path.rename(exported.model.path.with_suffix(".away"))
    try:
        with pytest.raises(StoreError, match=r"model\.onnx has no weights"):
            memory.stored_bytes(exported)
    finally:
        path.rename(exported.model.path)


def test_a_narrower_model_is_smaller_in_every_respect(candidate, make_model):
    narrow = replace(candidate, model=make_model(Shape.uniform(2, 32, 4, 64).with_layer(0, heads=1, ffn=8)))
    facts = list(Size(samples=4).measure([candidate, narrow], context(Size)))
    for (_, wide), (_, thin) in zip(facts[:3], facts[3:], strict=True):
        assert thin.value < wide.value


@pytest.mark.slow
def test_the_size_of_a_large_export_counts_its_data(exported, monkeypatch):
    monkeypatch.setattr("limbeck.model.external.LIMIT", 10_000)
    small = exported.model.size_bytes
    to_onnx(open_model(exported.folder, runtime="torch")[0], exported.model.path)
    (exported.model.path.parent / "model.onnx.bak").write_bytes(b"an old copy")
    (fact,) = [fact for _, fact in Size(samples=4).measure([exported], context(Size)) if fact.name == "size"]
    data = exported.model.path.with_name("model.onnx_data")
    assert fact.value == exported.model.path.stat().st_size + data.stat().st_size == exported.model.size_bytes
    assert fact.value > 0.9 * small
    ((_, peak),) = Memory(samples=2).measure([exported], context(Memory))  # another process opens it
    assert peak.value > 0


def test_a_cascade_counts_the_parameters_and_operations_of_both_models(make_model, tmp_path):
    sides = [exported_model(make_model, tmp_path / str(layers), layers) for layers in (1, 3)]
    cascade = write_cascade(*(side.model for side in sides), tmp_path / "made", threshold=0.9)
    measured = [
        {fact.name: fact.value for _, fact in Size().measure([candidate], context(Size))}
        for candidate in (*sides, replace(sides[1], model=cascade))
    ]
    for name in ("parameters", "macs"):
        assert measured[2][name] == measured[0][name] + measured[1][name]
    assert measured[2]["size"] > measured[0]["size"] + measured[1]["size"] - 5000
