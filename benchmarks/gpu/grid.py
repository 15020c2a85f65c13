"""Time the grid of the original's run_perf on a GPU: fewer layers, and less attention, of BERT-large.

    python benchmarks/gpu/grid.py --device cuda
    python benchmarks/gpu/grid.py --device cpu --tiny

128 texts of 128 tokens in a call, random weights. All architectures of a setting are loaded in one fresh process and
timed alternately (``limbeck bench`` starts a process for each, which would take an hour). The settings: torch eager in
float32, float16 and bfloat16, torch compiled, and ONNX Runtime in both of its precisions. Prints JSON: seconds of each
setting and architecture as median over rounds with quartiles, texts per second, and the ratio to the whole model.
"""

import argparse
import json
import shutil
import sys
import time

import numpy as np

from limbeck.benchmark.options import Grid
from limbeck.benchmark.plan import base_of, points_of
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.cost_models.collection import Collection, time_group
from limbeck.errors import LimbeckError
from limbeck.measure.dummy_model import Setting, style_of
from limbeck.model.style import Style

LAYERS, RATIOS = (24, 12, 8, 4, 2), (0.2, 0.4, 0.6, 0.8)
FEW = 4  #: architectures that are exported: a graph of BERT-large is written for half a minute
SMALL = Shape.uniform(layers=2, hidden=64, heads=4, ffn=128)
SETTINGS = (
    {"runtime": "torch"},
    {"runtime": "torch", "precision": "float16"},
    {"runtime": "torch", "precision": "bfloat16"},
    {"runtime": "onnxruntime", "precision": "float16"},
    {"runtime": "onnxruntime"},
    {"runtime": "tensorrt", "precision": "float16"},
    {"runtime": "torch", "precision": "float16", "compile": True},
)
TINY = tuple(each for each in SETTINGS if each.get("precision") == "float16")


def grid(tiny):
    """The points of the grid by name, the whole model first, and the style of its base."""
    if tiny:
        points = points_of(SMALL, Grid(layers=(2, 1))), points_of(SMALL, Grid(attention_ratio=(0.5,)))
        style = style_of(Style())
    else:
        shape, style = base_of("bert-large-uncased")
        points = points_of(shape, Grid(layers=LAYERS)), points_of(shape, Grid(attention_ratio=RATIOS))
    return {f"{point.group} {point.label}": point.shape for group in points for point in group}, style


def measured(setting, shapes, arguments):
    """Seconds of every shape in a setting, or why there are none."""
    if setting.target.compile and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return {"skipped": "torch.compile needs a C++ compiler"}
    try:
        setting.check()
    except LimbeckError as error:
        return {"skipped": str(error)}
    most = len(shapes) if setting.target.runtime == "torch" else FEW
    most = 1 + (not arguments.tiny) if setting.target.compile else most  # each is compiled anew
    names = list(shapes)[:most]
    rounds, calls = (4, 1) if arguments.tiny else (10, 2)
    plan = Collection(tuple(shapes.values()), (setting,), rounds=rounds, calls=calls, seconds=0.0)
    started = time.monotonic()
    try:
        seconds = np.asarray(time_group([shapes[name] for name in names], setting, plan))
    except LimbeckError as error:
        return {"failed": str(error)[-1500:]}
    rows, whole = {}, None
    for name, each in zip(names, seconds, strict=True):
        low, middle, high = np.quantile(np.median(each[len(each) // 10 :], axis=1), [0.25, 0.5, 0.75])
        whole = middle if whole is None else whole
        rows[name] = {
            "ms": float(f"{middle * 1e3:.5g}"),
            "quartiles_ms": [float(f"{each * 1e3:.5g}") for each in (low, high)],
            "over_whole": float(f"{whole / middle:.4g}"),
            "texts_per_second": float(f"{setting.target.batch / middle:.5g}"),
        }
    return {"rows": rows, "rounds": rounds, "seconds": round(time.monotonic() - started, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    shapes, style = grid(arguments.tiny)
    batch, tokens = (2, 16) if arguments.tiny else (128, 128)
    results = {"batch": batch, "tokens": tokens, "architectures": {name: str(each) for name, each in shapes.items()}}
    results["settings"] = {}
    for options in SETTINGS if not arguments.tiny else TINY:
        try:
            target = Target(arguments.device, batch=batch, seq_len=tokens, **options)
        except LimbeckError as error:
            name = " ".join(str(value) for value in options.values())
            results["settings"][name] = {"skipped": str(error)}
            continue
        print(target, file=sys.stderr, flush=True)
        print(json.dumps(results), flush=True)  # in case that time runs out
        results["settings"][str(target)] = measured(Setting(style, target, seq_len=tokens), shapes, arguments)
    failed = {name: found["failed"] for name, found in results["settings"].items() if "failed" in found}
    print(json.dumps(results | ({"failed": failed} if failed else {})))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
