"""Laws that techniques keep for models of vectors: pairs of texts with scores, and texts with a model's vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from format_cost import FormatCost

import limbeck.techniques  # noqa: F401 registers the steps
from limbeck.core.analytic_cost import macs
from limbeck.core.candidate import Candidate
from limbeck.core.measurement import Measurement
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.core.step import REGISTRY, RunContext, Teacher, Technique
from limbeck.core.task import Split, Task
from limbeck.data.batching import collate, encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.model.checkpoints import open_model, save_model
from limbeck.recipe.recipe import parse
from limbeck.techniques.export import Export

TECHNIQUES = sorted(name for name, cls in REGISTRY.items() if issubclass(cls, Technique))
FULL = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
PAIRS = toy_task("embedding", train=48, validation=24, test=24)
TOKENIZER = toy_tokenizer(PAIRS)


@pytest.fixture(scope="module")
def parents(tmp_path_factory, make_model):
    """A stored parent of each kind that a technique may need, and texts with the vectors of the teacher."""
    folder = tmp_path_factory.mktemp("vectors")
    model = make_model(FULL, kind="embedding", vocab_size=len(TOKENIZER))
    save_model(model, TOKENIZER, folder / "torch")
    save_model(make_model(FULL, kind="embedding", vocab_size=len(TOKENIZER), seed=1), TOKENIZER, folder / "teacher")
    (exported,) = Export().apply(Candidate(model, TOKENIZER, PAIRS), RunContext(scratch=folder / "scratch"))
    save_model(exported.model, TOKENIZER, folder / "onnx")
    model.keep_width()
    model.config.space = Space(Range(1, 2), Range(16, 32, 16), Range(1, 4), Range(32, 64, 32), Range(8, 8)).to_json()
    save_model(model, TOKENIZER, folder / "elastic")
    return folder


@pytest.fixture(scope="module")
def tasks(parents):
    """Pairs with scores, and single texts of which those held out have the vectors of the teacher."""
    splits = {}
    for name, rows in PAIRS.splits.items():
        alone = replace(PAIRS, splits={name: Split(rows.texts, rows.labels)})
        model, tokenizer = open_model(parents / "teacher", task=PAIRS)
        vectors = [tuple(row) for row in predict(model, encode(alone, name, tokenizer)).tolist()]
        splits[name] = Split(rows.texts, tuple([()] * len(vectors) if name == "train" else vectors))
    return {
        "pairs": PAIRS,
        "texts": Task("texts", "embedding", splits, (), "mean_cosine", 32, answered_by="teacher"),
    }


def opened(folder, task):
    model, tokenizer = open_model(folder, task=task)
    return Candidate(model, tokenizer, task, folder)


def step_of(name, task):
    cls = REGISTRY[name]
    example = dict(cls.info.example)
    if task.answered_by is not None:
        example.pop("task_weight", None)
    return parse({"model": "m", "task": "t", "steps": [{name: example}]}).steps[0]


def apply(name, parents, task, folder):
    step = step_of(name, task)
    trait = next((trait for trait in ("onnx", "elastic") if trait in step.info.needs), "torch")
    teacher = Teacher("teacher", lambda: opened(parents / "teacher", task))

    def cost(shape, number_format="int8"):
        return Measurement("latency_p50", macs(shape, 16) * 1e-9, "s")

    context = RunContext(teacher=teacher, cost=FormatCost(cost), scratch=folder / "scratch")
    return list(step.apply(opened(parents / trait, task), RestrictedContext(context, step.info)))


@pytest.mark.parametrize("kind", ["pairs", "texts"])
@pytest.mark.parametrize("name", TECHNIQUES)
def test_vectors_keep_their_width_do_not_depend_on_padding_and_survive_a_folder(name, kind, parents, tasks, tmp_path):
    task = tasks[kind]
    if problems := step_of(name, task).task_problems(task):
        assert all(" " in reason for reason in problems.values())
        return
    for number, child in enumerate(apply(name, parents, task, tmp_path)):
        encoded = encode(child.task, "test", child.tokenizer)
        together, alone = predict(child.model, encoded, 8), predict(child.model, encoded, 1)
        assert np.isfinite(alone).all()
        if REGISTRY[name].info.trains or name == "search":
            assert alone.shape[1] == (64 if kind == "pairs" else 32) or name in ("pretrain_distill", "weight_sharing")
        tolerance = 0.15 if "int8" in REGISTRY[name].info.gives else 1e-4
        np.testing.assert_allclose(together, alone, atol=tolerance)
        save_model(child.model, child.tokenizer, tmp_path / f"saved-{number}")
        again = opened(tmp_path / f"saved-{number}", child.task)
        np.testing.assert_array_equal(predict(again.model, encoded, 8), together)


@pytest.mark.parametrize("kind", ["pairs", "texts"])
@pytest.mark.parametrize("name", ["supernet", "search"])
def test_slices_of_vectors_are_the_same_for_the_same_seed(name, kind, parents, tasks, tmp_path):
    task = tasks[kind]
    first, second = (apply(name, parents, task, tmp_path / str(run)) for run in range(2))
    encoded = encode(task, "test", TOKENIZER)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(predict(a.model, encoded, 8), predict(b.model, encoded, 8))


def test_a_slice_makes_the_vector_that_the_super_network_makes_of_it(parents, tasks, tmp_path):
    from limbeck.model.pruning.subnetwork import extract

    (child,) = apply("supernet", parents, tasks["texts"], tmp_path)
    small = Space.from_json(child.model.space).smallest
    batch = collate(encode(tasks["texts"], "test", TOKENIZER), range(8))
    sliced = child.model.run(batch, shape=small)[0].detach()
    assert small.hidden < FULL.hidden
    assert sliced.shape == (8, FULL.hidden)
    np.testing.assert_allclose(extract(child.model, small).run(batch)[0].detach(), sliced, atol=1e-5)


def test_a_super_network_takes_the_width_of_a_wider_teacher(parents, tasks, tmp_path, make_model):
    task = tasks["pairs"]
    wide = make_model(Shape.uniform(2, 48, 4, 64), kind="embedding", vocab_size=len(TOKENIZER))
    save_model(wide, TOKENIZER, tmp_path / "wide")
    context = RunContext(teacher=Teacher("wide", lambda: opened(tmp_path / "wide", task)), scratch=tmp_path / "scratch")
    (child,) = step_of("supernet", task).apply(opened(parents / "torch", task), context)
    batch = collate(encode(task, "test", TOKENIZER), range(4))
    for shape in (None, Space.from_json(child.model.space).smallest):
        assert child.model.run(batch, shape=shape)[0].shape == (4, 2 * 48)
