"""Training throughput beside ``transformers.Trainer``: same model, data, batch, epochs, threads and learning rate.

    python benchmarks/throughput.py --examples 2000 --epochs 1

Runs alternate: limbeck, Trainer with its defaults, Trainer with its own length grouping, and again. Accuracy is that of
the last weights on the test split.
"""

import argparse
import contextlib
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
logging.disable(logging.WARNING)

import torch
from peers.fit import Answers, Rows, settings
from transformers import DataCollatorWithPadding, Trainer

from limbeck.core.candidate import Candidate
from limbeck.core.measurement import environment
from limbeck.core.statistics import wilson
from limbeck.core.step import RunContext
from limbeck.data.batching import encode, predict
from limbeck.data.loading import load_task
from limbeck.model.checkpoints import open_model
from limbeck.model.pretrained import to_transformers
from limbeck.techniques.finetune import Finetune


def limbeck(model, tokenizer, task, arguments):
    step = Finetune.of(
        num_train_epochs=arguments.epochs,
        per_device_train_batch_size=arguments.batch,
        learning_rate=5e-5,
        evaluations_per_epoch=0,
        mixed_precision="no",
    )
    start = time.perf_counter()
    list(step.apply(Candidate(model, tokenizer, task), RunContext(seed=0)))
    return time.perf_counter() - start, model


def trainer(model, tokenizer, task, arguments, **options):
    plain = to_transformers(model)
    with tempfile.TemporaryDirectory() as folder:
        common = {"epochs": arguments.epochs, "batch": arguments.batch, "learning_rate": 5e-5, "seed": 0}
        chosen = settings(folder, save_strategy="no", **common, **options)
        rows = Rows(encode(task, "train", tokenizer))
        work = Trainer(plain, chosen, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer))
        start = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):  # Trainer prints its own summary
            work.train()
        seconds = time.perf_counter() - start
    return seconds, Answers(plain)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    task = load_task("movie-reviews").limit(train=arguments.examples)
    kinds = {
        "limbeck": limbeck,
        "Trainer, defaults": trainer,
        "Trainer, length grouping": lambda *run: trainer(*run, train_sampling_strategy="group_by_length"),
    }
    speeds = {name: [] for name in kinds}
    right = {}
    for _ in range(arguments.repeats):
        for name, train in kinds.items():
            model, tokenizer = open_model("minilm-l6", task=task, seed=0)
            seconds, trained = train(model, tokenizer, task, arguments)
            speeds[name].append(arguments.examples * arguments.epochs / seconds)
            test = encode(task, "test", tokenizer)
            right[name] = round(task.score(predict(trained, test, 64), test.labels) * len(test))
    rows = [
        {
            "training": name,
            "examples_per_second": [round(speed, 2) for speed in values],
            "ratio_to_defaults": [round(a / b, 3) for a, b in zip(values, speeds["Trainer, defaults"], strict=True)],
            "median": round(statistics.median(values), 2),
            "accuracy": [round(float(x), 4) for x in wilson(right[name], len(test))],
        }
        for name, values in speeds.items()
    ]
    context = {"machine": environment(), "threads": torch.get_num_threads(), **vars(arguments), "test": len(test)}
    print(json.dumps(context | {"table": rows}, indent=2))


if __name__ == "__main__":
    main()
