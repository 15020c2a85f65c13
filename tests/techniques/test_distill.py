from functools import partial

import pytest
import torch
from transformers import BertConfig, BertModel

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher, problems_of
from limbeck.data.batching import collate, encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.checkpoints import save_model
from limbeck.techniques.distill import Distill
from limbeck.train.layer_distillation import LayerDistillationConfig
from limbeck.train.objectives import Outputs

SMALL = Shape.uniform(layers=1, hidden=32, heads=2, ffn=16, head_dim=8)


def toy_candidate(build, kind="classification", shape=None, seed=0, rows=64):
    task = toy_task(kind, train=rows, validation=24, test=24)
    tokenizer = toy_tokenizer(task)
    model = build(shape, labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer), seed=seed)
    return Candidate(model, tokenizer, task)


def lab_with(teacher, **services):
    return RunContext(teacher=Teacher("teacher", lambda: teacher), **services)


def kept_in(folder, built):
    """A ``keep`` that makes every folder once and writes down which."""

    def keep(name, build):
        path = folder / name
        if not path.exists():
            built.append(name)
            path.mkdir()
            build(path)
        return path

    return keep


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_new_output_layer_is_fitted_before_the_phase_of_the_answers(make_model, epochs):
    teacher = toy_candidate(make_model, seed=1)
    student = toy_candidate(make_model, seed=2)
    student.model.fresh_head = True
    lines = []
    context = lab_with(teacher, log=lambda message, **numbers: lines.append(message) if message else None)
    step = Distill.of(
        match=("logits", "hidden"), num_train_epochs=1, intermediate_epochs=epochs, evaluations_per_epoch=0
    )
    list(step.apply(student, context))
    steps = [line for line in lines if "new head was fitted" in line or " steps in " in line]
    assert [" steps in " in line for line in steps] == [True] * bool(epochs) + [False, True]


@pytest.mark.parametrize("kind", ["classification", "pairs", "multilabel", "regression", "tokens"])
def test_a_student_comes_nearer_to_its_teacher(make_model, kind):
    teacher = toy_candidate(make_model, kind, seed=1)
    student = toy_candidate(make_model, kind, SMALL, seed=2)
    encoded = encode(teacher.task, "train", teacher.tokenizer)
    goal = predict(teacher.model, encoded)

    def distance():
        logits = predict(student.model, encoded)
        return sum(float(abs(a - b).mean()) for a, b in zip(logits, goal, strict=True))

    before = distance()
    step = Distill.of(num_train_epochs=4, learning_rate=3e-3, evaluations_per_epoch=0, logits_loss="mse")
    (distilled,) = step.apply(student, lab_with(teacher))
    assert distilled.model is student.model
    assert distance() < 0.8 * before


def test_the_teachers_logits_are_computed_once(make_model, tmp_path):
    teacher, built = toy_candidate(make_model, seed=1), []
    for seed in (0, 1):
        student = toy_candidate(make_model, shape=SMALL, seed=seed)
        list(Distill.of(num_train_epochs=1).apply(student, lab_with(teacher, keep=kept_in(tmp_path, built), seed=seed)))
    assert len(built) == 1
    assert built[0].startswith("logits-")


@pytest.mark.parametrize("kind", ["classification", "tokens"])
def test_a_second_student_costs_no_pass_of_the_teacher(make_model, tmp_path, kind):
    teacher, built = toy_candidate(make_model, kind, seed=1), []
    keep = kept_in(tmp_path, built)
    match = {"match": ("logits", "hidden", "attention", "relations"), "cache_teacher": True}
    plan = {"num_train_epochs": 1, "learning_rate": 1e-3, "evaluations_per_epoch": 0}
    shapes = [Shape.uniform(layers=1, hidden=32, heads=4, ffn=16), Shape.uniform(layers=1, hidden=16, heads=4, ffn=8)]

    student = toy_candidate(make_model, kind, shapes[0], seed=2)
    list(Distill.of(**match, **plan).apply(student, lab_with(teacher, keep=keep)))
    assert len(built) == len(set(built)) == 1 + 2 + 1 + 3  # logits, hidden states of embeddings and last layer, ...

    def fail(*args, **options):
        raise AssertionError("the teacher was asked")

    teacher.model.run = fail
    second = toy_candidate(make_model, kind, shapes[1], seed=3)
    list(Distill.of(**match, **plan).apply(second, lab_with(teacher, keep=keep)))
    assert len(built) == 7


def test_cached_outputs_teach_what_live_ones_do(make_model, tmp_path):
    distilled = {}
    for cached in (False, True):
        teacher = toy_candidate(make_model, seed=1)
        student = toy_candidate(make_model, shape=Shape.uniform(layers=1, hidden=16, heads=4, ffn=16), seed=2)
        step = Distill.of(
            match=("logits", "hidden", "attention"), num_train_epochs=2, learning_rate=1e-3, cache_teacher=cached
        )
        list(step.apply(student, lab_with(teacher, scratch=tmp_path / str(cached))))
        distilled[cached] = student.model.state_dict()
    for name, weights in distilled[False].items():
        torch.testing.assert_close(distilled[True][name], weights, rtol=1e-2, atol=2e-3)


RANKING = {"match": ("logits", "token_ranking"), "num_train_epochs": 1, "learning_rate": 1e-3}
FEWER = Shape.uniform(layers=3, hidden=32, heads=4, ffn=16).with_tokens(0.7, 0.4, 0.4)
WHOLE = Shape.uniform(layers=4, hidden=16, heads=2, ffn=16)


@pytest.mark.parametrize("kind", ["classification", "tokens", "embedding"])
def test_tokens_are_ranked_as_by_the_teacher(make_model, kind):
    """Of another width, depth and number of heads."""
    teacher, student = toy_candidate(make_model, kind, WHOLE, seed=1), toy_candidate(make_model, kind, FEWER, seed=2)
    (_, term) = LayerDistillationConfig().terms(("token_ranking",), student, teacher, "distill")["token_ranking"]
    encoded = encode(teacher.task, "train", teacher.tokenizer)
    batch = collate(encoded, range(32))

    @torch.no_grad()
    def loss():
        sides = (side.model.eval().run(batch, taps=("attention", "positions")) for side in (student, teacher))
        return float(term(*(Outputs(*side) for side in sides), batch))

    before = loss()
    step = Distill.of(match=("token_ranking",), num_train_epochs=4, learning_rate=3e-3, evaluations_per_epoch=0)
    (distilled,) = step.apply(student, lab_with(teacher))
    assert distilled.model.shape == FEWER
    assert loss() < 0.95 * before


def test_a_cached_teacher_ranks_as_a_live_one(make_model):
    distilled = {}
    for cached in (False, True):
        teacher, student = toy_candidate(make_model, shape=WHOLE, seed=1), toy_candidate(make_model, shape=FEWER)
        list(Distill.of(**RANKING, cache_teacher=cached).apply(student, lab_with(teacher)))
        distilled[cached] = student.model.state_dict()
    for name, weights in distilled[False].items():
        torch.testing.assert_close(distilled[True][name], weights, rtol=1e-2, atol=2e-3)


def test_a_ranking_has_a_phase_of_its_own(make_model):
    teacher, student = toy_candidate(make_model, shape=WHOLE, seed=1), toy_candidate(make_model, shape=FEWER, seed=2)
    phases = []
    step = Distill.of(**RANKING, intermediate_epochs=1)
    assert not step.problems()
    list(step.apply(student, lab_with(teacher, log=lambda message, **numbers: phases.append(set(numbers)))))
    assert any("token_ranking" in names and "logits" not in names for names in phases)
    assert any("logits" in names and "token_ranking" not in names for names in phases)


def test_a_ranking_needs_layers_that_leave_tokens_behind(make_model):
    step = Distill.of(match=("token_ranking",))
    assert step.trait_problems({"torch", "teacher"}) == [
        "match: token_ranking is for students whose layers pass on fewer tokens than they read; "
        "put prune_tokens before it"
    ]
    assert step.trait_problems({"torch", "teacher", "fewer_tokens"}) == []
    sides = (toy_candidate(make_model, seed=seed) for seed in (1, 2))
    with pytest.raises(InputError, match="distill: token_ranking is for students whose layers pass on fewer tokens"):
        list(step.apply(next(sides), lab_with(next(sides))))


def test_a_teacher_that_lacks_tokens_cannot_rank_them(make_model):
    teacher, student = toy_candidate(make_model, "pairs", seed=1), toy_candidate(make_model, shape=FEWER)
    with pytest.raises(InputError, match="lacks tokens of the student"):
        list(Distill.of(match=("token_ranking",)).apply(student, lab_with(teacher)))


def test_a_further_teacher_must_be_a_trained_model(tmp_path):
    assert "teachers: " in Distill.of(teachers=(str(tmp_path / "none"),)).file_problems()[0]
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=30, **sizes)).save_pretrained(tmp_path / "headless")
    assert "no trained head" in Distill.of(teachers=(str(tmp_path / "headless"),)).file_problems()[0]
    assert not Distill.of(teachers=("owner/name",)).file_problems()  # the hub may know it


def test_a_further_teacher_of_other_labels_is_named_with_both(make_model, tmp_path):
    first, other = toy_candidate(make_model, seed=1), toy_candidate(make_model, "tokens", seed=2)
    save_model(other.model, other.tokenizer, tmp_path / "other")
    step = Distill.of(teachers=(str(tmp_path / "other"),))
    with pytest.raises(InputError, match=r"was not trained for the labels of this task \(sad, happy, angry\)"):
        list(step.apply(toy_candidate(make_model, shape=SMALL), lab_with(first)))


def test_fields_without_effect_are_told():
    assert "cache_teacher" in Distill.of(cache_teacher=True).problems()[0]
    assert "match needs logits" in Distill.of(match=("hidden",), teachers=("a",)).problems()[0]


def test_two_phases_are_two_steps(make_model):
    """TinyBERT's intermediate phase is a step of its own without answers, its prediction phase one without the rest."""
    teacher = toy_candidate(make_model, seed=1)
    shape = Shape.uniform(layers=1, hidden=16, heads=4, ffn=16)
    distilled = {}
    for name in ("at once", "one by one"):
        student = toy_candidate(make_model, shape=shape, seed=2)
        inside, learn = {"match": ("hidden", "attention"), "shared_projection": True}, {"learning_rate": 1e-3}
        if name == "at once":
            phases = {"intermediate_epochs": 2, "intermediate_learning_rate": 2e-3, "num_train_epochs": 1}
            steps = [Distill.of(**inside | {"match": ("logits", "hidden", "attention")}, **phases, **learn)]
        else:
            first = Distill.of(**inside, num_train_epochs=2, learning_rate=2e-3, evaluations_per_epoch=0)
            steps = [first, Distill.of(match=("logits",), num_train_epochs=1, **learn)]
        for step in steps:
            (student,) = step.apply(student, lab_with(teacher))
        distilled[name] = student.model.state_dict()
    assert all(torch.equal(distilled["at once"][key], value) for key, value in distilled["one by one"].items())


def test_two_phases_need_something_for_each():
    assert Distill.of(intermediate_epochs=1).problems()
    assert Distill.of(intermediate_epochs=1, match=("hidden",)).problems()
    assert not Distill.of(intermediate_epochs=1, match=("hidden",), task_weight=1.0).problems()
    assert not Distill().problems()


def test_all_kinds_of_loss_together(make_model):
    teacher = toy_candidate(make_model, seed=1)
    student = toy_candidate(make_model, shape=Shape.uniform(layers=1, hidden=32, heads=4, ffn=16))
    logged = []
    step = Distill.of(
        num_train_epochs=1,
        per_device_train_batch_size=4,
        match=("logits", "hidden", "attention", "relations"),
        task_weight=0.5,
    )
    list(step.apply(student, lab_with(teacher, log=lambda message, **numbers: logged.append(numbers))))
    seen = next(numbers for numbers in logged if "loss" in numbers)
    parts = ("task", "logits", "hidden", "attention", "relations")
    expected = sum(seen[name] * (0.5 if name == "task" else 1.0) for name in parts)
    assert seen["loss"] == pytest.approx(expected, rel=1e-4)


def test_hidden_states_of_another_width_pass_a_projection_that_is_trained(make_model, monkeypatch):
    teacher = toy_candidate(make_model, seed=1)
    student = toy_candidate(make_model, shape=Shape.uniform(layers=2, hidden=16, heads=2, ffn=16))
    config = LayerDistillationConfig()
    terms = config.terms(("hidden",), student, teacher, "distill")
    monkeypatch.setattr(LayerDistillationConfig, "terms", lambda *sides: terms)
    projections = list(terms["hidden"][1].parameters())
    before = [p.detach().clone() for p in projections]
    list(Distill.of(match=("hidden",), num_train_epochs=1, learning_rate=1e-2).apply(student, lab_with(teacher)))
    assert all(not torch.equal(a, b) for a, b in zip(before, projections, strict=True))


def test_projections_depend_on_the_seed_alone(make_model):
    """Whatever the process did before: a resumed run must draw the same ones."""
    projections = []
    for noise in (1, 2):
        teacher = toy_candidate(make_model, seed=1)
        student = toy_candidate(make_model, shape=Shape.uniform(layers=1, hidden=16, heads=2, ffn=16))
        torch.manual_seed(noise)
        (done,) = Distill.of(match=("hidden",), num_train_epochs=1).apply(student, lab_with(teacher, seed=3))
        projections.append(done.model.state_dict())
    assert all(torch.equal(projections[0][name], projections[1][name]) for name in projections[0])


def test_another_vocabulary_is_refused_where_tokens_are_shared(make_model):
    teacher, student = toy_candidate(make_model, "pairs", seed=1), toy_candidate(make_model, shape=SMALL)
    with pytest.raises(InputError, match="lacks tokens of the student"):
        list(Distill.of(match=("hidden",)).apply(student, lab_with(teacher)))


def test_attention_of_other_heads_is_compared_as_relations(make_model):
    """Whatever the number of heads, the preset of TinyBERT has something to imitate; a line says what."""
    teacher, messages, distilled = toy_candidate(make_model, seed=1), [], []
    for match in (("hidden", "attention"), ("hidden", "relations")):
        student = toy_candidate(make_model, shape=SMALL, seed=2)
        context = lab_with(teacher, log=lambda message, **numbers: messages.append(message))
        list(Distill.of(match=match, num_train_epochs=1, learning_rate=1e-3).apply(student, context))
        distilled.append(student.model.state_dict())
    assert all(distilled[0][name].equal(distilled[1][name]) for name in distilled[0])
    assert "attention is compared as relations: the student has 2 heads, the teacher 4" in messages


BAD = {
    "no teacher": (Distill(), SMALL, None, "put 'finetune' before it"),
    "deeper": (
        Distill.of(match=("hidden",)),
        Shape.uniform(layers=3, hidden=32, heads=4, ffn=8),
        1,
        "3 layers, more than its teacher's 2",
    ),
    "relation heads": (Distill.of(match=("relations",), relation_heads=3), SMALL, 1, "does not divide .* use [24]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_before_any_training(make_model, name):
    step, shape, seed, message = BAD[name]
    build = partial(toy_candidate, make_model)
    context = RunContext() if seed is None else lab_with(build(seed=seed))
    with pytest.raises(InputError, match=message):
        list(step.apply(build(shape=shape), context))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"hidden_weight": 2.0}, "hidden_weight: has no effect without hidden in match"),
        ({"token_ranking_weight": 2.0}, "token_ranking_weight: has no effect without token_ranking in match"),
        ({"match": ["hidden"], "temperature": 1.0}, "temperature: has no effect without logits in match"),
        ({"logits_loss": "mse", "temperature": 1.0}, "temperature: has no effect with logits_loss: mse"),
        ({"intermediate_learning_rate": 1e-4}, "intermediate_learning_rate: has no effect without intermediate_epochs"),
    ],
)
def test_weights_of_what_is_not_imitated_are_refused(fields, problem):
    (reported,) = problems_of(Distill.of(**fields))
    assert problem in reported


def test_every_preset_has_an_effect():
    for fields in Distill.info.presets.values():
        assert not Distill.of(**fields).problems()
    states = Distill.info.presets["fastformers-states"]
    assert states["hidden_weight"] == 2 / states["per_device_train_batch_size"]


def test_leading_components_come_nearer_to_the_teachers(make_model):
    teacher, student = (toy_candidate(make_model, "embedding", seed=seed) for seed in (1, 2))
    encoded = encode(teacher.task, "train", teacher.tokenizer)
    goal = predict(teacher.model, encoded)

    def cosine():
        parts = (torch.tensor(rows).reshape(-1, 32)[:, :8] for rows in (predict(student.model, encoded), goal))
        return float(torch.nn.functional.cosine_similarity(*parts).mean())

    before = cosine()
    step = Distill.of(num_train_epochs=4, learning_rate=3e-3, evaluations_per_epoch=0, matryoshka=[8])
    (distilled,) = step.apply(student, lab_with(teacher))
    assert distilled.model is student.model
    assert cosine() > before + 0.2
