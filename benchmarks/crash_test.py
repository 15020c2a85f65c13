"""Kill runs at random moments, half of them with gc beside, and compare what they end with to an uninterrupted run.

    python benchmarks/crash_test.py --runs 25 --kills 4

Each run fine-tunes, prunes, distills, exports and quantizes two layers of MiniLM-L6 on a few movie reviews, in a store
of its own. It is killed (SIGKILL) several times and then left alone. It must end with the same candidates, the same
figures and the same bytes of the artefact's ONNX file. Prints JSON; exit status 1 if anything differs.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from limbeck.core.measurement import environment
from limbeck.storage.digests import folder_digests

RECIPE = """
model: minilm-l6
task: {path: movie-reviews, limit: {train: 96, validation: 48, test: 48}}
allow_weak_teacher: true
budget: {max_drop: 100}
steps:
  - student_init: {layers: 2, init: layers}
  - finetune: {epochs: 2, save_seconds: 0}
  - fork: [[], [{prune: {heads: 6, ffn: 512}}, {distill: {epochs: 2, save_seconds: 0}}]]
  - export: {}
  - quantize: {}
  - size: {}
  - quality: {split: validation}
  - cheapest: {}
"""
TIMES = ("latency", "speedup")


def command(folder, store):
    run = ["run", str(folder / "recipe.yaml"), "--folder", str(folder / "run"), "--out", str(folder / "artefact")]
    return [sys.executable, "-m", "limbeck", *run, "--store", str(store)]


def begin(folder, store):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command(folder, store), start_new_session=True, **quiet)


def outcome(folder):
    """Rows of the front without times, and digests of the ONNX files."""
    with open(folder / "run" / "front.csv", newline="", encoding="utf-8") as stream:
        rows = [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in csv.DictReader(stream)]
    return rows, folder_digests(folder / "artefact" / "onnx")


def collect_beside(store):
    """Start gc in a loop; the caller ends it."""
    loop = (
        "import subprocess, sys\n"
        "while True: subprocess.run([sys.executable, '-m', 'limbeck', 'gc', '--all', '--store', sys.argv[1]],"
        " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)"
    )
    return subprocess.Popen([sys.executable, "-c", loop, str(store)], start_new_session=True)


def end(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def interrupted(folder, store, rng, kills, seconds, collecting):
    """Kill a run at random moments, then let it finish; return how it ended."""
    beside = collect_beside(store) if collecting else None
    landed = 0
    try:
        for _ in range(kills):
            process = begin(folder, store)
            try:
                process.wait(timeout=rng.uniform(0.1, 0.6) * seconds)
            except subprocess.TimeoutExpired:
                end(process)
                landed += 1
        process = begin(folder, store)
        message = process.communicate()[1].decode(errors="replace")
    finally:
        if beside is not None:
            end(beside)
    return {"kills": landed, "gc": collecting, "status": process.returncode, "message": message[-500:]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--kills", type=int, default=4, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, rows = random.Random(arguments.seed), []
    with tempfile.TemporaryDirectory() as place:
        root, start = Path(place), time.perf_counter()
        whole = begin(root / "whole", root / "store")
        message = whole.communicate()[1].decode(errors="replace")
        if whole.returncode:
            sys.exit(message)
        seconds, expected = time.perf_counter() - start, outcome(root / "whole")
        for number in range(arguments.runs):
            folder = root / f"run-{number}"
            row = interrupted(folder, folder / "store", rng, arguments.kills, seconds, number % 2 == 1)
            row["same"] = row["status"] == 0 and outcome(folder) == expected
            print(json.dumps(row), file=sys.stderr, flush=True)
            rows.append(row)
    same = sum(row["same"] for row in rows)
    summary = {"runs": len(rows), "kills": sum(row["kills"] for row in rows), "same": same}
    print(json.dumps({"machine": environment(), "seconds_uninterrupted": round(seconds, 1), **summary}, indent=2))
    sys.exit(same != len(rows))


if __name__ == "__main__":
    main()
