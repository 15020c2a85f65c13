"""FastFormers' comparison factor by factor: from a padded base model in eager PyTorch to a pruned student in INT8.

    python -m benchmarks.base.factors --task benchmarks/data/sst2 --teacher benchmarks/base/teachers/sst2 \
      --models "ONNX Runtime=runs/a" "INT8=runs/b" "MiniLM-L6=runs/c" "pruned 2x=runs/d"

Each model has one factor more than the one before it. All are timed in turns in one process: token ids to logits, one
thread, one text a call, texts of the test split. ``--models`` are exported folders. Prints a table; ``--json``
keeps it.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from benchmarks.peers.entries import check_labels, onnx_file
from benchmarks.peers.runners import RUNNERS, Encoder

from limbeck.core.measurement import environment
from limbeck.core.statistics import paired_ratio, wilson
from limbeck.data.loading import load_task
from limbeck.measure.samples import sample_rows
from limbeck.measure.timing import alternate


def padded(encoder, length):
    """The encoder with every text padded to one length."""
    encoder.tokenizer.enable_padding(length=length)
    return encoder


def opened(arguments):
    """Every model by the factor that it adds, in order."""
    teacher = Path(arguments.teacher)
    reads = (teacher / "tokenizer.json", arguments.max_length)
    models = {
        f"eager PyTorch, padded to {arguments.max_length}": padded(
            Encoder(RUNNERS["torch"](teacher, 1), *reads), arguments.max_length
        ),
        "dynamic length": Encoder(RUNNERS["torch"](teacher, 1), *reads),
    }
    for entry in arguments.models:
        name, _, folder = entry.partition("=")
        runner = RUNNERS["onnxruntime"](onnx_file(folder), 1)
        models[name] = Encoder(runner, Path(folder) / "tokenizer.json", arguments.max_length)
    return models


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", required=True)
    parser.add_argument("--teacher", required=True, help="folder of the fine-tuned base model")
    parser.add_argument("--models", nargs="+", required=True, metavar="FACTOR=FOLDER")
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--texts", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task({"path": arguments.task, "max_length": arguments.max_length})
    for folder in (arguments.teacher, *(entry.partition("=")[2] for entry in arguments.models)):
        check_labels(folder, task)
    test = task.split("test")
    texts = [(text,) for text in test.texts]
    timed = [texts[row] for row in sample_rows(task, "test", arguments.texts)]
    models = opened(arguments)
    calls = []
    for model in models.values():
        inputs = [model.read(row) for row in timed]
        calls.append(lambda index, model=model, inputs=inputs: model.runner(inputs[index]))
    rounds = [timing.rounds for timing in alternate(calls, len(timed), arguments.rounds, warmup=2)]
    table = []
    for place, (name, model) in enumerate(models.items()):
        right = sum(model.label(row) == label for row, label in zip(texts, test.labels, strict=True))
        table.append(
            {
                "factor": name,
                "p50_ms": 1000 * float(np.median(rounds[place])),
                "over_the_one_before": paired_ratio(rounds[max(0, place - 1)], rounds[place]),
                "over_the_first": paired_ratio(rounds[0], rounds[place]),
                "accuracy": wilson(right, len(texts)),
            }
        )
    print("| | p50 ms | factor | in all | test accuracy |\n|---|---|---|---|---|")
    for row in table:
        value, low, high = row["over_the_one_before"]
        whole, accuracy = row["over_the_first"], [100 * x for x in row["accuracy"]]
        print(
            f"| {row['factor']} | {row['p50_ms']:.2f} | {value:.2f}x [{low:.2f}, {high:.2f}] | {whole[0]:.1f}x "
            f"| {accuracy[0]:.1f} [{accuracy[1]:.1f}, {accuracy[2]:.1f}] |"
        )
    if arguments.json:
        facts = {"machine": environment(), "threads": 1, "batch": 1, "table": table}
        Path(arguments.json).write_text(json.dumps(facts, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
