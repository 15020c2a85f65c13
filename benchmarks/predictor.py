"""How well is latency predicted? Fit on measured shapes, test on others measured later.

    python benchmarks/predictor.py FOLDER     # 200 shapes to fit on, 60 to test on, float and INT8
    python benchmarks/predictor.py FOLDER --train 24 --test 6 --seconds 1 --layers 1 2 --mlp-widths 32 --mlp-steps 20

One thread, ONNX Runtime. Training shapes are spread over the space by cost, test shapes are sampled uniformly
and all timed twice, in different processes: how far the two measures differ is the noise that no predictor can beat.
Interrupted, the same command goes on. Prints JSON; nothing else should run meanwhile.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from random import Random

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from learning_curve import learning_curve
from mlp import MlpPredictor

from limbeck.core.analytic_cost import of_model
from limbeck.core.measurement import environment
from limbeck.core.target import Target
from limbeck.cost_models.boosted_fit import check_extra
from limbeck.cost_models.collection import Collection, collect, middle
from limbeck.cost_models.latency_predictor import FEWEST, Errors, Predictor
from limbeck.cost_models.shape_sampling import STEPS, sample_shapes, space_below
from limbeck.measure.dummy_model import Setting, style_of
from limbeck.model.checkpoints import open_model


def measured(folder: Path, arguments: argparse.Namespace):
    """The space, and for each number format the training and the test series."""
    shape, style = of_model(open_model(arguments.model)[0])
    bounds = {name: getattr(arguments, name) for name in STEPS}
    space = space_below(shape, bounds, not arguments.uniform)
    target = Target(seq_len=arguments.seq_len)
    formats = arguments.number_format
    settings = tuple(Setting(style_of(style), target, number_format, arguments.seq_len) for number_format in formats)
    train = tuple(sample_shapes(space, arguments.train, seed=arguments.seed))
    test = sample_shapes(space, arguments.test + 2, method="uniform", seed=arguments.seed + 1, without=set(train))
    shapes = (middle(train), *test[: arguments.test])  # the anchor tells how the machine changed in between
    effort = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    training = Collection(train, settings, seed=arguments.seed, **effort)
    testing = Collection(shapes, settings, repeated=1.0, **effort)
    files = [
        collect(plan, folder / name, report) for plan, name in ((training, "train.jsonl"), (testing, "test.jsonl"))
    ]
    return space, [[data.series(number_format=number_format) for data in files] for number_format in formats]


def report(event: dict) -> None:
    message = f"{event['turn']}, {event['setting'].number_format}: {event['done']} of {event['total']}"
    print(message, file=sys.stderr, flush=True)


def evaluate(space, train, test, arguments: argparse.Namespace) -> dict:
    anchor = middle(train.shapes)
    seconds = dict(zip(test.shapes, test.seconds, strict=True))
    then = dict(zip(train.shapes, train.seconds, strict=True))[anchor]
    changed = float(seconds.pop(anchor) / then)
    shapes, real = list(seconds), np.array(list(seconds.values()))
    twice = [turns for shape, turns in test.measures.items() if {"first", "repeat"} <= {*turns} and shape != anchor]
    again = Errors.of(*(np.array([turns[name] for turns in twice]) for name in ("repeat", "first")))
    predictor = Predictor.of(train, arguments.seed)
    errors_of = {"predictor": asdict(Errors.of(predictor.seconds_of(shapes), real))}
    for width in arguments.mlp_widths:
        options = {"width": width, "steps": arguments.mlp_steps, "seed": arguments.seed}
        mlp = MlpPredictor.fit(predictor.shapes, predictor.seconds, **options)
        errors_of[f"mlp {width}"] = asdict(Errors.of(mlp.seconds_of(shapes), real))
    errors_of |= {"cross-validated": asdict(predictor.errors), "additive alone": asdict(predictor.errors_additive)}
    bounds = {level: float((real <= predictor.uppers(shapes, level)).mean()) for level in (0.5, 0.8, 0.9, 0.95)}
    sizes = [size for size in arguments.curve if FEWEST <= size < 0.9 * len(predictor.shapes)]
    curve = learning_curve(predictor.shapes, np.array(predictor.seconds), train.setting, sizes)
    many = [space.sample(Random(number)) for number in range(arguments.throughput)]
    predictor.seconds_of(many[:10])
    start = time.perf_counter()
    predictor.uppers(many)
    return {
        "number_format": train.setting.number_format,
        "learned_from": len(predictor.shapes),
        "judged_by": len(shapes),
        "milliseconds": [round(float(edge) * 1e3, 3) for edge in (real.min(), np.median(real), real.max())],
        "unseen": {name: shares(errors) for name, errors in errors_of.items()},
        "same_shape_measured_twice": shares(asdict(again)),
        "drift_of_groups": [round(float(edge), 4) for edge in np.quantile(train.drift, [0, 0.5, 1])],
        "anchor_later_over_before": round(changed, 4),
        "noise_within_a_process": round(train.noise, 4),
        "trees_used": predictor.boosted,
        "share_below_upper_bound": bounds,
        "extrapolating": int(predictor.extrapolates(shapes).sum()),
        "learning_curve": [shares(row) for row in curve],
        "predictions_a_second": round(len(many) / (time.perf_counter() - start)),
    }


def shares(row: dict) -> dict:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="minilm-l6")
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--test", type=int, default=60)
    parser.add_argument("--number-format", nargs="+", default=["float", "int8"], choices=["float", "int8"])
    parser.add_argument("--seq-len", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=8.0, help="that a process times at least")
    parser.add_argument("--uniform", action="store_true", help="the same widths in all layers, as the originals have")
    parser.add_argument("--mlp-widths", type=int, nargs="*", default=[2000, 400])
    parser.add_argument("--mlp-steps", type=int, default=5000)
    parser.add_argument("--curve", type=int, nargs="*", default=[25, 50, 100, 150])
    parser.add_argument("--throughput", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    for name in STEPS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, nargs="+", metavar="N")
    arguments = parser.parse_args()
    check_extra()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    space, pairs = measured(arguments.folder, arguments)
    settings = {"space": space.to_json(), "seq_len": arguments.seq_len, "threads": 1, "batch": 1}
    results = [evaluate(space, *pair, arguments) for pair in pairs]
    print(json.dumps({"machine": environment(), **settings, "results": results}, indent=2))


if __name__ == "__main__":
    main()
