"""Kill workers, nodes and the run itself at random moments, and compare what it ends with to a run in one process.

    python benchmarks/kill_workers.py --executors processes ray --kills 20

A run fine-tunes, prunes, distills, exports and quantizes small parts of MiniLM-L6 on a few movie reviews, first in one
process. Then runs follow one another, each in a store of its own, until so many kills have landed with each executor:
of a worker, of the run with all its children, or, with Ray, of a node. The Ray cluster has three nodes on this machine,
each with a raylet of its own; a killed node is replaced. Each run must end with the same candidates, front, choice,
figures and bytes of weights and graphs, and what was finished when something was killed must not be made again: its
record in the store is the same file at the end, and no record appears in the ledger with two durations.

Results are kept in FOLDER/results.json after every run, and the same command goes on where it was stopped. With four
kills in a run, twenty kills are five runs or a few more: allow fifteen times the duration of the run in one process for
each executor (a quarter of an hour to half an hour on two idle cores). Exit status 1 if anything differs.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
from runs import command_of

from limbeck.core.measurement import environment, machine
from limbeck.engine.store.ledger import Ledger

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
KINDS = {"processes": ("worker", "run"), "ray": ("worker", "node", "run")}
"""What is killed with each executor."""


def begin(folder, settings=None, recipe=RECIPE):
    """Start a run, or go on with it, in a process group of its own."""
    command = command_of(folder, recipe, settings)
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
    with open(folder / "stderr", "ab") as log:
        return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=log, env=variables)


def outcome(folder):
    """What a run ended with, as plain data: front, choice, figures, and a digest of every file of weights or graphs."""
    records = Ledger(folder / "run" / "ledger.jsonl").read()
    ends = [row for row in records if row["event"] == "finished"][-1]
    digests = {}
    for key in sorted({row["record"]["key"] for row in records if row["event"] == "record"}):
        files = sorted((folder / "store" / "objects" / key).glob("*"))
        kept = [file for file in files if file.suffix in (".safetensors", ".onnx")]
        digests[key] = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in kept}
    facts = {
        row["key"]: sorted([fact["name"], fact.get("split", ""), fact["value"]] for fact in row["facts"])
        for row in records
        if row["event"] == "facts"
    }
    return {name: ends[name] for name in ("front", "chosen", "replicas", "failed")} | {"facts": facts, "files": digests}


def differences(one, other):
    """The parts in which two outcomes differ."""
    return [name for name in one if one[name] != other[name]]


def finished(folder):
    """The records of finished steps in the store of a run, each with the moment at which its file was written."""
    return {file.name: file.stat().st_mtime_ns for file in (folder / "store" / "memo").glob("children-*.json")}


def durations(folder):
    """Records that appear in the ledger with two durations: they were made twice."""
    seen = {}
    for row in Ledger(folder / "run" / "ledger.jsonl").read():
        if row["event"] == "record":
            seen.setdefault(row["record"]["key"], set()).add(row["record"]["duration"])
    return sum(len(times) > 1 for times in seen.values())


class Processes:
    """Workers that are children of the run."""

    def __init__(self):
        self.settings = {"executor": "processes", "workers": 2, "threads": 1}

    def workers(self, process):
        """Processes that can carry out work."""
        return children(psutil.Process(process.pid), "spawn_main")

    def close(self):
        """There is nothing to close: workers end with their run."""


class Nodes:
    """A Ray cluster of three nodes here, whose raylets are children of this process."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        self.node = {"num_cpus": 1, "object_store_memory": 100_000_000}
        head = {**self.node, "include_dashboard": False}
        self.cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        self.others = [self._node() for _ in range(2)]
        self.settings = {"executor": "ray", "address": self.cluster.address, "workers": 3, "threads": 1}

    def workers(self, process):
        """Processes that carry out work now."""
        return children(psutil.Process(), "ray::_carry_out")

    def kill_node(self, rng):
        """Kill a node that is not the head, and add another one."""
        index = rng.randrange(len(self.others))
        self.cluster.remove_node(self.others[index], allow_graceful=False)
        self.others[index] = self._node()

    def _node(self):
        return patiently(lambda: self.cluster.add_node(**self.node))

    def close(self):
        """End the cluster."""
        self.cluster.shutdown()


def patiently(start, attempts=10):
    """Start a node; Ray gives up after half a minute, which a busy machine may need, and leaves what it has started."""
    me = psutil.Process()
    for attempt in range(1, attempts):
        before = set(me.children(recursive=True))
        with suppress(Exception):  # the only class that Ray raises for it
            return start()
        for child in set(me.children(recursive=True)) - before:
            with suppress(psutil.Error):
                child.kill()
        print(f"a node did not start ({attempt} of {attempts} attempts)", file=sys.stderr, flush=True)
    return start()


def children(root, mark):
    """Descendants of a process whose command line has a mark."""
    found = []
    for child in root.children(recursive=True):
        with suppress(psutil.Error):
            if mark in " ".join(child.cmdline()):
                found.append(child)
    return found


def kill(kind, process, backend, rng):
    """Kill something; return whether there was something to kill."""
    if kind == "run":
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    elif kind == "node":
        backend.kill_node(rng)
    else:
        workers = backend.workers(process)
        if not workers:
            return False
        with suppress(psutil.Error):
            rng.choice(workers).kill()
    return True


def interrupted(folder, executor, backend, rng, seconds, kills):
    """Carry out a run that is interrupted; return what was killed, its status, and what was made again."""
    killed, done, process = [], {}, begin(folder, backend.settings)
    try:
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=rng.uniform(0.1, 0.5) * seconds)
                continue
            if len(killed) >= kills:
                continue
            kind = rng.choice(KINDS[executor])
            before = finished(folder)
            if kill(kind, process, backend, rng):
                done |= {name: written for name, written in before.items() if name not in done}
                killed.append(kind)
            if kind == "run":
                process = begin(folder, backend.settings)
    finally:
        if process.poll() is None:  # this script is being stopped
            os.killpg(process.pid, signal.SIGKILL)
    after = finished(folder)
    return killed, process.returncode, sum(after.get(name) != written for name, written in done.items())


class Results:
    """What is known so far, in a file."""

    def __init__(self, folder):
        self.file = folder / "results.json"
        identity = {"machine": machine(), "recipe": hashlib.sha256(RECIPE.encode()).hexdigest()[:16]}
        self.data = {"identity": identity, "environment": environment(), "rows": []}
        if self.file.is_file():
            stored = json.loads(self.file.read_text())
            if stored["identity"] != identity:
                sys.exit(f"{self.file} is of another machine, other versions or another recipe; name another --folder")
            self.data = stored

    def save(self):
        """Write the file, whole or not at all."""
        draft = self.file.with_suffix(".tmp")
        draft.write_text(json.dumps(self.data, indent=1))
        draft.replace(self.file)

    def of(self, executor):
        """The runs with an executor."""
        return [row for row in self.data["rows"] if row["executor"] == executor]

    def summary(self, executor):
        """Count the kills and what came of them."""
        rows = self.of(executor)
        killed = [kind for row in rows for kind in row["killed"]]
        counts = {kind: killed.count(kind) for kind in KINDS[executor]}
        ends = {"runs": len(rows), "same": sum(not row["differences"] for row in rows)}
        return ends | counts | {"made_again": sum(row["made_again"] + row["made_twice"] for row in rows)}


def alone(folder, results):
    """The outcome of a run in one process, carried out once."""
    if "expected" not in results.data:
        shutil.rmtree(folder, ignore_errors=True)
        start = time.perf_counter()
        if begin(folder).wait():
            sys.exit((folder / "stderr").read_text())
        results.data |= {"expected": outcome(folder), "seconds": round(time.perf_counter() - start, 1)}
        results.save()
    return results.data["expected"]


def attempt(root, executor, kills, seed, results):
    """Interrupt runs with an executor until so many kills have landed."""
    expected, backend = alone(root / "alone", results), None
    try:
        while (left := kills - sum(len(row["killed"]) for row in results.of(executor))) > 0:
            backend = backend or (Nodes() if executor == "ray" else Processes())
            number = len(results.of(executor))
            folder, rng = root / f"{executor}-{number}", random.Random(f"{seed}-{executor}-{number}")
            shutil.rmtree(folder, ignore_errors=True)
            start = time.perf_counter()
            killed, status, again = interrupted(folder, executor, backend, rng, results.data["seconds"], min(4, left))
            row = {"executor": executor, "killed": killed, "status": status, "made_again": again}
            row["differences"] = differences(expected, outcome(folder)) if status == 0 else ["status"]
            row["made_twice"] = durations(folder) if status == 0 else 0
            results.data["rows"].append(row | {"seconds": round(time.perf_counter() - start, 1)})
            results.save()
            print(json.dumps(results.data["rows"][-1]), file=sys.stderr, flush=True)
            if row["differences"]:
                print((folder / "stderr").read_text()[-1500:], file=sys.stderr)
            else:
                shutil.rmtree(folder)
    finally:
        if backend is not None:
            backend.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executors", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--kills", type=int, default=20, help="with each executor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/kill-workers"))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what is running is then ended, too
    arguments.folder.mkdir(parents=True, exist_ok=True)
    results = Results(arguments.folder)
    for executor in arguments.executors:
        attempt(arguments.folder, executor, arguments.kills, arguments.seed, results)
    summaries = {executor: results.summary(executor) for executor in arguments.executors}
    print(json.dumps({"seconds_in_one_process": results.data["seconds"], **summaries}, indent=1))
    sys.exit(any(row["same"] != row["runs"] or row["made_again"] for row in summaries.values()))


if __name__ == "__main__":
    main()
