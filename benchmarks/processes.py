"""Training throughput of one and of two processes on this machine: same model, texts, whole batch and cores.

    python benchmarks/processes.py --examples 1000 --repeats 3

Fine-tunes MiniLM on movie reviews without evaluations; the three ways alternate. Times are of the training loop alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from limbeck.distributed import context as processes

SETUPS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}


def train(arguments):
    """One process of one training; process 0 writes what came out."""
    from limbeck.core.candidate import Candidate
    from limbeck.core.step import RunContext
    from limbeck.data.loading import load_task
    from limbeck.model.checkpoints import open_model
    from limbeck.train.config import TrainingConfig
    from limbeck.train.finetuning import train_on_task
    from limbeck.train.objectives import Weighted
    from limbeck.train.task_loss import TaskLoss

    task = load_task("movie-reviews").limit(train=arguments.examples)
    model, tokenizer = open_model("minilm-l6", task=task, seed=0)
    plan = TrainingConfig(
        num_train_epochs=arguments.epochs,
        per_device_train_batch_size=arguments.batch // processes.count(),
        evaluations_per_epoch=0,
        mixed_precision="no",
    )
    objective = Weighted({"task": (1.0, TaskLoss(model.loss))})
    report = train_on_task(Candidate(model, tokenizer, task), objective, plan, RunContext(seed=0))
    if processes.rank() == 0:
        Path(arguments.worker).write_text(json.dumps([report.examples_per_second, report.steps]))
    if processes.count() > 1:
        processes.leave()


def measure(count, threads, arguments):
    """Examples a second of one training in processes of its own."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
        options = [f"--{name}={getattr(arguments, name)}" for name in ("examples", "epochs", "batch")]
        command = [sys.executable, *launch, __file__, *options, "--worker", str(result)]
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, check=True)
        return json.loads(result.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--batch", type=int, default=32, help="texts in a whole batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        train(arguments)
        return
    measured = {name: [] for name in SETUPS}
    for _ in range(arguments.repeats):
        for name, (count, threads) in SETUPS.items():
            speed, steps = measure(count, threads, arguments)
            measured[name].append(round(speed, 2))
    reference = next(iter(measured.values()))
    rows = [
        {
            "training": name,
            "examples_per_second": speeds,
            "median": statistics.median(speeds),
            "ratio_to_one": [round(speed / base, 3) for speed, base in zip(speeds, reference, strict=True)],
        }
        for name, speeds in measured.items()
    ]
    from limbeck.core.measurement import environment

    settings = {name: getattr(arguments, name) for name in ("examples", "epochs", "batch", "repeats")}
    print(json.dumps({"machine": environment(), "steps": steps, **settings, "table": rows}, indent=2))


if __name__ == "__main__":
    main()
