"""Carry out the work that needs a GPU, one stage after another, and write one JSON file.

    bash benchmarks/gpu/run.sh [--device cuda] [--tiny] [--minutes 9.5] [--out results.json] [--stages tests grid]

The stages: ``tests`` (the marker ``gpu``), ``grid`` (the grid of the original's run_perf: BERT-large, 128 texts of 128
tokens, in every precision and runtime), ``training`` (a base-size teacher on SST-2 and a student of it, exported in
float16 and measured) and ``bench`` (the command itself). Each runs in a process of its own and is ended when its time
is up; the file is written after every stage, so what was measured before an interruption is kept. Exit status 1: a
stage failed. What the machine lacks is not a failure; the stage then says under ``skipped`` what it is.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SECONDS = {"tests": 150, "grid": 200, "training": 260, "bench": 60}
"""Most seconds of each stage, in the order in which they run."""


def commands(arguments):
    """What each stage runs; with --tiny in a size for two cores."""
    device, tiny, work = arguments.device, ["--tiny"] if arguments.tiny else [], arguments.work
    training = [str(HERE / "training.py"), "--device", device, "--work", str(work / "training"), *tiny]
    for option, value in (("--teacher", arguments.teacher), ("--task", arguments.task), ("--wheels", arguments.wheels)):
        training += [option, str(value)] if value else []
    files = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text("utf-8"))
    tests = ["-m", "pytest", "-n", "0", "-m", "gpu", "-rs", "-p", "no:cacheprovider", *files]
    large, base = ("--base", "bert-large-uncased"), ("--base", "bert-base-uncased")
    sizes = (*large, "--layers", "2", "4", "--batch", "128", "--seq-len", "128", "--calls", "20")
    small = (*base, "--layers", "1", "--batch", "2", "--seq-len", "16", "--calls", "4")
    how = ("--runtime", "torch", "--precision", "float16", "--trials", "1", "--device", device)
    folder = ("--folder", str(work / "bench"), "--store", str(work / "store"), "--json")
    return {
        "tests": tests,
        "grid": [str(HERE / "grid.py"), "--device", device, *tiny],
        "training": training,
        "bench": ["-m", "limbeck", "bench", *(small if arguments.tiny else sizes), *how, *folder],
    }


def environment(device):
    """The machine, its libraries and its GPUs."""
    from limbeck.core.measurement import environment as described

    facts = dict(described())
    if (program := shutil.which("nvidia-smi")) is not None:
        query = "name,driver_version,memory.total,clocks.max.sm,power.limit"
        asked = subprocess.run([program, f"--query-gpu={query}", "--format=csv"], capture_output=True, text=True)
        facts["nvidia_smi"] = asked.stdout.strip().splitlines()
    import onnxruntime
    import torch

    facts |= {"cuda": torch.version.cuda, "onnxruntime_providers": onnxruntime.get_available_providers()}
    if device.startswith("cuda") and torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name(torch.device(device))
    return facts


def stage(name, command, seconds):
    """Run a stage; return the last result that it printed, and why it failed if it did."""
    started, problem = time.monotonic(), {}
    try:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, timeout=seconds, capture_output=True, text=True)
        out, told = done.stdout, done.stderr
        if done.returncode:
            problem = {"failed": f"exit status {done.returncode}", "stderr": told[-3000:]}
    except subprocess.TimeoutExpired as error:
        out, told = (  # bytes, though text was asked for
            text.decode(errors="replace") if isinstance(text, bytes) else text or ""
            for text in (error.stdout, error.stderr)
        )
        problem = {"failed": f"ended after {seconds:.0f} seconds", "stderr": told[-3000:]}
    took = {"seconds": round(time.monotonic() - started, 1)}
    return took | problem | (tested(out) if name == "tests" else last_result(out))


def tested(out):
    """What pytest printed: its last line, and which tests failed or were skipped."""
    lines = [line for line in out.splitlines() if line.strip()]
    found = {"summary": lines[-1] if lines else "", "skips": [line for line in lines if line.startswith("SKIPPED")]}
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return found | ({"failed": failures, "output": lines[-60:]} if failures else {})


def last_result(out):
    """The last JSON object that a stage printed, one a line or the whole output."""
    for text in (out, *reversed(out.splitlines())):
        try:
            found = json.loads(text)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}


def write(path, results):
    """Replace the file by a whole one."""
    draft = path.with_name(f"{path.name}.part")
    draft.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--tiny", action="store_true", help="small models and few texts")
    parser.add_argument("--minutes", type=float, default=9.5, help="for everything; later stages get what is left")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--stages", nargs="+", choices=list(SECONDS), default=list(SECONDS))
    parser.add_argument("--teacher", help="folder of a base-size model [default: MPNet of the wheels, else MiniLM-L6]")
    parser.add_argument("--task", help="folder of SST-2 [default: benchmarks/data/sst2, else movie reviews]")
    parser.add_argument("--wheels", type=Path, help="folder of wheels, of which some may hold the teacher")
    parser.add_argument("--work", type=Path, required=True, help="folder of temporary files")
    arguments = parser.parse_args()
    started, limit = time.monotonic(), arguments.minutes * 60
    results = {"device": arguments.device, "tiny": arguments.tiny, "date": time.strftime("%Y-%m-%d %H:%M:%S")}
    results |= {"environment": environment(arguments.device), "stages": {}}
    for name, command in commands(arguments).items():
        if name not in arguments.stages:
            continue
        left = limit - (time.monotonic() - started)
        print(f"{name} …", file=sys.stderr, flush=True)
        short = {"failed": "no time was left"}
        most = left if arguments.tiny else min(left, SECONDS[name])  # a busy machine of two cores may need long
        found = stage(name, command, most) if left > 5 else short
        results["stages"][name] = found
        results["seconds"] = round(time.monotonic() - started, 1)
        write(arguments.out, results)
        print(f"{name}: {found.get('failed', 'done')} ({found.get('seconds', 0)} s)", file=sys.stderr, flush=True)
    print(f"{arguments.out}: {results['seconds']} s in all", file=sys.stderr)
    return any("failed" in found for found in results["stages"].values())


if __name__ == "__main__":
    sys.exit(main())
