"""Compare limbeck's artefacts with what a user would pick instead, every model timed in turns in one process.

    python -m benchmarks.peers.compare peers/mr --artefact runs/movie-reviews/artefact --run runs/movie-reviews

The peers are those that ``make.py`` put into the folder, on the task that they were made for. Markdown goes to the
standard output, everything measured to ``--json``.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

from limbeck.core.answer_changes import Changes
from limbeck.core.measurement import environment
from limbeck.data.loading import load_task
from limbeck.errors import InputError
from limbeck.measure.isolation import run_isolated
from limbeck.measure.samples import sample_rows

from . import entries, results, table

ROOT = Path(__file__).parent.parent.parent


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", type=Path, help="folder that make.py wrote")
    parser.add_argument("--artefact", type=Path, nargs="*", default=[], help="folders of limbeck save, or artefacts")
    parser.add_argument("--run", type=Path, nargs="*", default=[], help="runs: all of their INT8 models")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--texts", type=int, default=60, help="texts that are timed, spread like the split's lengths")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--limit", type=int, help="evaluate on so many texts, to try it out")
    parser.add_argument("--memory", action="store_true", help="peak memory of each model, in a process of its own")
    parser.add_argument("--json", type=Path, help="where all that was measured goes")
    return parser.parse_args()


def gathered(arguments):
    """The task and all that is compared on it."""
    job = entries.job(arguments.peers)
    task = load_task(job["settings"]["task"])
    if task.kind != "classification":
        raise InputError(f"task '{task.name}' is {task.kind}; peers are compared on classification alone")
    task = task.limit(test=arguments.limit) if arguments.limit else task
    models = entries.peers(arguments.peers, job, task)
    for folder in arguments.artefact:
        models.append(entries.artefact(folder, task, f"limbeck: {'/'.join(folder.parts[-2:])}"))
    for folder in arguments.run:
        models += entries.front(folder, task)
    return job, task, models


def measured(arguments, task, models, threads):
    """One table with all that stands behind it."""
    split = task.split("test")
    test = list(zip(split.texts, split.pairs, strict=True)) if split.pairs is not None else [(t,) for t in split.texts]
    timed = [test[row] for row in sample_rows(task, "test", arguments.texts)]
    payload = {"entries": models, "timed": timed, "test": test, "rounds": arguments.rounds}
    session = run_isolated("benchmarks.peers.session:compare", payload, threads)
    rows = results.rows(models, session, split.labels)
    memory = {}
    for row in rows if arguments.memory else ():
        request = {"entry": models[row["place"]], "timed": timed[:8]}
        memory[row["key"]] = run_isolated("benchmarks.peers.session:memory", request, threads)["bytes"]
    print(f"\n{table.comparison(rows, memory)}\n\n{table.circumstances(session, rows, threads)}", flush=True)
    for index, error in session["failed"].items():
        print(f"\n{models[int(index)]['name']} could not run: {error}")
    rest = {name: session[name] for name in ("others", "timed_tokens", "failed")}
    return session, {"threads": threads, "rounds": arguments.rounds, "rows": rows, "memory": memory, **rest}


def main():
    arguments = parsed()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    try:
        job, task, models = gathered(arguments)
    except InputError as error:
        sys.exit(str(error))
    output = {"environment": environment(), "job": job, "entries": models, "tables": []}
    for threads in arguments.threads:
        session, part = measured(arguments, task, models, threads)
        output["tables"].append(part)
    labels = np.asarray(task.split("test").labels)
    answers = dict(zip(session["opened"], session["answers"], strict=True))
    output["flips"] = {}
    for index, model in enumerate(models):
        if model.get("limbeck") and index in answers:
            before, after, rows = answers[0], answers[index], np.arange(len(labels))
            changes = Changes(task.task_kind, task.label_names, rows, before, after, labels, np.zeros(len(labels)))
            groups = changes.by_answer() + changes.by_length(session["tokens"])
            output["flips"][model["key"]] = groups
            print(f"\n{table.flips(model['name'], groups)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(output, indent=2, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
