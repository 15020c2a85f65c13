"""Open embedding models of several kinds: texts to vectors of length 1, and a text to its vector for timing.

A model is given as ``KIND:PATH``, with the kinds of :data:`KINDS`, or as a folder of limbeck or sentence-transformers.
Texts are answered one by one in INT8, since a batch shares ranges.
"""

import importlib
import sys
from pathlib import Path

import numpy as np
from sklearn.preprocessing import normalize

from limbeck.core.task import Split, Task
from limbeck.data.batching import encode, predict
from limbeck.measure.backends import OnnxRunner, make_runner
from limbeck.model.checkpoints import open_model, peek
from limbeck.model.onnx.onnx_model import open_session

LENGTH = 256  #: tokens of MiniLM-L6 after which the peers cut as well


def from_peers(name):
    """Return a module of benchmarks/peers."""
    if (folder := str(Path(__file__).parents[1])) not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"peers.{name}")


class Folder:
    """A folder of limbeck, in its ONNX file if config.json names one, or of sentence-transformers."""

    def __init__(self, path):
        self.model, self.tokenizer = open_model(path)
        self.length = min(peek(path)["max_length"], self.tokenizer.model_max_length)
        self.runner = make_runner(self.model, threads=1, runtime="onnxruntime", device="cpu")

    def vectors(self, texts):
        split = Split(tuple(texts), (0.0,) * len(texts))
        task = Task("texts", "embedding", {"test": split}, (), "spearman", max_length=self.length)
        return np.stack(list(predict(self.model, encode(task, "test", self.tokenizer), 1 if self.model.int8 else 32)))

    def timed(self, text):
        encoded = self.tokenizer([text], truncation=True, max_length=self.length)
        prepared = self.runner.prepare({name: np.array(ids, np.int64) for name, ids in encoded.items()})
        return lambda: self.runner(prepared)


class Graph:
    """A graph of a peer with pooling inside, and tokenizer.json beside it."""

    def __init__(self, path, runner):
        self.encoder = from_peers("runners").Encoder(runner, Path(path).parent / "tokenizer.json", LENGTH)

    def vectors(self, texts):
        return np.concatenate([self.encoder.runner(self.encoder.read((text,))) for text in texts])

    def timed(self, text):
        prepared = self.encoder.read((text,))
        return lambda: self.encoder.runner(prepared)


class Static:
    """Static vectors of model2vec; its call reads the text as well."""

    def __init__(self, path):
        from model2vec import StaticModel

        self.model = StaticModel.from_pretrained(path)

    def vectors(self, texts):
        return self.model.encode(list(texts))

    def timed(self, text):
        return lambda: self.model.encode([text])


KINDS = {
    "folder": Folder,
    "onnxruntime": lambda path: Graph(path, OnnxRunner(open_session(path, 1), Path(path).name)),
    "openvino": lambda path: Graph(path, from_peers("runners").OpenVino(path, 1)),
    "model2vec": Static,
}


def opened(given):
    """Return the model of ``KIND:PATH`` or of a folder."""
    kind, colon, path = given.partition(":")
    return KINDS[kind](path) if colon and kind in KINDS else Folder(given)


def vectors_of(model, texts):
    """Return the vectors of texts [texts, width], of length 1."""
    return normalize(model.vectors([text or "." for text in texts]))
