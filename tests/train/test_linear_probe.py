"""A new output layer starts from the best fit to the features, which scikit-learn finds too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from limbeck.data.batching import collate, encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.model.heads import head_features
from limbeck.train import linear_probe
from limbeck.train.linear_probe import fit_head


def fitted(build, kind, train=64):
    """A model with a fitted output layer, the texts, and what the layer reads, one text at a time."""
    task = toy_task(kind, train=train, validation=8, test=8)
    tokenizer = toy_tokenizer(task)
    model = build(labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer)).eval()
    texts = encode(task, "train", tokenizer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_head(model, texts)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == ({"classifier"} if model.per_token else {"classifier", "pooler"})
    with torch.no_grad():
        batches = [collate(texts, [row]) for row in range(len(texts))]
        hidden = [model.encoder(batch["input_ids"], None, batch.get("token_type_ids"))[0] for batch in batches]
        features = [head_features(model, each, None, model.style, per_token=model.per_token)[0] for each in hidden]
    return model, texts, [each.numpy() for each in features]


def expected(features, labels, answered):
    """Probabilities of classes, of the regularized regression on standardized features."""
    scaler = StandardScaler().fit(features)
    regression = LogisticRegression(C=0.1, max_iter=1000, tol=1e-8).fit(scaler.transform(features), labels)
    return regression.predict_proba(scaler.transform(answered))


@pytest.fixture(autouse=True)
def _scaled_alike(monkeypatch):
    """Let features of the random models be standardized as scikit-learn does, however narrow they are."""
    monkeypatch.setattr(linear_probe, "NARROWEST", 0.0)


def test_classes_are_those_of_logistic_regression(make_model):
    model, texts, features = fitted(make_model, "classification")
    answers = torch.from_numpy(predict(model, texts)).softmax(-1).numpy()
    np.testing.assert_allclose(answers, expected(features, texts.labels, features), atol=2e-3)


def test_every_label_of_several_has_a_regression(make_model):
    model, texts, features = fitted(make_model, "multilabel")
    labels = np.asarray(texts.labels)
    scaled = StandardScaler().fit(features).transform(features)
    regression = LogisticRegression(C=0.1, max_iter=1000, tol=1e-8)
    answers = 1 / (1 + np.exp(-predict(model, texts)))
    for column in range(labels.shape[1]):
        alone = regression.fit(scaled, labels[:, column]).predict_proba(scaled)[:, 1]
        np.testing.assert_allclose(answers[:, column], alone, atol=2e-3)


def test_numbers_are_those_of_ridge_regression(make_model):
    model, texts, features = fitted(make_model, "regression")
    scaled = StandardScaler().fit(features).transform(features)
    ridge = Ridge(alpha=linear_probe.PENALTY / 2).fit(scaled, texts.labels)
    np.testing.assert_allclose(predict(model, texts)[:, 0], ridge.predict(scaled), atol=2e-3)


def test_tokens_without_a_label_do_not_count(make_model):
    model, texts, features = fitted(make_model, "tokens")
    rows = [each[np.asarray(labels) != -100] for each, labels in zip(features, texts.labels, strict=True)]
    labels = [label for each in texts.labels for label in each if label != -100]
    answers = np.concatenate(predict(model, texts))
    answers = torch.from_numpy(answers).softmax(-1).numpy()
    np.testing.assert_allclose(answers, expected(np.concatenate(rows), labels, np.concatenate(features)), atol=5e-3)


@pytest.mark.parametrize("kind", ["classification", "tokens"])
def test_of_many_answers_some_are_read(make_model, monkeypatch, kind):
    monkeypatch.setattr(linear_probe, "ANSWERS", 20)
    seen = []
    solve = linear_probe._solve

    def solved(model, features, labels):
        seen.append(labels)
        return solve(model, features, labels)

    monkeypatch.setattr(linear_probe, "_solve", solved)
    _, texts, _ = fitted(make_model, kind)
    assert 10 <= len(seen[0]) <= 30
    assert (seen[0] != -100).all()
    labels = {label for row in texts.labels for label in np.atleast_1d(row).tolist()}
    assert set(seen[0].tolist()) == labels - {-100}


def test_features_that_never_change_are_no_trouble(make_model):
    """All are equal where the state of the first token is; the bias alone then answers."""
    task = toy_task(train=32, validation=8, test=8)
    tokenizer = toy_tokenizer(task)
    model = make_model(labels=task.num_labels, vocab_size=len(tokenizer)).eval()
    with torch.no_grad():
        model.encoder.layers[-1].ffn_norm.weight.zero_()
    texts = encode(task, "train", tokenizer)
    fit_head(model, texts)
    shares = np.bincount(texts.labels, minlength=task.num_labels) / len(texts)
    answers = torch.from_numpy(predict(model, texts)).softmax(-1).numpy()
    np.testing.assert_allclose(answers, np.tile(shares, (len(texts), 1)), atol=1e-3)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_a_dense_layer_passes_on_what_it_reads(make_model, activation):
    task = toy_task(train=64, validation=8, test=8)
    tokenizer = toy_tokenizer(task)
    model = make_model(labels=task.num_labels, vocab_size=len(tokenizer), pooler=activation).eval()
    texts = encode(task, "train", tokenizer)
    fit_head(model, texts)
    batch = collate(texts, range(len(texts)))
    with torch.no_grad():
        hidden, _ = model.encoder(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))
        features = head_features(model, hidden, batch["attention_mask"], model.style)
    together = np.corrcoef(hidden[:, 0].T.numpy(), features.T.numpy())
    width = hidden.shape[-1]
    assert np.diag(together[:width, width:]).min() > 0.97


def test_states_that_hardly_differ_are_not_blown_up():
    states = 2.0 + 1e-3 * torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    dense = torch.nn.Linear(8, 8)
    with torch.no_grad():
        linear_probe._pass_on(dense, states, "tanh")
    torch.testing.assert_close(dense.weight.detach(), torch.eye(8) / 2, atol=1e-3, rtol=0)


def test_a_dense_layer_without_a_bias_stays(make_model):
    task = toy_task(train=64, validation=8, test=8)
    tokenizer = toy_tokenizer(task)
    model = make_model(labels=task.num_labels, vocab_size=len(tokenizer), pooler_bias=False)
    before = model.pooler.weight.clone()
    fit_head(model, encode(task, "train", tokenizer))
    assert torch.equal(model.pooler.weight, before)
