"""Make what other tools make of an embedding model: INT8 of ONNX Runtime and of OpenVINO, static vectors of model2vec.

    pip install -c constraints.txt -e '.[openvino]' -r benchmarks/peers/requirements.txt
    python benchmarks/embeddings/make_peers.py MODEL OUT --texts benchmarks/embeddings/texts.jsonl [--static-only]

MODEL is a folder of sentence-transformers or a named model; its vectors must be normalised means, as those of MiniLM-L6
and all-mpnet-base-v2 are. Graphs hold the pooling. ``evaluate.py`` takes them as onnxruntime:OUT/int8.onnx,
openvino:OUT/int8.xml and model2vec:OUT/static.
"""

import argparse
import json
import random
import shutil
from pathlib import Path

import torch
from models import LENGTH, from_peers
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer
from transformers.modeling_outputs import SequenceClassifierOutput

from limbeck.model.location import model_folder

CALIBRATION = 300  # texts, the default of NNCF


class Pooled(torch.nn.Module):
    """The mean of the tokens' vectors, of length 1, under the name that the exports of peers read."""

    def __init__(self, encoder):
        super().__init__()
        self.base_model, self.config = encoder, encoder.config

    def forward(self, input_ids, attention_mask, token_type_ids):
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        states = self.base_model(**inputs).last_hidden_state
        mask = attention_mask[..., None].to(states.dtype)
        return SequenceClassifierOutput(logits=normalize((states * mask).sum(1) / mask.sum(1), dim=-1))


def graphs(folder, out, texts):
    """Write int8.onnx of ONNX Runtime's dynamic quantization, and int8.xml of NNCF."""
    stock = from_peers("stock")
    model = Pooled(AutoModel.from_pretrained(folder, attn_implementation="eager").eval()).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    stock.onnx_int8(stock.onnx(model, out), out / "int8.onnx")
    batches = [dict(tokenizer(text, truncation=True, max_length=LENGTH, return_tensors="np")) for text in texts]
    stock.openvino_int8(model, out, batches)


def static(folder, out):
    """Write the vectors of single tokens by model2vec, in its defaults."""
    from model2vec.distill import distill

    distill(model_name=str(folder), device="cpu").save_pretrained(out / "static")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--texts", type=Path, help="JSONL with 'text', to calibrate with")
    parser.add_argument("--static-only", action="store_true")
    arguments = parser.parse_args()
    folder = model_folder(arguments.model) or Path(arguments.model)
    arguments.out.mkdir(parents=True)
    static(folder, arguments.out)
    if arguments.static_only:
        return
    shutil.copy(folder / "tokenizer.json", arguments.out)
    lines = arguments.texts.read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in random.Random(0).sample(lines, CALIBRATION)]
    graphs(folder, arguments.out, texts)


if __name__ == "__main__":
    main()
