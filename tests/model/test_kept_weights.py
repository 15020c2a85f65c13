import pytest
import torch
from safetensors.torch import save_file

from limbeck.core.shape import Shape
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.checkpoints import open_model, peek_outputs, save_model
from limbeck.model.kept_weights import epoch_folders, read_kept_weights, write_kept_weights

SHAPE = Shape.uniform(layers=1, hidden=16, heads=2, ffn=32)


@pytest.fixture
def task():
    return toy_task(train=16, validation=8)


@pytest.fixture
def tokenizer(task):
    return toy_tokenizer(task)


@pytest.fixture
def model(make_model, task, tokenizer):
    model = make_model(SHAPE, labels=task.num_labels, vocab_size=len(tokenizer))
    model.config.id2label = dict(enumerate(task.label_names))
    return model


def keep_files(model, folder, *names):
    """Files of weights, each different."""
    files = []
    for number, name in enumerate(names):
        weights = {key: tensor + number for key, tensor in model.state_dict().items()}
        save_file(weights, folder / f"{name}.safetensors")
        files.append(folder / f"{name}.safetensors")
    return files


def test_every_one_opens_as_a_model(model, task, tokenizer, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    files = keep_files(model, tmp_path, "epoch_000", "epoch_001", "epoch_010", "step_000100")
    names = write_kept_weights(model, tokenizer, files, tmp_path / "out")
    assert names == ["initial", "epoch_001", "epoch_010", "step_000100"]
    for number, name in enumerate(names):
        opened, _ = open_model(tmp_path / "out" / name, task=task)
        assert all(torch.equal(tensor, before[key] + number) for key, tensor in opened.state_dict().items())
        assert bool(peek_outputs(tmp_path / "out" / name).untrained) == (name == "initial")
    assert [path.name for path in epoch_folders(tmp_path / "out")] == ["epoch_001", "epoch_010"]


def test_read_back_they_are_what_was_kept(model, task, tokenizer, tmp_path):
    files = keep_files(model, tmp_path, "epoch_001", "epoch_002")
    before = [path.read_bytes() for path in files]
    write_kept_weights(model, tokenizer, files, tmp_path / "out")
    read = read_kept_weights(epoch_folders(tmp_path / "out"), model, task, tmp_path / "read")
    assert [path.read_bytes() for path in read] == before
    assert read_kept_weights(epoch_folders(tmp_path / "out"), model, task, tmp_path / "read") == read


def test_epochs_count_by_their_number(tmp_path):
    for name in ("epoch_10", "epoch_9", "epoch_x", "step_1"):
        (tmp_path / name).mkdir()
    (tmp_path / "epoch_1").write_text("a file")
    assert [path.name for path in epoch_folders(tmp_path)] == ["epoch_9", "epoch_10"]
    with pytest.raises(InputError, match="has no folders epoch_1"):
        epoch_folders(tmp_path / "epoch_9")
    with pytest.raises(InputError, match="there is no folder"):
        epoch_folders(tmp_path / "nowhere")


def test_another_model_is_refused(model, task, tokenizer, make_model, tmp_path):
    other = make_model(Shape.uniform(layers=2, hidden=16, heads=2, ffn=32), labels=2, vocab_size=len(tokenizer))
    save_model(model, tokenizer, tmp_path / "epoch_1")
    with pytest.raises(InputError, match=r"epoch_1 holds another model \(1x16.*\) than the one to follow \(2x16"):
        read_kept_weights(epoch_folders(tmp_path), other, task, tmp_path / "read")
