import pytest
import torch
from safetensors.torch import load_file

from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.train.config import TrainingConfig, kept_steps
from limbeck.train.finetuning import target_scale, train_on_task
from limbeck.train.kept_steps import keep_steps
from limbeck.train.objectives import Progress, Weighted
from limbeck.train.task_loss import TaskLoss


def train(make_model, task, scratch, steps, phase="", every=0):
    tokenizer = toy_tokenizer(task)
    model = make_model(labels=task.num_labels, vocab_size=len(tokenizer), kind=task.kind)
    config = TrainingConfig(
        num_train_epochs=steps / 4,
        per_device_train_batch_size=8,
        evaluations_per_epoch=0,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        save_steps=every,
    )
    objective, scale = Weighted({"task": (1.0, TaskLoss(model.loss))}), target_scale(task)
    train_on_task(Candidate(model, tokenizer, task), objective, config, RunContext(scratch=scratch), phase, scale)
    return model.state_dict()


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_what_is_kept_is_what_a_shorter_training_ends_with(make_model, tmp_path, kind):
    task = toy_task(kind, train=32, validation=8)
    train(make_model, task, tmp_path / "long", 6, every=2)
    files = kept_steps(tmp_path / "long")
    assert [path.name for path in files] == [f"step_00000{step}.safetensors" for step in (2, 4, 6)]
    for steps, file in zip((2, 4, 6), files, strict=True):
        shorter = train(make_model, task, tmp_path / f"short{steps}", steps)
        assert all(torch.allclose(tensor, shorter[name], atol=1e-6) for name, tensor in load_file(file).items())
    assert kept_steps(tmp_path / "short2") == kept_steps(None) == ()


def test_phases_do_not_overwrite_each_other(make_model, tmp_path):
    for phase in ("inside", "answers"):
        keep_steps(make_model(), 5, tmp_path, phase)(Progress(5, 9))
    assert [path.stem for path in kept_steps(tmp_path)] == ["answers_step_000005", "inside_step_000005"]
    keep_steps(make_model(), 0, tmp_path)(Progress(5, 9))
    keep_steps(make_model(), 5, None)(Progress(5, 9))
    assert len(kept_steps(tmp_path)) == 2
