"""Every kind of peer behind one way to call it: a prepared text to logits, and a text to its label."""

from pathlib import Path

import numpy as np

from limbeck.measure.backends import OnnxRunner, import_runtime
from limbeck.model.onnx.onnx_model import open_session

from . import static


class Torch:
    """A checkpoint of transformers, as ``from_pretrained`` gives it; ``compiled`` by inductor for any length."""

    def __init__(self, folder, dtype="float32", compiled=False):
        import torch
        from transformers import AutoModelForSequenceClassification

        self.torch = torch
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        self.model = torch.compile(model, dynamic=True) if compiled else model

    def prepare(self, batch):
        return {name: self.torch.from_numpy(array) for name, array in batch.items()}

    def __call__(self, prepared):
        with self.torch.inference_mode():
            return self.model(**prepared).logits.float().numpy()


class OpenVino:
    """OpenVINO, tuned for the latency of one request, in the precision that it takes by itself or in a given one.

    limbeck's own runner always asks for float32; this one leaves the choice to the tool, as a user would.
    """

    def __init__(self, path, threads, precision=None):
        openvino = import_runtime("openvino")
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        options |= {"INFERENCE_PRECISION_HINT": precision} if precision else {}
        compiled = openvino.Core().compile_model(str(path), "CPU", options)
        self.names = {name for entry in compiled.inputs for name in entry.get_names()}
        self.request = compiled.create_infer_request()

    def prepare(self, batch):
        return {name: array for name, array in batch.items() if name in self.names}

    def __call__(self, prepared):
        return self.request.infer(prepared)[0]


class Encoder:
    """A model that reads token ids, with its tokenizer."""

    def __init__(self, runner, tokenizer, max_length):
        from tokenizers import Tokenizer

        self.runner = runner
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length)

    def read(self, row):
        """A text, or a text and its pair, as the model takes it."""
        encoding = self.tokenizer.encode(*row)
        columns = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        return self.runner.prepare({name: np.array([ids], dtype=np.int64) for name, ids in columns.items()})

    def label(self, row):
        """The place of the label."""
        return int(self.runner(self.read(row)).argmax())


class Static:
    """Static embeddings with a linear classifier; its tokens are read within the call, so it has no runner."""

    runner = None

    def __init__(self, folder):
        from model2vec import StaticModel

        self.model = StaticModel.from_pretrained(folder)
        with np.load(Path(folder).parent / "regression.npz", allow_pickle=False) as arrays:
            self.weights, self.bias = arrays["weights"], arrays["bias"]

    def label(self, row):
        """The place of the label."""
        return int((static.features(self.model, *([part] for part in row)) @ self.weights + self.bias).argmax())


RUNNERS = {
    "torch": lambda path, threads, **options: Torch(path, **options),
    "onnxruntime": lambda path, threads: OnnxRunner(open_session(path, threads), Path(path).name),
    "openvino": OpenVino,
}


def open_peer(entry, threads):
    """What an entry of the comparison describes, ready to answer."""
    if entry["kind"] == "static":
        return Static(entry["path"])
    runner = RUNNERS[entry["kind"]](entry["path"], threads, **entry.get("options", {}))
    return Encoder(runner, entry["tokenizer"], entry["max_length"])
