"""Kill workers, nodes and the run itself at random moments, and compare what it ends with to a run in one process.

    python benchmarks/kill_workers.py --executor processes --kills 20
    python benchmarks/kill_workers.py --executor ray --kills 20

A run fine-tunes, prunes, distills, exports and quantizes small parts of MiniLM-L6 on a few movie reviews. With Ray the
cluster has three nodes on this machine, each with a raylet of its own, and a killed node is replaced. Runs follow one
another, each in a store of its own, until so many kills have landed. Each must end with the same candidates, weights
and figures, and must not do again what was finished. Prints JSON; exit status 1 if anything differs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

from limbeck.core.measurement import environment
from limbeck.engine.ledger import Ledger

RECIPE = """
model: minilm-l6
task: {path: movie-reviews, limit: {train: 96, validation: 48, test: 48}}
allow_weak_teacher: true
budget: {max_drop: 100}
replicas: 2
steps:
  - student_init: {layers: 2, init: layers}
  - finetune: {epochs: 2, save_seconds: 0, mixed_precision: "no"}
  - fork:
      - []
      - [{prune: {heads: 6, ffn: 512}}, {distill: {epochs: 2, save_seconds: 0, mixed_precision: "no"}}]
      - [{prune: {heads: 4, ffn: 256}}, {distill: {epochs: 2, save_seconds: 0, mixed_precision: "no"}}]
  - fork: [[], [{export: {}}, {quantize: {}}]]
  - size: {}
  - quality: {split: validation}
  - best: {}
"""


def begin(folder, options):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "limbeck", "run", str(folder / "recipe.yaml"), "--folder", str(folder / "run")]
    command += ["--store", str(folder / "store"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
    with open(folder / "stderr", "ab") as log:
        return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=log, env=environment)


def outcome(folder):
    """Front and choice, facts but times, and the weights of every candidate."""
    records = Ledger(folder / "run" / "ledger.jsonl").read()
    ends = [row for row in records if row["event"] == "finished"][-1]
    keys = sorted({row["record"]["key"] for row in records if row["event"] == "record"})
    weights = {}
    for key in keys:
        file = folder / "store" / "objects" / key / "model.safetensors"
        weights[key] = load_file(file) if file.is_file() else {}
    facts = {
        row["key"]: sorted((fact["name"], fact["value"]) for fact in row["facts"])
        for row in records
        if row["event"] == "facts"
    }
    return {name: ends[name] for name in ("front", "chosen", "replicas", "failed")}, facts, weights


def equal(one, other):
    (ends, facts, weights), (ends_, facts_, weights_) = one, other
    same = weights.keys() == weights_.keys() and all(
        weights[key].keys() == weights_[key].keys()
        and all(torch.equal(value, weights_[key][name]) for name, value in weights[key].items())
        for key in weights
    )
    return ends == ends_ and facts == facts_ and same


def made_twice(folder):
    """Steps that were carried out to their end more than once: their children appeared twice."""
    times = {}
    for row in Ledger(folder / "run" / "ledger.jsonl").read():
        if row["event"] == "record":
            times[row["record"]["key"]] = times.get(row["record"]["key"], set()) | {row["record"]["duration"]}
    return sum(len(durations) > 1 for durations in times.values())


def workers_of(process, cluster):
    """Processes that carry out work."""
    roots = [psutil.Process(process.pid)] if cluster is None else [psutil.Process()]
    found = []
    for root in roots:
        for child in root.children(recursive=True):
            with suppress(psutil.Error):
                line = " ".join(child.cmdline())
                if "spawn_main" in line or "ray::_carry_out" in line:
                    found.append(child)
    return found


class Nodes:
    """A Ray cluster of three nodes here."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.others = [self.cluster.add_node(num_cpus=1) for _ in range(2)]

    def options(self, folder):
        settings = folder.parent / "settings.yaml"
        settings.write_text(f"executor: {{executor: ray, address: '{self.cluster.address}', workers: 3, threads: 1}}\n")
        return ["--settings", str(settings)]

    def kill(self, rng):
        index = rng.randrange(len(self.others))
        self.cluster.remove_node(self.others[index], allow_graceful=False)
        self.others[index] = self.cluster.add_node(num_cpus=1)

    def close(self):
        self.cluster.shutdown()


def interrupted(folder, options, rng, seconds, kills, nodes):
    """Carry out a run that is interrupted; return what was killed."""
    killed, process = [], begin(folder, options)
    while process.poll() is None:
        try:
            process.wait(timeout=rng.uniform(0.15, 0.6) * seconds)
            continue
        except subprocess.TimeoutExpired:
            pass
        if len(killed) >= kills:
            continue
        kind = rng.choice(["worker", "run"] if nodes is None else ["worker", "node", "run"])
        if kind == "run":
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process = begin(folder, options)
        elif kind == "node":
            nodes.kill(rng)
        elif workers := workers_of(process, nodes):
            with suppress(psutil.Error):
                rng.choice(workers).kill()
        else:
            continue
        killed.append(kind)
    return killed, process.returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executor", choices=["processes", "ray"], default="processes")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--each", type=int, default=4, help="kills of each run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, rows = random.Random(arguments.seed), []
    with tempfile.TemporaryDirectory() as place:
        root, start = Path(place), time.perf_counter()
        alone = begin(root / "alone", [])
        if alone.wait():
            sys.exit((root / "alone" / "stderr").read_text())
        seconds, expected = time.perf_counter() - start, outcome(root / "alone")
        nodes = Nodes() if arguments.executor == "ray" else None
        try:
            while sum(len(row["killed"]) for row in rows) < arguments.kills:
                folder = root / f"run-{len(rows)}"
                folder.mkdir()
                options = nodes.options(folder) if nodes else ["--executor", "processes", "--workers", "2"]
                killed, status = interrupted(folder, options, rng, seconds, arguments.each, nodes)
                same = status == 0 and equal(outcome(folder), expected)
                row = {"killed": killed, "status": status, "same": same}
                row["made_twice"] = made_twice(folder) if status == 0 else None
                print(json.dumps(row), file=sys.stderr, flush=True)
                if not same:
                    print((folder / "stderr").read_text()[-1500:], file=sys.stderr)
                rows.append(row)
        finally:
            if nodes:
                nodes.close()
    killed = [kind for row in rows for kind in row["killed"]]
    summary = {"executor": arguments.executor, "runs": len(rows), "same": sum(row["same"] for row in rows)}
    summary |= {kind: killed.count(kind) for kind in ("worker", "node", "run")}
    summary["made_twice"] = sum(row["made_twice"] or 0 for row in rows)
    print(json.dumps({"machine": environment(), "seconds_in_one_process": round(seconds, 1), **summary}, indent=2))
    sys.exit(summary["same"] != len(rows))


if __name__ == "__main__":
    main()
