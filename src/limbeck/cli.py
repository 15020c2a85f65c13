"""The command line: parses, shows progress, prints, exits. Everything it does can be done from Python.

Sub-commands of techniques are made from their dataclasses, so a new technique has its command without a line here.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, field, fields, make_dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from cyclopts import App, CycloptsError, Group, Parameter

from limbeck import processes
from limbeck.errors import InputError, LimbeckError, ProcessLost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from limbeck.engine.result import RunResult

app = App(
    name="limbeck",
    help="Make BERT-class encoders small and fast: prune, distil, quantize, and measure under a latency budget.",
    version=lambda: _version(),
)
RUNS = Group("Compress and run", sort_key=1)
MODELS = Group("Use and measure a model", sort_key=2)
STEPS = Group("One technique at a time", sort_key=3)

Store = Annotated[Path | None, Parameter(help="Where finished work is kept [default: ~/.cache/limbeck].")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object instead of tables.")]
Track = Annotated[
    str | None, Parameter(help="Send the numbers of training to a tracker of Accelerate: tensorboard, wandb, mlflow, …")
]
Runtime = Literal["torch", "onnxruntime", "openvino"]


def _version() -> str:
    from importlib.metadata import version

    return version("limbeck")


# --- the main job ---------------------------------------------------------------------------------------------------


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
    effort: Literal["quick", "standard", "thorough"] = "standard",
    seed: int = 0,
    replicas: int = 1,
    out: Path | None = None,
    folder: Path | None = None,
    store: Store = None,
    track: Track = None,
    json: Json = False,
) -> int:
    """Find the most accurate model that meets a latency budget on this machine, measured.

    Fine-tunes the model if it does not answer the task yet, tries export, INT8, pruning and distillation, measures
    every candidate, and writes the chosen one as a folder that runs with onnxruntime and tokenizers alone. The recipe
    it ran is saved beside the report and can be edited and run again. Exit status 3: no candidate meets the budget.

    Parameters
    ----------
    model
        A Hugging Face folder or hub name, or 'minilm-l6' (needs limbeck[demo]).
    task
        A named task ('movie-reviews', 'sst2', …), or a file or folder with texts and labels.
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
    effort
        How many candidates, and how long each is trained.
    seed
        Decides everything random.
    replicas
        Make the chosen model with this many seeds in all, and report the spread.
    out
        Folder of the artefact [default: RUN/artefact].
    folder
        Folder of the run: recipe, ledger, report [default: runs/compress-MODEL].
    """
    from limbeck.engine.compress import compress as work

    with _watching(json, track) as show:
        made = work(
            model,
            task,
            latency_ms=latency_ms,
            size_mb=size_mb,
            max_drop=max_drop,
            threads=threads,
            batch=batch,
            seq_len=seq_len,
            effort=effort,
            seed=seed,
            replicas=replicas,
            out=out,
            folder=folder,
            store=store,
            on_event=show,
        )
    return _finish(made.result, made.written, made.unmet, json)


@app.command(group=RUNS)
def run(
    recipe: str,
    *,
    set: Annotated[list[str] | None, Parameter(help="Change a field: --set steps.2.prune.keep=0.4")] = None,
    folder: Path | None = None,
    out: Path | None = None,
    store: Store = None,
    track: Track = None,
    json: Json = False,
) -> int:
    """Run a recipe: a YAML file, or one that limbeck ships ('quickstart', …). Running again resumes.

    Parameters
    ----------
    recipe
        Path of a YAML file, or the name of a shipped recipe.
    folder
        Folder of the run [default: runs/NAME].
    out
        Folder of the artefact [default: RUN/artefact].
    """
    from limbeck.engine.deliver import check_place, deliver, unmet
    from limbeck.engine.recipe import load_recipe
    from limbeck.engine.run import run as work

    loaded = load_recipe(recipe)
    if set:
        loaded = loaded.with_(*set)
    check_place(out)
    with _watching(json, track) as show:
        result = work(loaded, store, folder, show)
    return _finish(result, deliver(result, result.task, out), unmet(result, result.task), json)


@app.command(group=RUNS)
def check(recipe: str, *, json: Json = False) -> int:
    """List every problem of a recipe at once, in milliseconds; nothing is loaded.

    Parameters
    ----------
    recipe
        Path of a YAML file, or the name of a shipped recipe.
    """
    from limbeck.engine.recipe import check as work
    from limbeck.engine.recipe import listing

    problems = work(recipe)
    if json:
        _print_json({"recipe": recipe, "problems": [str(problem) for problem in problems]})
    else:
        print(listing(f"recipe {recipe}", problems) if problems else f"recipe {recipe} has no problems")
    return 2 if problems else 0


@app.command(group=RUNS)
def plan(recipe: str, *, store: Store = None, json: Json = False) -> int:
    """Show what a recipe would do: steps, shapes, sizes, time and disk. Trains nothing.

    Parameters
    ----------
    recipe
        Path of a YAML file, or the name of a shipped recipe.
    """
    from limbeck.engine.plan import plan as work
    from limbeck.engine.recipe import load_recipe
    from limbeck.engine.report import duration, megabytes

    made = work(load_recipe(recipe), store)
    if json:
        _print_json(asdict(made))
        return 0
    from rich.table import Table

    table = Table("step", "candidate", "shape after", "time", "MB after", title=f"recipe {recipe}: dry run")
    for row in made.rows:
        which = f"x{row.candidates}" if row.candidate is None else f"{row.candidate}/{row.candidates}"
        shape = "" if row.candidate is None else str(row.shape or "not known before it is made")
        time = "done" if row.done else "?" if row.seconds is None else duration(row.seconds) if row.seconds else ""
        size = megabytes(row.bytes) if row.bytes else ""
        table.add_row(f"{row.path} {row.step}", which, shape, f"~ {time}" if row.rough else time, size)
    console = _console()
    console.print(table)
    rows = ", ".join(f"{count} {split}" for split, count in made.task_rows.items())
    unknown = f", without {made.unknown} steps whose time nobody knows (?)" if made.unknown else ""
    rough = " (~: rough, by arithmetic; other times were measured here)" if any(row.rough for row in made.rows) else ""
    console.print(f"texts: {rows}")
    console.print(f"left to do: about {duration(made.seconds)}{unknown}, {megabytes(made.bytes)} MB of disk{rough}")
    return 0


@app.command(group=RUNS)
def recipes() -> None:
    """List the recipes that limbeck ships."""
    from limbeck.engine.recipe import shipped

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
    from limbeck.engine.deliver import tell, unmet
    from limbeck.engine.result import read_result
    from limbeck.engine.run import load

    result = read_result(folder, _store(store))
    result = replace(result, task=load(result.recipe))
    return _finish(result, tell(result, result.task), unmet(result, result.task), json)


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
    from limbeck.engine.artefact import check_out
    from limbeck.engine.ledger import Ledger
    from limbeck.engine.result import read_result
    from limbeck.model.files import save_model, write_plain

    check_out(to)
    full = Ledger(folder).ancestors(key)[-1].key
    candidate = read_result(folder, _store(store)).open(full)
    (write_plain if plain else save_model)(candidate.model, candidate.tokenizer, to)
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
    from limbeck.engine.report import megabytes
    from limbeck.engine.result import worth_keeping
    from limbeck.engine.store import Store as Opened
    from limbeck.engine.store import default_root

    if bool(runs) == all:
        raise InputError("name the runs whose models stay, as in 'limbeck gc runs/quickstart', or say --all for none")
    found = [worth_keeping(folder) for folder in runs]
    roots = {Opened(root).root for root in (*([store] if store else ()), *(root for root, _ in found))}
    if len(roots) > 1:
        raise InputError(f"these lie in {len(roots)} stores, {', '.join(map(str, sorted(roots)))}; clean one at a time")
    opened = Opened(roots.pop() if roots else default_root())
    removed, freed = opened.gc({key for _, keys in found for key in keys})
    print(f"{opened.root}: removed {removed} models, freed {megabytes(freed)} MB")


# --- one model ------------------------------------------------------------------------------------------------------


@app.command(group=MODELS)
def evaluate(
    model: str,
    *,
    task: str,
    split: str = "test",
    runtime: Runtime = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    json: Json = False,
) -> None:
    """Answer a split one batch after another: quality, total and mean elapsed milliseconds.

    Parameters
    ----------
    model
        Folder of a model or an artefact.
    task
        A named task, or a file or folder with texts and labels.
    split
        Which split to answer.
    runtime
        Runtime of exported models; with torch, the float weights beside an exported model are run. A model that was
        not exported runs in torch.
    threads
        Threads of the runtime.
    batch
        Texts in a call.
    """
    from limbeck.data.sources import load_task
    from limbeck.measure.latency import evaluate as work
    from limbeck.model.files import open_model

    loaded = load_task(task)
    opened, tokenizer = open_model(model, task=loaded, runtime=runtime)
    _refuse_fresh_head(opened, model)
    if runtime == "openvino" and opened.runtime == "torch":
        raise InputError(f"'{model}' has no ONNX file for OpenVINO; export it first, or say --runtime torch")
    found = asdict(work(opened, tokenizer, loaded, split, threads=threads, batch=batch, runtime=runtime))
    if json:
        _print_json(found)
        return
    print(f"{found['metric']}: {found['quality']:.4f} [{found['low']:.4f}, {found['high']:.4f}], n {found['examples']}")
    how = f"{found['runtime']}, {threads} thread{'s' * (threads != 1)}, batch {batch}"
    print(f"elapsed: {found['total_ms']:.1f} ms, {found['mean_ms']:.3f} ms on average ({how})")


@app.command(group=MODELS)
def predict(
    model: str,
    *texts: str,
    pair: Annotated[list[str] | None, Parameter(help="Second text of a pair, one for each text.")] = None,
    json: Json = False,
) -> None:
    """Answer texts given on the command line, or one a line on standard input.

    Parameters
    ----------
    model
        Folder of a fine-tuned model or an artefact.
    texts
        Texts to answer.
    """
    from limbeck.engine.answers import answer

    given = list(texts) or [line.rstrip("\n") for line in sys.stdin]
    found = answer(model, given, pair)
    if json:
        _print_json(found)
        return
    for row in found:
        print(f"{row['answer']}\t{row['text']}")


@app.command(group=MODELS)
def profile(*, out: Path | None = None) -> None:
    """Describe this machine as JSON: processor, libraries, measured arithmetic, noise.

    Parameters
    ----------
    out
        File to write instead of the screen.
    """
    from limbeck.measure.profile import profile as work

    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"--out {out}: " + ("is a folder" if out.is_dir() else f"there is no folder {out.parent}"))
    text = json.dumps(work(), indent=2)
    if out is None:
        print(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")


# --- techniques -----------------------------------------------------------------------------------------------------


def _technique(name: str, cls: Any) -> Callable[..., int]:
    """A command that applies one technique to a model folder."""
    kind = _options(cls)

    def command(
        *,
        model: str,
        task: str,
        out: Path,
        teacher: str | None = None,
        threads: int = 1,
        batch: int = 1,
        seed: int = 0,
        store: Store = None,
        track: Track = None,
        json: Json = False,
        options: Any = kind(),  # noqa: B008 frozen
    ) -> int:
        from limbeck.engine.artefact import check_out
        from limbeck.engine.recipe import parse
        from limbeck.engine.run import run as work
        from limbeck.model.files import save_model

        check_out(out)
        data: dict[str, Any] = {"model": model, "task": task, "teacher": teacher, "seed": seed}
        data |= {"target": {"threads": threads, "batch": batch}, "steps": [{name: options.given}]}
        recipe = parse(data, name=name)
        with _watching(json, track) as show:
            result = work(recipe, store, None, show)
        if result.failed or not result.front:
            if json:
                _print_json({"failed": [failure.error for failure in result.failed]})
            return 1
        made = result.open(result.front[0])
        save_model(made.model, made.tokenizer, out)
        shape = str(made.model.shape)
        told = {"key": result.front[0], "folder": str(out), "shape": shape}
        if made.task.fingerprint != result.task.fingerprint:
            told["task"] = str(made.task.to_folder(out / "task"))
        if json:
            _print_json(told)
            return 0
        print(f"{out}: {shape}")
        if "task" in told:
            rows = ", ".join(f"{len(split):,} {split_name}" for split_name, split in made.task.splits.items())
            print(f"{told['task']}: the task that came out ({rows}); give it to --task")
        return 0

    command.__name__ = name
    command.__doc__ = f"""{(cls.__doc__ or name).split("Attributes:")[0].strip()}

    Parameters
    ----------
    model
        A Hugging Face folder or hub name, or a folder that limbeck wrote.
    task
        A named task, or a file or folder with texts and labels.
    out
        New folder for the result.
    teacher
        Fine-tuned model to imitate, where the technique has one.
    threads
        Threads that will serve (for techniques that measure).
    batch
        Texts in a call (for techniques that measure).
    seed
        Decides everything random.
    """
    command.__annotations__["options"] = Annotated[kind, Parameter(name="*")]
    return command


def _remembering(kind: type, **given: Any) -> Any:
    """A new instance that knows which fields it was given."""
    made: Any = object.__new__(kind)
    object.__setattr__(made, "given", given)
    return made


def _preset_help(presets: Mapping[str, Mapping[str, Any]]) -> str:
    def shown(value: Any) -> str:
        return " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)

    meanings = [
        f"{name} ({', '.join(f'{key} {shown(value)}' for key, value in given.items())})"
        for name, given in presets.items()
    ]
    return f"Several fields under one name; those given beside it win: {'; '.join(meanings)}."


def _options(cls: type) -> type:
    """The fields of a step for the command line: with their short names, and their types as the class wrote them.

    A dataclass of its own, since a step may inherit fields from a module whose names its own does not know. An
    instance has in ``given`` what was typed: a preset fills the fields that were not.
    """
    helps = _field_helps(cls)
    hints = get_type_hints(cls)  # bounds are left to the check of the recipe, which words them better
    made: list[Any] = []
    for one in fields(cls):
        short = [alias for alias, full in getattr(cls, "aliases", {}).items() if full == one.name]
        names = [f"--{name.replace('_', '-')}" for name in (one.name, *short)]
        told = Parameter(name=names, help=helps.get(one.name), consume_multiple=True, negative_iterable=())
        default = field() if one.default is MISSING else field(default=one.default)
        made.append((one.name, Annotated[hints[one.name], told], default))
    if presets := getattr(cls, "presets", {}):
        told = Parameter(help=_preset_help(presets))
        made.append(("preset", Annotated[Literal[tuple(presets)] | None, told], field(default=None)))
    inside = {"__module__": __name__, "__new__": _remembering}
    return make_dataclass(f"{cls.__name__}Options", made, frozen=True, namespace=inside)


def _field_helps(cls: type) -> dict[str, str]:
    """What the ``Attributes:`` sections of a step and its bases say of each field."""
    from docstring_parser.google import parse

    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        for one in parse(base.__doc__ or "").params:
            found[one.arg_name] = " ".join((one.description or "").split())
    return found


@cache
def _add_techniques() -> None:
    import limbeck.techniques  # noqa: F401 registers them
    from limbeck.core.step import REGISTRY

    for name, cls in REGISTRY.items():
        if hasattr(cls, "apply"):
            app.command(_technique(name, cls), name=name, group=STEPS)


# --- showing --------------------------------------------------------------------------------------------------------


def _console() -> Console:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width; 80 columns would squeeze the table
        console.width = max(console.width, 140)
    return console


@contextmanager
def _watching(quiet: bool, track: str | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A listener that draws progress on standard error and feeds a tracker."""
    from limbeck.engine.watch import watching

    with watching(quiet=quiet, track=track) as show:
        yield show


def _store(store: Path | None) -> Any:
    from limbeck.engine.store import Store as Opened

    return Opened(store) if store else None


def _refuse_fresh_head(model: Any, source: str) -> None:
    if getattr(model, "fresh_head", False):
        raise InputError(f"'{source}' has no trained head for this task; fine-tune it first, or use 'limbeck compress'")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _finish(result: RunResult, written: Mapping[str, Path], unmet: Any, as_json: bool) -> int:
    """Print what came out; the exit status says whether all went well."""
    from limbeck.engine.deliver import story_of
    from limbeck.engine.report import front_table, headline, to_json

    story = story_of(result, result.task)
    paths = {name: str(path) for name, path in written.items()}
    if as_json:
        _print_json(to_json(story) | {"written": paths, "unmet": list(unmet)})
    else:
        console = _console()
        console.print(front_table(story))
        console.print(headline(story), soft_wrap=True, style="bold red" if unmet else None)
        for failure in result.failed:
            told = f"failed: {failure.path} {failure.step}: {failure.error}"
            console.print(told, style="red", markup=False, soft_wrap=True)
        for name, path in paths.items():
            console.print(f"{name}: {path}", markup=False, soft_wrap=True)
    return 3 if unmet else 1 if result.failed else 0


def main() -> None:
    """Entry point: errors that limbeck raises on purpose are one clear message, not a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    if not {"--version"} & {*sys.argv[1:2]}:
        _add_techniques()
    if processes.count() == 1:
        sys.exit(_command())
    from limbeck.engine.follow import lead

    try:
        status = lead(_command)
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(2)  # the ends of broken connections are not worth waiting for
    except KeyboardInterrupt:  # in one that follows; process 0 tells of it
        os._exit(130)
    sys.exit(status)


def _command() -> int:
    """Carry out the command line; its exit status."""
    try:
        status = app(sys.argv[1:], exit_on_error=False)
    except SystemExit as ended:
        status = ended.code
    except CycloptsError:  # told already
        status = 2
    except ProcessLost:
        raise
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from where it stopped", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        status = 141
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    return status if isinstance(status, int) else 0
