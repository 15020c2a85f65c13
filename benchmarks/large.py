"""Peak memory and seconds of export, comparison, quantization, saving and reopening above 2 GB of weights.

    python benchmarks/large.py --layers 24 --hidden 1024 --vocabulary 250002

Weights are random, in the shape of XLM-R-large by default (2.24 GB in float). Prints a line a step.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoTokenizer:
    """Stands where a tokenizer would be saved."""

    def save_pretrained(self, folder: Path) -> None:
        """Save nothing."""


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print how long a step took and the largest memory of the process so far."""
    start = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{name:<10} {time.perf_counter() - start:7.1f} s   peak so far {peak / 1e9:.2f} GB", flush=True)


def main() -> None:
    """Run every step once, in a folder that is removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 24), ("hidden", 1024), ("vocabulary", 250002)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()

    import numpy as np
    import torch

    from limbeck.core.shape import Shape
    from limbeck.model import quantized
    from limbeck.model.encoder import LimbeckConfig, LimbeckForSequenceClassification
    from limbeck.model.files import save_model
    from limbeck.model.interchange import translate_folder
    from limbeck.model.onnx import FLOAT_FILE, INT8_FILE, OnnxModel, read_parts, to_onnx, write

    shape = Shape.uniform(given.layers, given.hidden, given.hidden // 64, 4 * given.hidden)
    rows = {
        "layer_heads": [layer.heads for layer in shape.layers],
        "layer_ffn": [layer.ffn for layer in shape.layers],
    }
    style = {"family": "xlm-roberta", "position_offset": 1, "pad_token_id": 1, "token_types": 1, "max_positions": 514}
    config = LimbeckConfig(
        hidden_size=shape.hidden, head_dim=shape.head_dim, vocab_size=given.vocabulary, **rows, **style
    )
    ids = torch.randint(5, given.vocabulary, (1, 32))
    folder = Path(tempfile.mkdtemp(prefix="limbeck-large-"))
    try:
        with step("build"):
            torch.manual_seed(0)
            model = LimbeckForSequenceClassification(config).eval()
            model.encoder.shape = shape
        weights = sum(parameter.nbytes for parameter in model.parameters())
        print(f"weights {weights / 1e9:.2f} GB; {shape}", flush=True)
        with step("save"):
            save_model(model, NoTokenizer(), folder / "float")
        with step("export"):
            to_onnx(model, folder / "float" / FLOAT_FILE)
        settings = json.loads((folder / "float" / "config.json").read_text(encoding="utf-8"))
        exported = OnnxModel(folder / "float", FLOAT_FILE, settings)
        with step("compare"):
            difference = np.abs(exported.predict({"input_ids": ids}) - model.predict({"input_ids": ids})).max()
        print(f"largest difference of a logit {difference:.1e}; {exported.size_bytes / 1e9:.2f} GB", flush=True)
        del model
        exported = OnnxModel(folder / "float", FLOAT_FILE, settings)  # without its open session
        with step("quantize"):
            found = read_parts(exported.path)
            int8 = quantized.Int8(frozenset(quantized.modules(*found)))
            write(quantized.quantize(*found, int8), folder / "int8" / INT8_FILE)
        with step("translate"):
            save_model(exported, NoTokenizer(), folder / "artefact")
            translate_folder(folder / "artefact")
        with step("reopen"):
            small = OnnxModel(folder / "int8", INT8_FILE, settings)
            small.predict({"input_ids": ids})
        print(f"INT8 {small.size_bytes / 1e9:.2f} GB", flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(f"peak {peak / 1e9:.2f} GB, {peak / weights:.2f} times the weights", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
