"""A model in 8 bits, as far as batches go, that notes how it was called. Not a test."""

from __future__ import annotations


class NotingInt8:
    """Answers as ``model`` does; ``calls`` are the rows of each batch."""

    int8, runtime = True, "onnxruntime"

    def __init__(self, model):
        self.model, self.calls = model, []

    def predict(self, batch):
        self.calls.append(batch["index"].tolist())
        return self.model.predict(batch)
