"""Static embeddings of a model by model2vec, and logistic regression on them: a mean of rows of a table."""

import numpy as np

STRENGTHS = (0.1, 1.0, 10.0, 100.0)


def features(model, texts, pairs=None):
    """Embeddings of texts [texts, features]; of pairs u, v, |u - v| and u * v, as InferSent does (arXiv:1705.02364)."""
    first = model.encode(list(texts))
    if pairs is None:
        return first
    second = model.encode(list(pairs))
    return np.concatenate([first, second, np.abs(first - second), first * second], axis=-1)


def train(model, task):
    """Logistic regression whose strength of regularisation is best on the validation split.

    Returns weights [features, classes], biases [classes] and that accuracy. A binary task gets two columns, too.
    """
    from sklearn.linear_model import LogisticRegression

    train, validation = task.split("train"), task.split("validation")
    rows, held_out = (features(model, split.texts, split.pairs) for split in (train, validation))
    fitted = [LogisticRegression(C=candidate, max_iter=2000).fit(rows, train.labels) for candidate in STRENGTHS]
    scores = [candidate.score(held_out, validation.labels) for candidate in fitted]
    best = fitted[int(np.argmax(scores))]
    weights, bias = best.coef_.T, best.intercept_
    if weights.shape[1] == 1:  # the score of the second class alone
        weights, bias = np.concatenate([-weights, weights], axis=1), np.concatenate([-bias, bias])
    return weights.astype(np.float32), bias.astype(np.float32), float(max(scores))
