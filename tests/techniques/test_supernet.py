import numpy as np
import pytest
import torch

from limbeck.core.candidate import Candidate
from limbeck.core.kinds import KINDS
from limbeck.core.search_space import Space
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher, problems_of
from limbeck.data.batching import collate, encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.checkpoints import open_model, save_model
from limbeck.model.pruning.subnetwork import extract
from limbeck.techniques.finetune import Finetune
from limbeck.techniques.supernet import Supernet
from limbeck.train.objectives import Outputs
from limbeck.train.supernet_config import ChannelOrder

FULL = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
RANGES = {"layers": (1, 2), "hidden": (16, 32), "heads": (1, 4), "ffn": (32, 64)}


@pytest.fixture(scope="module")
def teacher(make_model):
    task = toy_task(train=256, validation=64, test=64)
    tokenizer = toy_tokenizer(task)
    candidate = Candidate(make_model(FULL, labels=task.num_labels, vocab_size=len(tokenizer)), tokenizer, task)
    (finetuned,) = Finetune.of(num_train_epochs=12, learning_rate=3e-3).apply(candidate, RunContext())
    return finetuned


def accuracy(candidate, model):
    encoded = encode(candidate.task, "test", candidate.tokenizer)
    return candidate.task.score(predict(model, encoded), encoded.labels)


def copy_of(candidate, tmp_path):
    save_model(candidate.model, candidate.tokenizer, tmp_path / "copy")
    return Candidate(open_model(tmp_path / "copy", task=candidate.task)[0], candidate.tokenizer, candidate.task)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"rule": "single", "samples": 3}, {"in_place": True, "per_layer": True}])
def test_slices_become_good_models(teacher, tmp_path, fields):
    """Before, the smallest slice guesses; afterwards it answers, and so does the largest."""
    candidate = copy_of(teacher, tmp_path)
    step = Supernet.of(num_train_epochs=25, learning_rate=3e-3, **RANGES, **fields)
    space = step.search_space(candidate.model.shape)
    (supernet,) = step.apply(candidate, RunContext(teacher=Teacher("teacher", lambda: teacher)))
    assert Space.from_json(supernet.model.config.space) == space
    assert accuracy(supernet, supernet.model) > 0.8
    small = extract(supernet.model, space.smallest)
    assert accuracy(supernet, small) > 0.8


def test_the_space_is_saved_with_the_model(teacher, tmp_path):
    step = Supernet.of(num_train_epochs=0.1, **RANGES)
    (supernet,) = step.apply(copy_of(teacher, tmp_path), RunContext(teacher=Teacher("teacher", lambda: teacher)))
    save_model(supernet.model, supernet.tokenizer, tmp_path / "super")
    opened, _ = open_model(tmp_path / "super")
    assert Space.from_json(opened.config.space) == step.search_space(FULL)


def test_sorting_alone_changes_no_answer(teacher, tmp_path):
    candidate = copy_of(teacher, tmp_path)
    encoded = encode(candidate.task, "test", candidate.tokenizer)
    before = predict(candidate.model, encoded)
    step = Supernet.of(**RANGES)
    step.slices.arrange(candidate.model, None, step.search_space(FULL), step.importance(candidate, 0))
    np.testing.assert_allclose(predict(candidate.model, encoded), before, rtol=1e-3, atol=1e-4)


def test_sorted_parts_are_compared_with_the_same_parts_of_the_teacher(teacher, tmp_path):
    """Before anything is trained the largest slice is its teacher in another order, so nothing is to be learned."""
    losses, batch = [], collate(encode(teacher.task, "test", teacher.tokenizer), range(8))

    class Watched(Supernet):
        def terms(self, candidate, teacher, order):
            inherited = super().terms(candidate, teacher, order)
            with torch.no_grad():
                taps = ("hidden", "query", "key", "value")
                sides = [Outputs(*side.model.eval().run(batch, taps=taps)) for side in (candidate, teacher)]
                losses.extend(float(inherited[name][1](*sides, batch)) for name in ("hidden", "relations"))
            return inherited

    context = RunContext(teacher=Teacher("teacher", lambda: teacher))
    step = Watched.of(num_train_epochs=0.1, match=("hidden", "relations"), **RANGES)
    list(step.apply(copy_of(teacher, tmp_path), context))
    assert losses == pytest.approx([0.0, 0.0], abs=1e-6)


def test_another_super_network_goes_on_with_space_and_order(teacher, tmp_path):
    """Also after a fine-tuning, and after it was saved; what matters most by then is not moved to the front."""
    context = RunContext(teacher=Teacher("teacher", lambda: teacher))
    (first,) = Supernet.of(num_train_epochs=0.2, **RANGES).apply(copy_of(teacher, tmp_path), context)
    with torch.no_grad():
        for layer in first.model.encoder.layers:  # the last head matters most, the first not at all
            layer.attention_out.weight.mul_(torch.tensor([0.0, 0.5, 1.0, 4.0]).repeat_interleave(8))
    (tuned,) = Finetune.of(num_train_epochs=0.1, learning_rate=1e-12, weight_decay=0.0).apply(first, RunContext())
    tuned = copy_of(tuned, tmp_path)
    before = {name: tensor.clone() for name, tensor in tuned.model.encoder.layers.state_dict().items()}
    (second,) = Supernet.of(num_train_epochs=0.1, learning_rate=1e-12, weight_decay=0.0).apply(tuned, context)
    assert ChannelOrder.of(second.model) == ChannelOrder.of(first.model)
    after = second.model.encoder.layers.state_dict()
    assert all(torch.allclose(tensor, after[name], rtol=0, atol=1e-6) for name, tensor in before.items())


def test_bad_ranges_are_told():
    assert "first should be the lower" in problems_of(Supernet.of(layers=(3, 2)))[0]
    assert str(Supernet().search_space(Shape.uniform(6, 384, 12, 1536)).smallest) == "2x128 heads 4 of 32 ffn 256"
    assert "sandwich" in Supernet.of(**RANGES, rule="single", in_place=True).problems()[0]
    with pytest.raises(InputError, match=r"supernet\.heads: the model has 4, got 8; use at most 4"):
        Supernet.of(heads=(1, 8)).search_space(FULL)


def test_a_temperature_softens_classes_alone():
    assert Supernet(temperature=4.0).kind_problems(KINDS["multilabel"]).keys() == {"temperature"}
    assert not Supernet(temperature=4.0).kind_problems(KINDS["tokens"])
