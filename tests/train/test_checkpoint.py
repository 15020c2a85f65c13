import copy
import json
import shutil

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import save_file

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


@pytest.mark.parametrize("digests", [True, False])
def test_what_cannot_be_read_leaves_everything_as_it_was(prepared, tmp_path, digests):
    """Also where that is noticed when half of it has been loaded, as in checkpoints without digests."""
    accelerator, model = prepared
    optimizer = accelerator.prepare(torch.optim.AdamW(model.parameters()))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state.save(accelerator, tmp_path, {"steps": 1})
    with torch.no_grad():
        model.weight.zero_()
    before = copy.deepcopy(optimizer.state_dict())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    loop = json.loads((tmp_path / "checkpoint-1" / "loop.json").read_text())
    assert {"optimizer.bin", "weights-0.safetensors"} <= set(loop["files"])
    if not digests:
        del loop["files"]
        (tmp_path / "checkpoint-1" / "loop.json").write_text(json.dumps(loop))
    (tmp_path / "checkpoint-1" / "optimizer.bin").write_bytes(b"torn")
    messages = []
    assert state.load(accelerator, tmp_path, messages.append) is None
    assert "checkpoint-1 cannot be read" in messages[0]
    assert messages[0].endswith("the training begins again")
    assert not model.weight.any()
    assert torch.equal(torch.rand(3), expected)
    assert repr(optimizer.state_dict()) == repr(before)
    assert names(tmp_path) == []


def test_weights_of_a_step_come_back_or_are_refused(tmp_path):
    path = tmp_path / "best.safetensors"
    tensors = {"a": torch.ones(2, 3), "empty": torch.zeros(0, 3), "one": torch.tensor(2.0).bfloat16()}
    state.save_weights(path, tensors, 7)
    for step in (6, 7):
        assert torch.equal(state.load_weights(path, step)["a"], tensors["a"])
    with pytest.raises(ValueError, match="does not hold the weights of step 8"):
        state.load_weights(path, 8)
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob)
    with pytest.raises(ValueError, match="does not hold"):
        state.load_weights(path, 7)
    save_file(tensors, path)  # as earlier versions wrote it
    assert torch.equal(state.load_weights(path, 7)["one"], tensors["one"])


def test_nothing_to_resume(tmp_path):
    assert state.load(Accelerator(cpu=True), tmp_path) is None


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), PermissionError(13, "denied")])
def test_an_error_of_the_machine_costs_no_checkpoint(prepared, tmp_path, monkeypatch, error):
    accelerator, _ = prepared
    state.save(accelerator, tmp_path, {"steps": 1})

    def refuse(folder):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(accelerator, "load_state", refuse)
        with pytest.raises(type(error)):
            state.load(accelerator, tmp_path)
    assert state.load(accelerator, tmp_path) == {"steps": 1}
