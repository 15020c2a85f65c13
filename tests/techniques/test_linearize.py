from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.recipe.recipe import check, parse
from limbeck.techniques.finetune import Finetune
from limbeck.techniques.linearize import Linearize
from limbeck.train import loop as fit
from limbeck.train.linearization import longest

STILL = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
QUICK = {"num_train_epochs": 2, "learning_rate": 2e-3, "evaluations_per_epoch": 0, "attention": ("linformer:8",)}
GUIDES = {
    "unguided": {},
    "target": {"alpha_output": 1.0},
    "trajectory": {"teacher_update_cycle": 2, "teacher_learning_rate": 2e-3},
    "waypoint": {},
    "hybrid": {"max_distill_steps": 5},
}


def candidate(build, kind="classification", rows=128, **style):
    task = toy_task(kind, train=rows, validation=48, test=48)
    tokenizer = toy_tokenizer(task)
    model = build(labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer), **{**STILL, **style})
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(0.3)
    return Candidate(model, tokenizer, task)


@pytest.fixture(scope="module")
def taught(make_model, tmp_path_factory):
    """A fine-tuned candidate with the epochs on its way, and what makes copies of it."""
    begun = candidate(make_model, rows=512)
    before = {name: value.clone() for name, value in begun.model.state_dict().items()}
    step = Finetune.of(num_train_epochs=8, learning_rate=3e-3, keep="every_epoch")
    (finetuned,) = step.apply(begun, RunContext(scratch=tmp_path_factory.mktemp("teacher")))

    def copy(rows=128):
        again = candidate(make_model, rows=rows)
        again.model.load_state_dict(finetuned.model.state_dict())
        return replace(again, epoch_checkpoints=finetuned.epoch_checkpoints)

    return finetuned, copy, before


def lab_with(copy, **services):
    return RunContext(teacher=Teacher("teacher", copy), **services)


def weights(each):
    return {name: tensor.clone() for name, tensor in each.model.state_dict().items()}


def score(each, split="test"):
    encoded = encode(each.task, split, each.tokenizer)
    return each.task.score(predict(each.model, encoded), encoded.labels)


def test_finetune_keeps_every_epoch(taught):
    finetuned, _, before = taught
    assert [path.name for path in finetuned.epoch_checkpoints] == [
        f"epoch_{epoch:03}.safetensors" for epoch in range(9)
    ]
    first, *_, last = (load_file(path) for path in finetuned.epoch_checkpoints)
    assert all(torch.equal(first[name], value) for name, value in before.items())
    assert any(not torch.equal(last[name], value) for name, value in before.items())


def test_what_fine_tuning_keeps_does_not_change_what_it_makes(make_model, tmp_path):
    plan = {"num_train_epochs": 2, "learning_rate": 3e-3}
    (plain,) = Finetune.of(**plan).apply(candidate(make_model), RunContext())
    (finetuned,) = Finetune.of(**plan, keep="every_epoch").apply(candidate(make_model), RunContext(scratch=tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(weights(plain).values(), weights(finetuned).values(), strict=True))
    assert not plain.epoch_checkpoints


@pytest.mark.parametrize(
    "guide",
    [pytest.param(name, marks=() if name in ("hybrid", "unguided") else pytest.mark.slow) for name in sorted(GUIDES)],
)
def test_a_converted_model_learns_the_task(make_model, taught, tmp_path, guide):
    _, copy, _ = taught
    plan = {"num_train_epochs": 12, "learning_rate": 3e-3, "attention": ("linformer:8",)}
    step = Linearize.of(**plan, guide=guide, **GUIDES[guide])
    messages = []
    context = lab_with(copy, log=lambda message, **numbers: messages.append(numbers))
    start = candidate(make_model, rows=512) if guide in ("unguided", "trajectory") else copy(rows=512)
    (linear,) = step.apply(start, context)
    assert [row.attention for row in linear.model.shape.layers] == ["linformer:8"] * 2
    assert score(linear) > 0.7
    assert all(parameter.requires_grad for parameter in linear.model.parameters())
    assert any("hidden" in numbers for numbers in messages) == (guide not in ("unguided", "hybrid"))
    assert any("teacher" in numbers for numbers in messages) == (guide == "trajectory")


@pytest.mark.parametrize("kind", ["pairs", "multilabel", "regression", "tokens"])
def test_every_kind_of_task(make_model, kind):
    step = Linearize.of(**QUICK, guide="trajectory", alpha_output=0.5)
    (linear,) = step.apply(candidate(make_model, kind, rows=64), RunContext())
    assert score(linear) is not None
    assert linear.model.shape.layers[0].attention == "linformer:8"


@pytest.mark.parametrize("attention", [("linformer:8", "softmax"), ("window:3",), ("kernel",), ("kernel", "window")])
def test_any_core_in_any_layer(make_model, taught, attention):
    _, copy, _ = taught
    (linear,) = Linearize.of(**{**QUICK, "attention": attention}).apply(copy(), lab_with(copy))
    expected = [core if ":" in core or core in ("kernel", "softmax") else "window:64" for core in attention]
    assert [row.attention for row in linear.model.shape.layers] == expected * (2 // len(expected))


@pytest.mark.parametrize("guide", ["trajectory", "waypoint", "hybrid"])
def test_resumed_equals_uninterrupted(taught, tmp_path, monkeypatch, guide):
    """Killed in the middle, with a checkpoint after every step; the state of the teacher must come back, too."""
    _, copy, _ = taught
    step = Linearize.of(**QUICK, guide=guide, save_seconds=0, per_device_train_batch_size=32, **GUIDES[guide])
    (whole,) = step.apply(copy(), lab_with(copy))
    seen, log = [], fit._Loop._log

    def dies(loop, progress, terms):
        seen.append(progress.step)
        if seen == [1, 2, 3, 4, 5]:
            raise KeyboardInterrupt
        log(loop, progress, terms)

    monkeypatch.setattr(fit._Loop, "_log", dies)
    context = lab_with(copy, scratch=tmp_path / "work")
    with pytest.raises(KeyboardInterrupt):
        list(step.apply(copy(), context))
    (resumed,) = step.apply(copy(), context)
    assert seen[5] == 5
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(resumed).values(), strict=True))


def test_a_waypoint_student_begins_with_the_pretrained_weights(taught):
    _, copy, before = taught
    step = Linearize.of(**{**QUICK, "learning_rate": 1e-30, "num_train_epochs": 1}, guide="waypoint", alpha_layer=1e-9)
    (linear,) = step.apply(copy(), lab_with(copy))
    for name, value in before.items():
        torch.testing.assert_close(linear.model.state_dict()[name], value)
    (linear,) = replace(step, guidance=replace(step.guidance, start="candidate")).apply(copy(), lab_with(copy))
    assert any(not torch.equal(linear.model.state_dict()[name], value) for name, value in before.items())


def test_only_the_projections_are_trained_at_first(taught):
    _, copy, _ = taught
    start = {name: value.clone() for name, value in copy().model.state_dict().items()}
    (linear,) = Linearize.of(**QUICK, freeze_steps=1000).apply(copy(), lab_with(copy))
    after = weights(linear)
    assert all(torch.equal(after[name], value) for name, value in start.items())
    (free,) = Linearize.of(**QUICK, freeze_steps=2).apply(copy(), lab_with(copy))
    assert any(not torch.equal(weights(free)[name], value) for name, value in start.items())
    lengths = [name for name in after if name.endswith("lengths")]
    assert len(lengths) == 4
    assert any(not torch.equal(after[name], weights(free)[name]) for name in lengths)


def test_longer_texts(make_model):
    start = candidate(make_model, max_positions=40)
    (linear,) = Linearize.of(**QUICK, guide="trajectory", max_length=100).apply(start, RunContext())
    assert longest(linear.model) == linear.tokenizer.model_max_length == 100
    roberta = candidate(make_model, max_positions=40, position_offset=1, pad_token_id=1)
    (linear,) = Linearize.of(**QUICK, guide="unguided", max_length=100).apply(roberta, RunContext())
    assert longest(linear.model) == 100
    assert linear.model.config.max_positions == 102


@pytest.mark.parametrize("guide", ["unguided", "trajectory"])
def test_a_teacher_that_only_gives_the_weights_to_begin_with_need_not_read_as_much(taught, guide):
    _, copy, _ = taught
    step = Linearize.of(**QUICK, guide=guide, start="pretrained", max_length=100)
    (linear,) = step.apply(copy(), lab_with(copy))
    assert longest(linear.model) == 100


def test_projections_of_another_size_are_new(taught):
    _, copy, _ = taught
    (linear,) = Linearize.of(**QUICK).apply(copy(), lab_with(copy))
    start = {name: value.clone() for name, value in linear.model.state_dict().items() if not name.endswith("lengths")}
    step = Linearize.of(**QUICK | {"attention": ("linformer:8", "linformer:6"), "freeze_steps": 1000})
    (linear_again,) = step.apply(linear, lab_with(copy))
    after = weights(linear_again)
    assert all(torch.equal(after[name], value) for name, value in start.items())


def test_texts_longer_than_the_model_reads_are_refused_unless_it_is_made_longer_first(tmp_path):
    from limbeck.recipe.checks import check_lengths
    from limbeck.recipe.recipe import placed_steps

    def messages_of(*steps):
        recipe = parse({"model": "minilm-l6", "task": "movie-reviews", "steps": list(steps)})
        check_lengths("minilm-l6", None, replace(toy_task(train=8), max_length=2000), placed_steps(recipe))

    longer = {"linearize": {"guide": "unguided", "max_length": 2048}}
    messages_of(longer, {"finetune": {}})
    messages_of({"fork": [[longer], [longer, {"finetune": {}}]]})
    short = {"linearize": {"guide": "unguided", "max_length": 1024}}
    for steps in ([{"finetune": {}}, longer], [{"fork": [[longer], []]}], [short], [{"linearize": {}}]):
        with pytest.raises(InputError, match="max_length 2000, but 'minilm-l6' takes at most 512"):
            messages_of(*steps)


def test_what_is_wrong_with_the_fields():
    def problems(**fields):
        data = {"model": "minilm-l6", "task": "movie-reviews", "steps": [{"finetune": {}}, {"linearize": fields}]}
        return [str(problem) for problem in check(data)]

    assert not problems()
    assert "attention 'linformr'; did you mean 'linformer'?" in problems(attention=["linformr"])[0]
    assert "softmax alone changes nothing" in problems(attention=["softmax"])[0]
    assert "share: projections belong to linformer" in problems(attention=["kernel"], share="kv")[0]
    assert "max_distill_steps belongs to guide: hybrid" in problems(guide="hybrid")[0]
    assert "max_distill_steps belongs to guide: hybrid" in problems(max_distill_steps=3)[0]
    assert "guide: target has no weight" in problems(alpha_layer=0)[0]
    assert "freeze_steps: only linformer" in problems(attention=["window"], freeze_steps=3)[0]


def test_a_guide_that_is_fine_tuned_must_be_there():
    def problems(guide, **fields):
        data = {"model": "minilm-l6", "task": "movie-reviews", "steps": [{"linearize": {"guide": guide, **fields}}]}
        return [str(problem) for problem in check(data)]

    assert not problems("unguided")
    assert not problems("trajectory")
    for guide in ("target", "waypoint"):
        assert "needs 'teacher'; put 'finetune' before it" in problems(guide)[0]
    assert "needs 'teacher'" in problems("unguided", start="pretrained")[0]


def test_what_cannot_be_guided_is_refused(make_model, taught):
    _, copy, _ = taught
    step = Linearize.of(**QUICK)
    with pytest.raises(InputError, match=r"has 3 cores, the model 2 layers; give one for all"):
        list(replace(step, attention=("kernel",) * 3).apply(copy(), lab_with(copy)))
    with pytest.raises(InputError, match=r"kept no epochs; give it 'finetune: \{keep: every_epoch\}'"):
        list(
            replace(step, guidance=replace(step.guidance, guide="waypoint")).apply(
                copy(), lab_with(lambda: replace(copy(), epoch_checkpoints=()))
            )
        )
    short = replace(copy(), epoch_checkpoints=copy().epoch_checkpoints[:1])  # fine-tuned for half an epoch
    with pytest.raises(InputError, match=r"kept no epochs; give it .*, of one epoch at least"):
        list(replace(step, guidance=replace(step.guidance, guide="waypoint")).apply(copy(), lab_with(lambda: short)))
    with pytest.raises(InputError, match="the teacher reads 64 tokens, so it cannot guide at 100; use guide: traj"):
        list(replace(step, max_length=100).apply(copy(), lab_with(copy)))
    with pytest.raises(InputError, match="guide target has no teacher"):
        list(step.apply(copy(), RunContext()))
    (linear,) = step.apply(copy(), lab_with(copy))
    with pytest.raises(InputError, match="has these projections already"):
        list(replace(step, guidance=replace(step.guidance, freeze_steps=2)).apply(linear, lab_with(copy)))
    with pytest.raises(InputError, match=r"those of another model than the candidate \(.*\); use start: candidate"):
        list(replace(step, guidance=replace(step.guidance, guide="waypoint")).apply(linear, lab_with(copy)))


def test_the_shape_is_foretold():
    shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    (step,) = parse({"model": "m", "task": "t", "steps": [{"linearize": {"attention": ["kernel", "linformer"]}}]}).steps
    assert [row.attention for row in step.shape_after(shape).layers] == ["kernel", "linformer:256"]
    assert replace(step, attention=("kernel",) * 3).shape_after(shape) is None


def test_waypoints_are_followed_as_if_the_teacher_had_kept_them(make_model, tmp_path):
    """Folders of epochs, written and read back, give the same student as the teacher's own epochs."""
    from limbeck.model.kept_weights import write_kept_weights

    task = toy_task(train=32, validation=8)
    tokenizer = toy_tokenizer(task)

    def model(seed):
        return make_model(labels=task.num_labels, vocab_size=len(tokenizer), seed=seed)

    files = []
    for number in range(3):
        files.append(tmp_path / f"epoch_00{number}.safetensors")
        save_file({name: value.contiguous() for name, value in model(number).state_dict().items()}, files[-1])
    write_kept_weights(model(9), tokenizer, files, tmp_path / "dense")
    students = []
    for checkpoints in (None, str(tmp_path / "dense")):
        teacher = Candidate(model(2), tokenizer, task, epoch_checkpoints=tuple(files))
        step = Linearize.of(
            attention=("linformer:8",),
            guide="waypoint",
            checkpoints=checkpoints,
            num_train_epochs=1,
            learning_rate=1e-3,
        )
        context = RunContext(
            teacher=Teacher("t", lambda teacher=teacher: teacher), scratch=tmp_path / f"s{checkpoints is None}"
        )
        (student,) = step.apply(Candidate(model(5), tokenizer, task), context)
        students.append(student.model.state_dict())
    assert all(torch.equal(students[0][name], value) for name, value in students[1].items())
    assert "has no effect with guide: target" in Linearize.of(checkpoints="dense").problems()[0]
    assert "there is no folder nowhere" in Linearize.of(guide="waypoint", checkpoints="nowhere").file_problems()[0]
