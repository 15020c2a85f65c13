"""Make what a user would pick in limbeck's place, from the same fine-tuned model and the same texts.

    python -m benchmarks.peers.make TEACHER --task movie-reviews --out peers/mr --like runs/movie-reviews/artefact

TEACHER is a plain checkpoint of the fine-tuned model (``limbeck save RUN KEY --plain --to TEACHER``). Every peer gets
a folder with ``peer.json``, which says how it is opened; one that has it is not made again. ``--limit 64 --epochs 1``
shows in minutes whether all of it works.
"""

import argparse
import contextlib
import copy
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

warnings.filterwarnings("ignore")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from limbeck.core.measurement import environment
from limbeck.data.batching import collate, encode
from limbeck.data.loading import load_task
from limbeck.errors import InputError
from limbeck.measure.samples import sample_rows
from limbeck.model.location import read_config

from . import entries, fit, static, stock, students

CALIBRATION = 300  #: training texts for NNCF, its own default
FREE = ("out", "only", "threads", "like")  #: options that may change from one call to the next
TOOLS = ("nncf", "torch-pruning", "model2vec", "skeletoken", "scikit-learn")


@dataclass(frozen=True)
class Job:
    """What is made for one teacher, task and seed, and where."""

    settings: dict
    out: Path
    like: str | None = None

    @cached_property
    def task(self):
        task = load_task(self.settings["task"])
        limit = self.settings["limit"]
        return task.limit(train=limit, validation=limit) if limit else task

    @cached_property
    def tokenizer(self):
        return AutoTokenizer.from_pretrained(self.settings["teacher"])

    @cached_property
    def teacher(self):
        """The fine-tuned model, with attention as exporters know it."""
        entries.check_labels(self.settings["teacher"], self.task)
        folder = self.settings["teacher"]
        return AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()

    def batches(self, split, rows):
        """Some texts of a split as a runtime takes them: int64 [1, tokens] by name."""
        encoded = encode(self.task, split, self.tokenizer)
        batches = [collate(encoded, [row]) for row in rows]
        return [{name: batch[name].numpy() for name in stock.INPUTS if name in batch} for batch in batches]

    def trained(self, model, folder, **others):
        """Train a student and quantize it by ONNX Runtime's tools: what ``peer.json`` says of it."""
        options = {name: self.settings[name] for name in ("seed", "epochs", "batch", "learning_rate", "bf16")}
        best = fit.fit(model, self.tokenizer, self.task, **options, **others)
        plain = stock.onnx(model, folder)
        stock.onnx_int8(plain, folder / "int8.onnx")
        plain.unlink()
        return {"kind": "onnxruntime", "file": "int8.onnx", "validation": best}


def pytorch(**options):
    """The checkpoint itself in torch."""
    return lambda job, folder: {"kind": "torch", "folder": job.settings["teacher"], "options": options}


def onnx_float(job, folder):
    stock.onnx(job.teacher, folder)
    return {"kind": "onnxruntime", "file": "float.onnx"}


def onnx_int8(job, folder):
    stock.onnx_int8(make(job, "onnxruntime") / "float.onnx", folder / "int8.onnx")
    return {"kind": "onnxruntime", "file": "int8.onnx"}


def openvino(job, folder):
    stock.openvino(job.teacher, folder)
    return {"kind": "openvino", "file": "float.xml"}


def openvino_float32(job, folder):
    file = make(job, "openvino") / "float.xml"
    return {"kind": "openvino", "file": os.path.relpath(file, folder), "options": {"precision": "f32"}}


def openvino_int8(job, folder):
    rows = sample_rows(job.task, "train", CALIBRATION, job.settings["seed"])
    stock.openvino_int8(job.teacher, folder, job.batches("train", rows))
    return {"kind": "openvino", "file": "int8.xml"}


def pruned(keep):
    """Pruned by Torch-Pruning to what ``keep`` finds of the artefact after ``--like``, then fine-tuned."""

    def make_pruned(job, folder):
        teacher = copy.deepcopy(job.teacher)
        students.collect_gradients(teacher, job.tokenizer, job.task)
        heads = keep(job, teacher)
        return job.trained(students.pruned(teacher, heads), folder) | {"like": job.like, "heads": heads}

    return make_pruned


def as_large(job, teacher):
    return students.as_large_as(teacher, job.like)


def as_fast(job, teacher):
    rows = sample_rows(job.task, "validation", 20)
    return students.as_fast_as(teacher, entries.onnx_file(job.like), job.batches("validation", rows))


def half(job, folder):
    return job.trained(students.every_second_layer(job.teacher), folder)


def half_distilled(job, folder):
    return job.trained(students.every_second_layer(job.teacher), folder, teacher=job.teacher)


def static_embeddings(job, folder):
    import numpy as np
    from model2vec.distill import distill

    base, _ = read_config(job.settings["base"])
    model = distill(model_name=str(base), device="cpu")
    model.save_pretrained(folder / "embeddings")
    weights, bias, best = static.train(model, job.task)
    np.savez(folder / "regression.npz", weights=weights, bias=bias)
    return {"kind": "static", "file": "embeddings", "validation": best}


@dataclass(frozen=True)
class Peer:
    """What a row of the comparison is called, and the function that makes it."""

    words: str
    make: Callable[[Job, Path], dict]


PEERS = {
    "eager": Peer("eager PyTorch", pytorch()),
    "eager-bf16": Peer("eager PyTorch, bfloat16", pytorch(dtype="bfloat16")),
    "compile": Peer("torch.compile", pytorch(compiled=True)),
    "onnxruntime": Peer("ONNX Runtime float", onnx_float),
    "onnxruntime-int8": Peer("ONNX Runtime dynamic INT8", onnx_int8),
    "openvino": Peer("OpenVINO, its own choice of precision", openvino),
    "openvino-f32": Peer("OpenVINO float32", openvino_float32),
    "openvino-int8": Peer("OpenVINO, INT8 by NNCF", openvino_int8),
    "torch-pruning": Peer("Torch-Pruning to the artefact's size, fine-tuned, ONNX Runtime INT8", pruned(as_large)),
    "torch-pruning-fast": Peer("Torch-Pruning to its speed, fine-tuned, ONNX Runtime INT8", pruned(as_fast)),
    "half": Peer("every second layer, fine-tuned, ONNX Runtime INT8", half),
    "half-distilled": Peer("every second layer, distilled, ONNX Runtime INT8", half_distilled),
    "model2vec": Peer("model2vec and logistic regression", static_embeddings),
}
"""All peers by the names of their folders."""


def make(job, name):
    """The folder of a peer, made unless it is there."""
    folder = job.out / name
    if (folder / "peer.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):  # tools print
        metadata = PEERS[name].make(job, folder)
    metadata = {"name": PEERS[name].words, "seconds": round(time.perf_counter() - start, 1), **metadata}
    (folder / "peer.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    print(f"{name}: {json.dumps(metadata)}", flush=True)
    return folder


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", help="plain checkpoint of the fine-tuned model")
    parser.add_argument("--task", required=True, type=yaml.safe_load, help="as in a recipe: name, path or {path: …}")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--like", help="artefact whose size and speed Torch-Pruning is to reach")
    parser.add_argument("--base", default="minilm-l6", help="pretrained model that model2vec distills")
    parser.add_argument("--limit", type=int, help="train and validate on so many texts, to try it out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--bf16", action="store_true", help="train in mixed precision, as the recipes do")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def opened(arguments):
    """The job in its folder; a folder belongs to the settings that it was begun with."""
    settings = {name: value for name, value in vars(arguments).items() if name not in FREE}
    missing = [name for name in arguments.only if not (arguments.out / name / "peer.json").is_file()]
    if arguments.like is None and any(name.startswith("torch-pruning") for name in missing):
        raise InputError("torch-pruning: --like should name the artefact whose size and speed it is to reach")
    job_file = arguments.out / "job.json"
    if job_file.is_file():
        earlier = json.loads(job_file.read_text(encoding="utf-8"))["settings"]
        others = [name for name in settings if settings[name] != earlier.get(name)]
        if others:
            changes = ", ".join(f"{name} {earlier.get(name)!r}, now {settings[name]!r}" for name in others)
            raise InputError(f"{arguments.out} was begun with other settings ({changes}); give another --out")
    else:
        arguments.out.mkdir(parents=True, exist_ok=True)
        content = {"settings": settings, "environment": environment(), "tools": versions()}
        job_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return Job(settings, arguments.out, arguments.like)


def versions():
    """Versions of the tools that are installed."""
    versions_installed = {}
    for name in TOOLS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions_installed[name] = metadata.version(name)
    return versions_installed


def main():
    arguments = parsed()
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    failed = False
    try:
        job = opened(arguments)
    except InputError as error:
        sys.exit(str(error))
    for name in arguments.only:
        try:
            make(job, name)
        except Exception as error:  # what cannot be made on this machine is told, and the others are made
            failed = True
            print(f"{name}: not made: {type(error).__name__}: {error}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
