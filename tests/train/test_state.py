import shutil

import torch
from accelerate import Accelerator

from limbeck.train import state


def test_an_unfinished_checkpoint_is_not_read(tmp_path):
    accelerator = Accelerator(cpu=True)
    state.attach(accelerator)
    model = accelerator.prepare(torch.nn.Linear(2, 2))
    state.save(accelerator, tmp_path, {"steps": 3})
    torn = tmp_path / "checkpoint.new"
    shutil.copytree(tmp_path / "checkpoint", torn)  # killed while the next one was written
    expected = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.zero_()
    assert state.load(accelerator, tmp_path) == {"steps": 3}
    assert torch.equal(model.weight, expected)


def test_a_crash_between_the_two_renames_leaves_the_old_one(tmp_path):
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(torch.nn.Linear(2, 2))
    state.save(accelerator, tmp_path, {"steps": 7})
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    assert state.load(accelerator, tmp_path) == {"steps": 7}


def test_nothing_to_resume(tmp_path):
    assert state.load(Accelerator(cpu=True), tmp_path) is None
