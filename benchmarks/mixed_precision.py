"""Training in float32, in bfloat16 and in what ``mixed_precision: auto`` chooses: is that the faster of the two?

    OMP_NUM_THREADS=1 python benchmarks/mixed_precision.py --model minilm-l6 --task movie-reviews --batches 100

Every training begins with the same weights and takes the same batches; the settings alternate. ``auto`` chooses anew
each time; how long its trial takes is shown beside, as a store keeps its times.
"""

import argparse
import os
import statistics
import time
import warnings
from dataclasses import replace

warnings.filterwarnings("ignore")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from limbeck.core.cost import measure_now
from limbeck.core.measurement import environment
from limbeck.data.batching import encode
from limbeck.data.loading import load_task
from limbeck.model.checkpoints import open_model
from limbeck.train import precision
from limbeck.train.config import TrainingConfig
from limbeck.train.loop import fit
from limbeck.train.objectives import Weighted
from limbeck.train.task_loss import TaskLoss


def train(setting, task, arguments):
    """One training; return its report, the seconds of the trial, and what was chosen."""
    model, tokenizer = open_model(arguments.model, task=task, seed=0)
    objective, texts = Weighted({"task": (1.0, TaskLoss(model.loss))}), encode(task, "train", tokenizer)
    plan = TrainingConfig(
        num_train_epochs=1e-6,
        min_steps=arguments.batches,
        per_device_train_batch_size=arguments.batch,
        mixed_precision=setting,
    )
    messages, start = [], time.perf_counter()
    chosen = precision.resolved(model, objective, texts, plan, 0, None, messages.append, measure_now)
    seconds = time.perf_counter() - start
    report = fit(model, objective, texts, replace(plan, mixed_precision=chosen), seed=0)
    return report, seconds, "".join(messages)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm-l6", help="folder or name of a model")
    parser.add_argument("--task", default="movie-reviews")
    parser.add_argument("--batches", type=int, default=100, help="steps of a training")
    parser.add_argument("--batch", type=int, default=32, help="texts in a batch")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    precision.FEWEST_BATCHES, precision.LEAST_OPERATIONS = 1, 0  # a trial for these few batches, too
    task = load_task(arguments.task)
    settings = ("no", precision.half_of(torch.device("cuda" if torch.cuda.is_available() else "cpu")), "auto")
    speeds, trials, chosen = {setting: [] for setting in settings}, [], []
    for _ in range(arguments.repeats):
        for setting in settings:
            report, seconds, message = train(setting, task, arguments)
            speeds[setting].append(report.examples_per_second)
            if setting == "auto":
                trials.append(seconds)
                chosen.append(report.mixed_precision)
                print(message)
    print(f"\n{environment()['processor']}, {torch.get_num_threads()} threads; {arguments.model}, {arguments.task},")
    print(f"{arguments.batches} batches of {arguments.batch} texts\n")
    print("| mixed_precision | examples/s, each run | median |\n|---|---|---|")
    medians = {setting: statistics.median(values) for setting, values in speeds.items()}
    for setting, values in speeds.items():
        name = f"auto ({', '.join(chosen)})" if setting == "auto" else setting
        print(f"| {name} | {', '.join(f'{value:.1f}' for value in values)} | {medians[setting]:.1f} |")
    faster = max(settings[:2], key=lambda setting: medians[setting])
    right = sum(each == faster for each in chosen)
    print(f"\nThe faster one is {faster}; auto chose it {right} times of {len(chosen)}.", end=" ")
    print(f"A trial took {statistics.median(trials):.1f} s; without a store there is one for each training.")


if __name__ == "__main__":
    main()
