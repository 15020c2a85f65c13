import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from limbeck.data.batching import IGNORED
from limbeck.data.synthetic import toy_task
from limbeck.errors import InputError
from limbeck.train.objectives import Outputs
from limbeck.train.task_loss import TargetScale, TaskLoss, WeightedTaskLoss, balanced_weights, task_loss


def focal_by_hand(logits, labels, weights, gamma):
    """Class by class, row by row (Lin et al., 2017, equation 5, with torch's mean over weights)."""
    total = scale = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        right = math.exp(row[label]) / sum(map(math.exp, row))
        total += -weights[label] * (1 - right) ** gamma * math.log(right)
        scale += weights[label]
    return total / scale


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_weighted_and_focal_losses_of_classes(gamma):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(7, 3, generator=generator), torch.tensor([0, 1, 2, 0, 0, 1, 0])
    weights = torch.tensor([0.5, 2.0, 4.0])
    loss = WeightedTaskLoss("single_label_classification", weights, gamma)
    value = loss(Outputs(logits, {}), Outputs(logits, {}), {"labels": labels})
    assert float(value) == pytest.approx(focal_by_hand(logits, labels, weights.tolist(), gamma), rel=1e-5)
    if not gamma:
        assert torch.allclose(value, F.cross_entropy(logits, labels, weight=weights))


def test_weighted_losses_of_words_ignore_padding_and_of_several_labels_weigh_positives():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, generator=generator)
    labels = torch.tensor([[0, 2, IGNORED, 1], [1, IGNORED, IGNORED, 0]])
    weights = torch.tensor([1.0, 2.0, 3.0])
    loss = WeightedTaskLoss("single_label_classification", weights)
    expected = F.cross_entropy(logits.reshape(-1, 3), labels.reshape(-1), weight=weights, ignore_index=IGNORED)
    assert torch.allclose(loss(Outputs(logits, {}), Outputs(logits, {}), {"labels": labels}), expected)
    logits, labels = torch.randn(5, 3, generator=generator), torch.randint(0, 2, (5, 3), generator=generator).float()
    loss = WeightedTaskLoss("multi_label_classification", weights)
    expected = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
    assert torch.allclose(loss(Outputs(logits, {}), Outputs(logits, {}), {"labels": labels}), expected)
    focal = WeightedTaskLoss("multi_label_classification", None, 2.0)
    assert focal(Outputs(logits, {}), Outputs(logits, {}), {"labels": labels}) < expected


def test_balanced_weights_count_rare_labels_as_much_as_frequent_ones():
    from sklearn.utils.class_weight import compute_class_weight

    labels = [0] * 90 + [1] * 8 + [2] * 2
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights("classification", labels, 3).tolist() == pytest.approx(expected.tolist())
    assert balanced_weights("classification", labels, 4)[3] == 1  # no row has it
    assert balanced_weights("tokens", [labels[:50], labels[50:]], 3).tolist() == pytest.approx(expected.tolist())
    assert balanced_weights("multilabel", [(1, 0)] * 2 + [(0, 0)] * 8, 2).tolist() == [4.0, 1.0]


def test_a_loss_that_weighs_nothing_is_the_models_own(make_model):
    task = toy_task("classification", train=12, validation=4, test=4)
    model = make_model(labels=3)
    assert task_loss(model, task) == TaskLoss(model.loss)
    assert task_loss(model, task, "balanced").weights.shape == (3,)
    with pytest.raises(InputError, match="2 weights, but the task has 3 labels"):
        task_loss(model, task, (1.0, 2.0))
    with pytest.raises(InputError, match="regression"):
        task_loss(model, toy_task("regression", train=12, validation=4, test=4), "balanced")


def test_targets_are_standardized_and_the_output_layer_comes_back():
    scale = TargetScale.of([200_000.0, 250_000.0, 300_000.0])
    assert scale.mean == 250_000.0
    assert scale.standardize(torch.tensor([250_000.0, 300_000.0])).tolist() == pytest.approx([0.0, 1.5**0.5])
    layer, x = torch.nn.Linear(4, 1), torch.randn(3, 4)
    standardized = layer(x)
    scale.fold(layer)
    assert torch.allclose(layer(x), standardized * scale.std + scale.mean)
    scale.fold(layer, inverse=True)
    assert torch.allclose(layer(x), standardized, atol=1e-3)
    assert TargetScale.of([3.0, 3.0]).std == 1.0


def test_balanced_weights_of_labels_that_say_nothing_are_1_and_of_very_rare_ones_are_bounded():
    rows = [(1, 0, 0)] * 999 + [(1, 0, 1)]
    assert balanced_weights("multilabel", rows, 3).tolist() == [1.0, 1.0, 100.0]


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification"])
def test_focal_gradients_are_finite_where_the_answer_is_certain(kind, gamma):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    labels = torch.tensor([0, 0]) if kind.startswith("single") else torch.tensor([[1, 0], [1, 0]])
    loss = WeightedTaskLoss(kind, None, gamma)(Outputs(logits, {}), Outputs(logits, {}), {"labels": labels})
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
