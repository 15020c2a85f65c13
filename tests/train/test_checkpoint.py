import shutil

import pytest
import torch
from accelerate import Accelerator

from limbeck.errors import InputError
from limbeck.train import checkpoint as state


@pytest.fixture
def prepared():
    accelerator = Accelerator(cpu=True)
    state.attach(accelerator)
    return accelerator, accelerator.prepare(torch.nn.Linear(2, 2))


def names(folder):
    return [path.name for path in state.checkpoints(folder)]


def test_an_unfinished_checkpoint_is_not_read(prepared, tmp_path):
    accelerator, model = prepared
    state.save(accelerator, tmp_path, {"steps": 3})
    shutil.copytree(tmp_path / "checkpoint-3", tmp_path / "checkpoint.new")  # killed while the next one was written
    expected = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.zero_()
    assert state.load(accelerator, tmp_path) == {"steps": 3}
    assert torch.equal(model.weight, expected)


@pytest.mark.parametrize("limit", [1, 2, 9])
def test_only_the_newest_stay(prepared, tmp_path, limit):
    for steps in (2, 9, 10, 100):
        state.save(prepared[0], tmp_path, {"steps": steps}, limit)
    assert names(tmp_path) == ["checkpoint-100", "checkpoint-10", "checkpoint-9", "checkpoint-2"][:limit]


@pytest.mark.parametrize("lost", ["weights-0.safetensors", "loop.json"])
def test_an_older_one_serves_where_the_newest_is_damaged(prepared, tmp_path, lost):
    accelerator, model = prepared
    state.save(accelerator, tmp_path, {"steps": 1}, 2)
    expected, messages = model.weight.detach().clone(), []
    with torch.no_grad():
        model.weight.zero_()
    state.save(accelerator, tmp_path, {"steps": 2}, 2)
    (tmp_path / "checkpoint-2" / lost).write_bytes(b"torn")
    assert state.load(accelerator, tmp_path, messages.append) == {"steps": 1}
    assert torch.equal(model.weight, expected)
    assert "checkpoint-2 cannot be read" in messages[0]
    state.save(accelerator, tmp_path, {"steps": 2}, 2)  # the damaged one gives way
    assert state.load(accelerator, tmp_path) == {"steps": 2}


def test_nothing_begins_with_half_a_checkpoint(prepared, tmp_path):
    state.save(prepared[0], tmp_path, {"steps": 1})
    (tmp_path / "checkpoint-1" / "weights-0.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="remove that folder to train anew"):
        state.load(prepared[0], tmp_path)


def test_nothing_to_resume(tmp_path):
    assert state.load(Accelerator(cpu=True), tmp_path) is None
