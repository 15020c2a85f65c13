"""Time artefacts beside what a user has without limbeck, alternated in one process at one thread.

    python benchmarks/speed.py TEACHER ARTEFACT [ARTEFACT ...] --task movie-reviews

TEACHER is a plain checkpoint of the fine-tuned model (``limbeck save RUN KEY --plain --to TEACHER``). It is
timed in eager PyTorch; exported, fused by ONNX Runtime's own optimiser, in float; and quantized by ONNX Runtime's
``quantize_dynamic``, per channel. Every call answers one text of the test split with its real length, tokenised ahead.
"""

import argparse
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
warnings.filterwarnings("ignore")

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from limbeck.core.facts import environment
from limbeck.core.statistics import paired_ratio
from limbeck.data.batches import collate, encode
from limbeck.data.sources import load_task
from limbeck.measure.clock import alternate
from limbeck.measure.latency import sample_rows


def stock(folder: Path, made: Path) -> tuple[Path, Path]:
    """The checkpoint as ONNX Runtime's own tools export, fuse and quantize it: (float, INT8)."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    inputs = {name: torch.ones(1, 8, dtype=torch.long) for name in ("input_ids", "attention_mask", "token_type_ids")}
    axes = {name: {0: "batch", 1: "sequence"} for name in inputs}
    torch.onnx.export(
        model,
        tuple(inputs.values()),
        str(made / "traced.onnx"),
        input_names=list(inputs),
        output_names=["logits"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    config = model.config
    fused = optimize_model(
        str(made / "traced.onnx"),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        optimization_options=FusionOptions("bert"),
    )
    print("fused by ONNX Runtime's optimiser:", fused.get_fused_operator_statistics(), file=sys.stderr)
    fused.save_model_to_file(str(made / "float.onnx"))
    quantize_dynamic(
        made / "float.onnx",
        made / "int8.onnx",
        per_channel=True,
        reduce_range=False,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": 1},
    )
    return made / "float.onnx", made / "int8.onnx"


def session(path: Path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    made = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {one.name for one in made.get_inputs()}
    return lambda batch: made.run(None, {name: batch[name].numpy() for name in names})[0]


def eager(folder: Path):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    names = ("input_ids", "attention_mask", "token_type_ids")

    @torch.inference_mode()
    def answer(batch):
        return model(**{name: batch[name] for name in names}).logits.numpy()

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", type=Path)
    parser.add_argument("artefacts", type=Path, nargs="+")
    parser.add_argument("--task", required=True)
    parser.add_argument("--texts", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task(arguments.task)
    tokenizer = AutoTokenizer.from_pretrained(arguments.teacher)
    encoded = encode(task, "test", tokenizer)
    batches = [collate(encoded, [row]) for row in sample_rows(task, "test", arguments.texts)]
    with tempfile.TemporaryDirectory() as made:
        plain, int8 = stock(arguments.teacher, Path(made))
        runners = {
            "eager PyTorch": eager(arguments.teacher),
            "ONNX Runtime float, its own tools": session(plain),
            "ONNX Runtime dynamic INT8, its own tools": session(int8),
        }
        for folder in arguments.artefacts:
            about = json.loads((folder / "limbeck.json").read_text())
            runners[f"limbeck {folder.name}"] = session(folder / about["onnx_file"])
        calls = [lambda place, run=run: run(batches[place]) for run in runners.values()]
        timings = alternate(calls, len(batches), arguments.rounds, warmup=2)
        right = {
            name: float(
                np.mean([run(collate(encoded, [i])).argmax() == encoded.labels[i] for i in range(len(encoded))])
            )
            for name, run in runners.items()
        }
    table = []
    for (name, _), timing in zip(runners.items(), timings, strict=True):
        p50 = timing.p50[0] * 1e3
        over = {
            base: [round(float(x), 3) for x in paired_ratio(timings[at].rounds, timing.rounds)]
            for at, base in ((0, "eager"), (2, "int8"))
        }
        table.append({"model": name, "p50_ms": round(p50, 3), "accuracy": right[name], "speedup": over})
    tokens = float(np.mean([batch["attention_mask"].sum() for batch in batches]))
    about = {"texts": len(batches), "mean_tokens": tokens, "rounds": arguments.rounds, "examples": len(encoded)}
    print(json.dumps({"machine": environment(), **about, "threads": 1, "batch": 1, "table": table}, indent=2))


if __name__ == "__main__":
    main()
