from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from limbeck.train.distillation_losses import HiddenLoss
from limbeck.train.linearization import EpochCheckpoints, GuidedLoss, guided, unguided
from limbeck.train.objectives import Loss, Progress


@pytest.mark.parametrize("steps", [4, 10, 11])
def test_every_waypoint_guides_for_an_equal_share_of_the_steps(tmp_path, steps):
    files = []
    for number in range(4):
        files.append(tmp_path / f"epoch_{number}.safetensors")
        save_file({"weight": torch.full((1, 1), float(number)), "bias": torch.zeros(1)}, files[-1])
    teacher = torch.nn.Linear(1, 1)
    guide, seen = EpochCheckpoints(teacher, files), []
    for step in range(steps):
        guide(Progress(step, steps))
        seen.append(int(teacher.weight))
    assert seen == sorted(seen)
    counts = [seen.count(number) for number in range(4)]
    assert max(counts) - min(counts) <= 1
    late = EpochCheckpoints(torch.nn.Linear(1, 1), files)  # gone on with in the middle
    late(Progress(steps - 1, steps))
    assert int(late.teacher.weight) == 3


def test_a_waypoint_is_read_once(tmp_path, monkeypatch):
    save_file({"weight": torch.ones(1, 1), "bias": torch.zeros(1)}, tmp_path / "one.safetensors")
    guide = EpochCheckpoints(torch.nn.Linear(1, 1), [tmp_path / "one.safetensors"])
    guide(Progress(0, 9))
    Path(tmp_path / "one.safetensors").unlink()
    guide(Progress(5, 9))


def test_the_guide_falls_silent_after_so_many_steps():
    def says(word):
        return lambda model, batch, progress: iter([Loss(torch.tensor(0.0), {word: torch.tensor(1.0)})])

    objective = GuidedLoss(says("alone"), says("guided"), until=2)
    names = [next(iter(objective(None, {}, Progress(step, 4)))).terms.popitem()[0] for step in range(4)]
    assert names == ["guided", "guided", "alone", "alone"]
    (loss,) = GuidedLoss(says("alone"))(None, {}, Progress(0, 4))
    assert list(loss.terms) == ["alone"]


def test_only_what_is_fresh_is_trained_at_first(make_model, make_batch):
    model = make_model()
    fresh = frozenset({"encoder.layers.0.query.weight"})
    objective = GuidedLoss(unguided(model), freeze_steps=3, fresh=fresh)
    for step, expected in ((0, fresh), (2, fresh), (3, {name for name, _ in model.named_parameters()})):
        model.zero_grad()
        (loss,) = objective(model, make_batch(), Progress(step, 9))
        loss.total.backward()
        assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == expected


def test_the_loss_is_the_tasks_and_the_weighted_distance_to_the_teacher(make_model, make_batch):
    model, teacher = make_model(seed=1), make_model(seed=2)
    hidden = HiddenLoss("mse", "uniform", (2, 2), (32, 32))
    batch, progress = make_batch(), Progress(0, 9)
    assert guided(model, teacher, {"hidden": (0.0, hidden)}) is None
    (both,) = guided(model, teacher, {"hidden": (0.3, hidden)})(model, batch, progress)
    (task,) = unguided(model)(model, batch, progress)
    with torch.no_grad():
        (_, own), (_, target) = (side.run(batch, taps=("hidden",)) for side in (model, teacher))
    real = batch["attention_mask"].bool()
    pairs = zip(own["hidden"], target["hidden"], strict=True)
    distances = torch.stack([(a[real] - b[real]).square().mean() for a, b in pairs])
    torch.testing.assert_close(both.total.detach(), task.total.detach() + 0.3 * distances.mean())
