"""Laws that every technique keeps: over the whole registry, so a new technique is tested as soon as it exists."""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from format_cost import FormatCost

import limbeck.techniques  # noqa: F401 registers the steps
from limbeck.core.candidate import Candidate, Stored
from limbeck.core.field_groups import groups_of, parameters
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.core.step import REGISTRY, RunContext, Teacher, Technique
from limbeck.data.batching import collate, encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.attention_conversion import convert
from limbeck.model.checkpoints import open_model, save_model
from limbeck.model.onnx.onnx_model import OnnxModel
from limbeck.model.pruning.slicing import Cut, slice_to
from limbeck.recipe.recipe import Recipe, parse
from limbeck.train import loop

SEVERAL_PHASES = {"pretrain_distill", "pretrain_supernet", "search"}  # many messages, and a run for each
TECHNIQUES = sorted(name for name, cls in REGISTRY.items() if issubclass(cls, Technique))
FULL = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
LINEAR = ("linformer:8", "window:3")
TASK = toy_task("classification", train=48, validation=24, test=24)
TOKENIZER = toy_tokenizer(TASK)


def step_of(name):
    cls = REGISTRY[name]
    recipe = parse({"model": "m", "task": "t", "steps": [{name: cls.info.example}]})
    return recipe.steps[0]


@pytest.fixture(scope="module")
def parents(tmp_path_factory, request):
    """A stored parent of each kind a technique may need: torch, a super-network, and ONNX; a teacher and a partner."""
    build_model = request.getfixturevalue("make_model")
    folder = tmp_path_factory.mktemp("parents")
    model = build_model(FULL, labels=TASK.num_labels, vocab_size=len(TOKENIZER), max_positions=64)
    save_model(model, TOKENIZER, folder / "torch")
    teacher = build_model(FULL, labels=TASK.num_labels, vocab_size=len(TOKENIZER), max_positions=64, seed=1)
    save_model(teacher, TOKENIZER, folder / "teacher")
    model.config.space = Space(Range(1, 2), Range(16, 32, 16), Range(1, 4), Range(32, 64, 32), Range(8, 8)).to_json()
    save_model(model, TOKENIZER, folder / "elastic")
    context = RunContext(scratch=folder / "scratch")
    for kind, name in (("torch", "onnx"), ("teacher", "partner")):
        candidate = Candidate(open_model(folder / kind, task=TASK)[0], TOKENIZER, TASK)
        (exported,) = step_of("export").apply(candidate, context)
        save_model(exported.model, TOKENIZER, folder / name)
    return folder


@pytest.fixture(scope="module")
def linear_parents(tmp_path_factory, parents):
    """The same kinds with linear attention, another core in each layer."""
    folder = tmp_path_factory.mktemp("linear")
    for kind in ("torch", "elastic", "teacher"):
        model = convert(open_model(parents / kind, task=TASK)[0], LINEAR)
        if kind == "elastic":
            model.config.space |= {"attention": list(LINEAR)}
        save_model(model, TOKENIZER, folder / kind)
    for kind, name in (("torch", "onnx"), ("teacher", "partner")):
        (exported,) = step_of("export").apply(opened(folder / kind), RunContext(scratch=folder / "scratch"))
        save_model(exported.model, TOKENIZER, folder / name)
    return folder


JUDGES = {"prune_tokens"}
"""Techniques that need softmax attention in some layer, and say so."""


@pytest.mark.parametrize("name", sorted(JUDGES))
def test_what_needs_softmax_attention_says_so(name, linear_parents, tmp_path):
    with pytest.raises(InputError, match="has softmax attention over all tokens"):
        apply(name, linear_parents, tmp_path)
    assert "attention" in step_of(name).out_of_reach(opened(linear_parents / "torch"), RunContext())


@pytest.mark.parametrize("name", [name for name in TECHNIQUES if name not in JUDGES])
def test_every_technique_takes_a_model_with_linear_attention(name, linear_parents, tmp_path):
    for child in apply(name, linear_parents, tmp_path):
        cores = [row.attention for row in child.model.shape.layers]
        assert set(cores) <= set(LINEAR) or name == "linearize"
        encoded = encode(TASK, "test", child.tokenizer)
        together, alone = predict(child.model, encoded, 8), predict(child.model, encoded, 1)
        assert np.isfinite(together).all()
        np.testing.assert_allclose(together, alone, atol=0.5 if name == "quantize" else 1e-4)


MODERN = {
    "family": "modernbert",
    "norm_first": True,
    "absolute_positions": False,
    "token_types": 0,
    "gated": True,
    "unnormed_layers": [0],
    "rotary_theta": [160_000.0, 10_000.0],
    "pooler_norm": True,
    **dict.fromkeys(("norm_bias", "attention_bias", "ffn_bias", "pooler_bias"), False),
}


@pytest.fixture(scope="module")
def modern_parents(tmp_path_factory, request):
    """The same kinds as ModernBERT: a global layer and a local one."""
    build_model, folder = request.getfixturevalue("make_model"), tmp_path_factory.mktemp("modern")
    cores = ("softmax", "local:3")
    style = MODERN | {"vocab_size": len(TOKENIZER), "layer_attention": cores}
    for kind, seed in (("torch", 0), ("teacher", 1), ("elastic", 0)):
        model = build_model(FULL.with_attention(*cores), labels=TASK.num_labels, seed=seed, **style)
        if kind == "elastic":
            ranges = (Range(1, 2), Range(16, 32, 16), Range(1, 4), Range(32, 64, 32), Range(8, 8))
            model.config.space = Space(*ranges, attention=cores).to_json()
        save_model(model, TOKENIZER, folder / kind)
    for kind, name in (("torch", "onnx"), ("teacher", "partner")):
        (exported,) = step_of("export").apply(opened(folder / kind), RunContext(scratch=folder / "scratch"))
        save_model(exported.model, TOKENIZER, folder / name)
    return folder


@pytest.mark.parametrize("name", TECHNIQUES)
def test_every_technique_takes_modernbert(name, modern_parents, tmp_path):
    for child in apply(name, modern_parents, tmp_path):
        encoded = encode(TASK, "test", child.tokenizer)
        together, alone = predict(child.model, encoded, 8), predict(child.model, encoded, 1)
        assert np.isfinite(together).all()
        tolerance = 0.15 * float(np.abs(alone).max()) if name == "quantize" else 1e-4
        np.testing.assert_allclose(together, alone, atol=tolerance)
        folder = tmp_path / "saved"
        save_model(child.model, child.tokenizer, folder)
        np.testing.assert_array_equal(logits_of(opened(folder)), logits_of(child))


def parent_folder(name, parents):
    return parents / next((trait for trait in ("onnx", "elastic") if trait in REGISTRY[name].info.needs), "torch")


def opened(folder):
    model, tokenizer = open_model(folder, task=TASK)
    return Candidate(model, tokenizer, TASK, folder)


def fake_cost(shape, number_format="int8"):
    from limbeck.core.analytic_cost import macs
    from limbeck.core.measurement import Measurement

    return Measurement("latency_p50", macs(shape, 16) * 1e-9, "s")


def context_for(parents, tmp_path, **services):
    teacher = Teacher("teacher", lambda: opened(parents / "teacher"))
    services |= {"partner": Stored("partner", lambda: opened(parents / "partner"))}
    return RunContext(teacher=teacher, cost=FormatCost(fake_cost), scratch=tmp_path / "scratch", **services)


def apply(name, parents, tmp_path, seed=0):
    step = step_of(name)
    context = RestrictedContext(
        context_for(parents, tmp_path, seed=seed), step.info
    )  # law 8: what is declared suffices
    return list(step.apply(opened(parent_folder(name, parents)), context))


def digest(folder: Path) -> str:
    text = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return text.hexdigest()


def logits_of(candidate):
    return predict(candidate.model, encode(TASK, "test", candidate.tokenizer), 8)


def widths(shape):
    """A shape without regard to its attention, which a technique may replace."""
    return replace(shape, layers=tuple(replace(row, attention="softmax") for row in shape.layers))


@pytest.mark.parametrize("name", TECHNIQUES)
def test_law_1_a_printed_step_reads_back(name):
    recipe = Recipe("m", "t", (step_of(name),))
    assert parse(yaml.safe_load(str(recipe))).steps == recipe.steps


@pytest.mark.parametrize("name", sorted(name for name, cls in REGISTRY.items() if cls.info.presets))
def test_law_1_every_preset_reads(name):
    for preset in REGISTRY[name].info.presets:
        (step,) = parse({"model": "m", "task": "t", "steps": [{name: {"preset": preset}}]}).steps
        assert step != REGISTRY[name]()


@pytest.mark.parametrize("name", TECHNIQUES)
def test_laws_2_3_4_8_same_seed_parent_untouched_shape_shrinks(name, parents, tmp_path):
    folder = parent_folder(name, parents)
    before = digest(folder)
    first, second = (apply(name, parents, tmp_path / str(run)) for run in range(2))
    assert digest(folder) == before
    assert len(first) == len(second) >= 1
    for a, b in zip(first, second, strict=True):
        assert widths(a.model.shape) <= widths(opened(folder).model.shape)
        assert a.task == b.task
        np.testing.assert_array_equal(logits_of(a), logits_of(b))


@pytest.mark.parametrize("name", TECHNIQUES)
def test_laws_5_6_padding_and_order_play_no_part(name, parents, tmp_path):
    for child in apply(name, parents, tmp_path):
        encoded = encode(TASK, "test", child.tokenizer)
        alone = np.concatenate([child.model.predict(collate(encoded, [row])) for row in range(8)])
        together = child.model.predict(collate(encoded, list(range(8))))
        backwards = child.model.predict(collate(encoded, list(range(7, -1, -1))))
        assert alone.shape == (8, TASK.num_labels)
        assert np.isfinite(alone).all()
        # a dynamic INT8 model scales activations by their range over the whole batch: near, not equal
        tolerance = 0.15 * float(np.abs(alone).max()) if "int8" in REGISTRY[name].info.gives else 1e-4
        np.testing.assert_allclose(together, alone, atol=tolerance)
        np.testing.assert_allclose(backwards[::-1], together, atol=1e-5 if tolerance < 0.01 else tolerance)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_law_7_saved_and_opened_it_answers_the_same(name, parents, tmp_path):
    for number, child in enumerate(apply(name, parents, tmp_path)):
        folder = tmp_path / f"saved-{number}"
        save_model(child.model, child.tokenizer, folder)
        again = opened(folder)
        assert again.model.shape == child.model.shape
        np.testing.assert_array_equal(logits_of(again), logits_of(child))


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", TECHNIQUES)
def test_law_4_rows_to_judge_on_stay_and_none_of_them_is_trained_on(name, parents, tmp_path):
    held_out = {name: split for name, split in TASK.splits.items() if name != "train"}
    texts = {text for split in held_out.values() for text in split.texts}
    training_texts = set(TASK.split("train").texts)
    for child in apply(name, parents, tmp_path):
        assert {name: split for name, split in child.task.splits.items() if name != "train"} == held_out
        assert not texts & (set(child.task.split("train").texts) - training_texts)
        assert (child.task.kind, child.task.label_names, child.task.metric) == (
            TASK.kind,
            TASK.label_names,
            TASK.metric,
        )


@pytest.mark.parametrize("name", [n for n in TECHNIQUES if REGISTRY[n].info.keeps_model])
def test_law_4_a_technique_that_keeps_the_model_changes_the_task_alone(name, parents, tmp_path):
    parent = opened(parent_folder(name, parents))
    for child in apply(name, parents, tmp_path):
        assert child.task.fingerprint != TASK.fingerprint
        for a, b in zip(child.model.state_dict().values(), parent.model.state_dict().values(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", [n for n in TECHNIQUES if "training" in groups_of(REGISTRY[n])])
def test_law_9_resumed_equals_uninterrupted(name, parents, tmp_path, monkeypatch):
    """Killed in the middle of training, with a checkpoint after every step, and applied again in the same scratch."""
    from limbeck.train import loop as fit

    step = step_of(name)
    step = replace(step, training=replace(step.training, save_seconds=0))
    (whole,) = step.apply(opened(parent_folder(name, parents)), context_for(parents, tmp_path / "whole"))
    seen, log = [], fit._Loop._log

    def dies(loop, progress, terms):
        seen.append(progress.step)
        if progress.step == 2 and len(seen) == 2:
            raise Killed
        log(loop, progress, terms)

    monkeypatch.setattr(fit._Loop, "_log", dies)
    context = context_for(parents, tmp_path / "killed")
    with pytest.raises(Killed):
        list(step.apply(opened(parent_folder(name, parents)), context))
    (resumed,) = step.apply(opened(parent_folder(name, parents)), context)
    assert seen[:3] == [1, 2, 2]
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n in SEVERAL_PHASES else ())
        for n in TECHNIQUES
        if not REGISTRY[n].info.trains
    ],
)
def test_law_9_killed_whenever_it_says_something_and_resumed(name, parents, tmp_path):
    """The same without training: wherever a technique is when it dies, applied again it ends as if it had not."""

    def run(scratch, dies_at=None):
        lines = []

        def log(message, **numbers):
            lines.append(message)
            if len(lines) == dies_at:
                raise Killed

        context = replace(context_for(parents, scratch), log=log)
        return list(step_of(name).apply(opened(parent_folder(name, parents)), context)), len(lines)

    whole, messages = run(tmp_path / "whole")
    for dies_at in range(1, messages + 1):
        with pytest.raises(Killed):
            run(tmp_path / str(dies_at), dies_at)
        resumed, _ = run(tmp_path / str(dies_at))
        for a, b in zip(whole, resumed, strict=True):
            assert a.task == b.task
            np.testing.assert_array_equal(logits_of(a), logits_of(b))


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_law_10_documented_with_reference_and_example(name):
    cls = REGISTRY[name]
    first = (cls.__doc__ or "").strip().splitlines()[0]
    assert first.endswith(".")
    assert isinstance(cls.info.example, dict)
    if issubclass(cls, Technique) and not cls.info.gives & {"onnx"}:  # a file format has no paper
        assert re.search(r"arXiv:\d{4}\.\d{4,5}", sys.modules[cls.__module__].__doc__ or "")
    assert set(cls.info.example) <= set(parameters(step_of(name)))


def test_sliced_equals_masked_on_a_real_task(parents):
    """The exactness that all pruning rests on, through files and tokenizer."""
    from limbeck.model.encoder import Gates

    candidate = opened(parents / "torch")
    encoded = encode(TASK, "test", TOKENIZER)
    batch = collate(encoded, list(range(8)))
    cut = Cut((0, 1), ((1, 2), (0,)), (tuple(range(0, 64, 2)), tuple(range(10))))
    gates = Gates(torch.zeros(2, 4), torch.zeros(2, 64))
    for layer in range(2):
        gates.heads[layer, list(cut.heads[layer])] = 1
        gates.ffn[layer, list(cut.ffn[layer])] = 1
    with torch.no_grad():
        masked = candidate.model.run(batch, gates=gates)[0]
        sliced = slice_to(candidate.model, cut).run(batch)[0]
    torch.testing.assert_close(sliced, masked, rtol=1e-5, atol=1e-5)


def test_onnx_equals_torch(parents):
    torch_logits, onnx_logits = (logits_of(opened(parents / kind)) for kind in ("torch", "onnx"))
    assert isinstance(opened(parents / "onnx").model, OnnxModel)
    np.testing.assert_allclose(torch_logits, onnx_logits, atol=1e-4)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_that_trains_runs_on_every_process(name, parents, tmp_path, monkeypatch):
    """The training loop waits for all processes, so all of them must run the step."""
    calls, begin = [], loop._Loop.__init__

    def counted(self, *args, **kwargs):
        calls.append(name)
        begin(self, *args, **kwargs)

    monkeypatch.setattr(loop._Loop, "__init__", counted)
    apply(name, parents, tmp_path)
    assert bool(calls) == REGISTRY[name].info.every_process
