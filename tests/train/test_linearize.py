"""Linear attention for a model in memory, without a step."""

import copy

import pytest
import torch

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.attention_conversion import convert
from limbeck.train.config import TrainingConfig
from limbeck.train.guide_config import GuideConfig
from limbeck.train.linearize import linearize

TASK = toy_task("classification", train=16, validation=8, test=8)
TOKENIZER = toy_tokenizer(TASK)
TRAINING = TrainingConfig(num_train_epochs=4, learning_rate=1e-3, evaluations_per_epoch=0)
CORES = ("window:4", "softmax")


@pytest.fixture
def candidate(make_model):
    model = make_model(
        Shape.uniform(layers=2, hidden=32, heads=4, ffn=64), labels=TASK.num_labels, vocab_size=len(TOKENIZER)
    )
    return Candidate(model, copy.deepcopy(TOKENIZER), TASK)


def context(teacher, seed=0):
    return RunContext(seed=seed, teacher=Teacher("teacher", lambda: teacher))


def test_it_trains_the_converted_model_and_leaves_the_given_one(candidate):
    before = copy.deepcopy(candidate.model.state_dict())
    model = linearize(candidate, CORES, GuideConfig(), TRAINING, context(candidate))
    assert [layer.attention for layer in model.shape.layers] == list(CORES)
    converted = convert(candidate.model, CORES).state_dict()
    assert any(not torch.equal(value, converted[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in candidate.model.state_dict().items())


def test_the_length_is_asked_for_once_the_tokenizer_reads_more(candidate):
    lengths = []

    def typical(candidate):
        lengths.append(candidate.tokenizer.model_max_length)
        return 8

    guidance = GuideConfig(guide="unguided", alpha_layer=1.0)
    model = linearize(
        candidate, ["linformer:4"], guidance, TRAINING, context(candidate), tokens=typical, max_length=100
    )
    assert lengths == [100]
    assert model.config.max_positions == 100


def test_cores_that_do_not_fit_are_refused(candidate):
    with pytest.raises(InputError, match=r"linearize.attention: has 3 cores, the model 2 layers; give one for all"):
        linearize(candidate, ["kernel"] * 3, GuideConfig(), TRAINING, context(candidate))
