"""Replay the durations of recorded runs on many workers, and time what a step costs beside its own work.

    python benchmarks/makespan.py benchmarks/ledgers/family-seed?.jsonl --workers 1 4 16 64
    python benchmarks/makespan.py --recipe benchmarks/base/sst2-family.yaml
    python benchmarks/makespan.py --overhead processes ray

The graph of steps comes from ledgers, of which several count as one (seeds side by side), or from the estimates of a
recipe. Each step is a sleep of its recorded seconds divided by --scale, ordered as a run orders its steps: by the same
queue, the most urgent first, its children when it has ended. Beside it stand the simulation of `limbeck plan --workers`
and the bound that nothing can beat, max(longest chain, total / workers). --overhead sends work that does nothing.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path

from limbeck.core.measurement import environment
from limbeck.distributed.config import ExecutorConfig, open_workers
from limbeck.distributed.workers import Workers
from limbeck.engine.store.ledger import Ledger
from limbeck.engine.workers.makespan import Work, critical_path, makespan, remaining


def of_ledgers(paths):
    """The graph of the techniques in ledgers; siblings are one piece of work."""
    graph, numbers = [], {}
    for path in paths:
        seen = {}
        for row in Ledger(path).read():
            if row["event"] == "record":
                seen.setdefault(row["record"]["key"], row["record"])
        waiting = [record for record in seen.values() if record["parent"] is not None]
        while waiting:
            for record in list(waiting):
                base, parent = (path, record["key"].partition("-")[0]), (path, record["parent"].partition("-")[0])
                root = record["parent"] not in seen or seen[record["parent"]]["parent"] is None
                if not root and parent not in numbers:
                    continue
                waiting.remove(record)
                if base in numbers:
                    work = graph[numbers[base]]
                    graph[numbers[base]] = Work(work.seconds + record["duration"], work.after)
                else:
                    numbers[base] = len(graph)
                    graph.append(Work(record["duration"], () if root else (numbers[parent],)))
    return graph


def of_recipe(path):
    """The graph of a recipe by its estimates, without what the run does itself."""
    from limbeck.engine.dry_run import plan
    from limbeck.recipe.recipe import load_recipe

    graph, numbers = [], {}
    for number, row in enumerate(plan(load_recipe(path)).rows):
        if not row.own:
            numbers[number] = len(graph)
            graph.append(Work(row.seconds or 0.0, tuple(numbers[each] for each in row.after if each in numbers)))
    return graph


class Sleeping:
    """A backend whose work is to wait."""

    def call(self, work, payload, needs, report):
        time.sleep(payload["seconds"])
        return payload

    def close(self):
        pass


def replay(graph, count, scale):
    """Carry out a graph with sleeps; return the seconds it took, in those of the recording."""
    urgency, done, lock = remaining(graph), threading.Event(), threading.RLock()
    blocked, left = [len(work.after) for work in graph], [len(graph)]
    workers = Workers(Sleeping(), count)

    def submit(number):
        payload = {"seconds": graph[number].seconds / scale, "number": number}
        workers.submit(None, payload, urgency=urgency[number], receive=ended)

    def ended(payload):
        with lock:
            left[0] -= 1
            for number, work in enumerate(graph):
                if payload["number"] in work.after:
                    blocked[number] -= 1
                    if not blocked[number]:
                        submit(number)
            if not left[0]:
                done.set()

    start = time.perf_counter()
    with lock:
        for number, work in enumerate(graph):
            if not work.after:
                submit(number)
    done.wait()
    seconds = (time.perf_counter() - start) * scale
    workers.close()
    return seconds


def nothing(payload, report):
    """Work that does nothing."""
    return {}


def overhead(executor, pieces=50):
    """Seconds of a piece of work that does nothing: of the first one, which starts a worker, and the median."""
    root = str(Path(__file__).resolve().parents[1])  # workers import the function, too
    sys.path.insert(0, root)
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    from benchmarks.makespan import nothing as work

    with open_workers(ExecutorConfig(executor, workers=1, threads=1), Path("runs/makespan")) as workers:
        times = []
        for _ in range(pieces + 1):
            start = time.perf_counter()
            workers.submit(work, {}).result()
            times.append(time.perf_counter() - start)
    return {"executor": executor, "first_s": times[0], "median_ms": 1000 * statistics.median(times[1:])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ledgers", nargs="*", type=Path)
    parser.add_argument("--recipe", help="a recipe whose estimates are replayed")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--scale", type=float, default=200.0, help="recorded seconds in one second")
    parser.add_argument("--overhead", nargs="*", default=[], choices=["processes", "ray"])
    arguments = parser.parse_args()
    outcome = {"machine": environment()["processor"], "scale": arguments.scale, "rows": []}
    if arguments.ledgers or arguments.recipe:
        graph = of_recipe(arguments.recipe) if arguments.recipe else of_ledgers(arguments.ledgers)
        total, longest = sum(work.seconds for work in graph), critical_path(graph)
        outcome |= {"steps": len(graph), "total_s": total, "longest_chain_s": longest}
        for workers in arguments.workers:
            bound = max(longest, total / workers)
            taken = replay(graph, workers, arguments.scale)
            row = {"workers": workers, "bound_s": bound, "planned_s": makespan(graph, workers), "replayed_s": taken}
            outcome["rows"].append(row | {"over_bound": taken / bound - 1})
    outcome["overhead"] = [overhead(executor) for executor in arguments.overhead]
    print(json.dumps(outcome, indent=1))


if __name__ == "__main__":
    main()
