"""Commands that profile this machine and fit latency predictors."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le
from cyclopts import Parameter

from limbeck.cli._app import Json, Store, open_store, print_json
from limbeck.cli.machines import Machines
from limbeck.core.finite import json_text
from limbeck.core.target import Precision, Runtime
from limbeck.distributed.config import ExecutorConfig, open_workers
from limbeck.errors import InputError

if TYPE_CHECKING:
    from limbeck.cost_models.latency_dataset import Series

SEVERAL = Parameter(consume_multiple=True, negative_iterable=())
Steps = Annotated[tuple[Annotated[int, Ge(0), Le(100_000)], ...] | None, SEVERAL]
Formats = Annotated[tuple[Literal["float", "int8"], ...], SEVERAL]


@dataclass(frozen=True)
class Full:
    """Options of a full profile.

    Attributes:
        model: Folder, hub name or 'minilm-l6': the largest shape, and everything else that affects speed.
        layers: Range of the number of layers: LOW HIGH, or LOW HIGH STEP; when not given, every range ends at the
            model's value.
        hidden: Range of the hidden width.
        heads: Range of the attention heads.
        ffn: Range of the feed-forward neurons.
        head_dim: Range of the width of heads.
        per_layer: Vary heads and neurons of every layer; otherwise all layers are alike.
        samples: Shapes to measure in each number format.
        number_format: Number formats to measure.
        runtime: Runtime of exported models.
        batch: Texts in a call.
        seq_len: Tokens in a text.
        device: Where it serves: cpu, or cuda or cuda:N with --number-format float.
        precision: What models in float compute in.
        seed: Seed of the choice of shapes.
    """

    model: str = "minilm-l6"
    layers: Steps = None
    hidden: Steps = None
    heads: Steps = None
    ffn: Steps = None
    head_dim: Steps = None
    per_layer: bool = True
    samples: Annotated[int, Ge(1), Le(1_000_000)] = 200
    number_format: Formats = ("float", "int8")
    runtime: Runtime = "onnxruntime"
    batch: Annotated[int, Ge(1), Le(100_000)] = 1
    seq_len: Annotated[int, Ge(1), Le(100_000)] = 32
    device: str = "cpu"
    precision: Precision = "float32"
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0


def profile(
    *,
    out: Path | None = None,
    threads: int = 1,
    full: Annotated[bool, Parameter(negative=())] = False,
    options: Annotated[Full, Parameter(name="*")] = Full(),
    machines: Annotated[Machines, Parameter(name="*")] = Machines(),  # noqa: B008 frozen
    store: Store = None,
) -> None:
    """Describe this machine as JSON: processor, libraries, measured arithmetic, noise.

    A full profile also measures the latency of many shapes and writes everything to one JSON Lines file, with which
    another machine can run a search for this one. It takes minutes to hours; if interrupted, the same command resumes.

    Args:
        out: File to write instead of printing.
        threads: Threads of the runtime.
        full: Measure the shapes of a space, in the file --out; the other options describe it.
        options: Options of a full profile.
        machines: Where the models of a full profile are made; they are timed here, with nothing beside them.
        store: Folder of finished work; nothing else that uses it works here while shapes are timed.
    """
    from limbeck.core.target import Target
    from limbeck.cost_models.machine_profile import profile as profile_machine
    from limbeck.recipe.validation import check_values
    from limbeck.storage.destination import check_destination

    check_values(options, "--")
    check_values(Target(threads=threads), "--")
    if out is not None:
        _check_file(out, "--out")
        check_destination(out.parent, f"--out {out}: the folder", within=True)
    if full:
        _profile_full(out, threads, options, machines.config(), store)
        return
    _refuse_idle(options, "applies to a full profile; add --full")
    if machines != Machines() or store is not None:
        raise InputError("--executor, --workers, --settings and --store apply to a full profile; add --full")
    text = json_text(profile_machine(threads), indent=2)
    if out is None:
        print(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")


def predictor(
    data: Path,
    *,
    out: Path | None = None,
    against: Path | None = None,
    measure: Annotated[bool, Parameter(negative=())] = False,
    threads: int = 1,
    options: Annotated[Full, Parameter(name="*")] = Full(),
    json: Json = False,
) -> None:
    """Fit a latency predictor to measured shapes, report its error on unseen ones, and save it.

    Errors are cross-validated or, with --against, those of an earlier predictor on shapes that it was not fitted to.
    Search and pruning accept the file as their 'profile'.

    Args:
        data: File of latency data, from 'limbeck profile --full' or --measure; or of a predictor.
        out: File for the predictor.
        against: File of an earlier predictor to compare with the data, instead of fitting a new one.
        measure: Measure shapes into the file of data first; the other options describe them.
        threads: Threads of the runtime.
        options: Which shapes, in which setting; without --measure, the setting selects from the file.
        json: Print JSON.
    """
    from limbeck.core.target import Target
    from limbeck.cost_models.boosted_fit import check_extra
    from limbeck.cost_models.latency_predictor import FEWEST
    from limbeck.cost_models.predictor_evaluation import evaluate
    from limbeck.cost_models.predictor_file import fit_predictor, write_predictor
    from limbeck.recipe.validation import check_values
    from limbeck.storage.destination import check_destination

    check_extra()
    check_values(options, "--")
    check_values(Target(threads=threads), "--")
    if out is not None and against is not None:
        raise InputError("--out saves a fitted predictor, and --against fits none; leave one of them out")
    if len(options.number_format) > 1 and options.number_format != Full.number_format:
        raise InputError(f"a predictor has one number format, got {' '.join(options.number_format)}")
    for file, option in ((out, "--out"), (data if measure else None, "the data")):
        if file is not None:
            _check_file(file, option)
            check_destination(file.parent, f"{option} {file}: the folder", within=True)
    chosen = _selection(options, threads, measure)
    if measure:
        fewest = FEWEST if against is None and not data.exists() else 0
        _measure(data, threads, replace(options, number_format=(chosen["number_format"],)), fewest)
    result = evaluate(data, chosen, options.seed, against)
    if out is not None:
        write_predictor(fit_predictor(data, options.seed, **chosen), out)
    if json:
        print_json(result.to_json() | ({"file": str(out)} if out is not None else {}))
        return
    print(result)
    if out is not None:
        print(f"{out}: give it to search.profile or prune.profile")


def _selection(options: Full, threads: int, measure: bool) -> dict[str, Any]:
    """Return the setting of the predictor: the whole setting if it is measured, else the options that were given."""
    names = ("runtime", "batch", "seq_len", "device", "precision")
    wanted: dict[str, Any] = {name: getattr(options, name) for name in names} | {"threads": threads}
    form = options.number_format[0]
    if measure:
        return wanted | {"number_format": form}
    defaults = asdict(Full()) | {"threads": 1}
    chosen: dict[str, Any] = {name: value for name, value in wanted.items() if value != defaults[name]}
    if options.number_format != Full.number_format:
        chosen["number_format"] = form
    plain = {name: value for name, value in asdict(options).items() if name not in {*wanted, "number_format", "seed"}}
    _refuse_idle(Full(**plain), "applies to shapes to measure; add --measure")
    return chosen


def _refuse_idle(options: Full, reason: str) -> None:
    """Refuse options that were given and have no effect."""
    defaults = asdict(Full())
    if changed := [name for name, value in asdict(options).items() if value != defaults[name]]:
        raise InputError(f"--{changed[0].replace('_', '-')} {reason}")


def _check_file(file: Path, option: str) -> None:
    if file.is_dir() or not file.parent.is_dir():
        raise InputError(
            f"{option} {file}: " + ("is a folder" if file.is_dir() else f"there is no folder {file.parent}")
        )


def _profile_full(out: Path | None, threads: int, options: Full, executor: ExecutorConfig, store: Path | None) -> None:
    if out is None:
        raise InputError("a full profile is written to a file; add --out machine.jsonl")
    from statistics import median

    for series in _measure(out, threads, options, executor=executor, store=store):
        repetition = f", repeated {100 * float(median(series.repetition)):.1f} %" if len(series.repetition) else ""
        print(
            f"{out}: {series.setting.number_format}, {len(series.shapes)} shapes from {1e3 * series.seconds.min():.3f} "
            f"to {1e3 * series.seconds.max():.3f} ms, noise {100 * series.noise:.1f} %{repetition}"
        )


def _measure(
    out: Path,
    threads: int,
    options: Full,
    fewest: int = 0,
    executor: ExecutorConfig | None = None,
    store: Path | None = None,
) -> list[Series]:
    """Measure shapes into a file of latency data; return its series of each number format on this machine.

    Args:
        out: The file.
        threads: Threads of the runtime.
        options: Which shapes, in which setting.
        fewest: Shapes that are needed.
        executor: Where models are made.
        store: Folder of finished work.
    """
    if min(options.batch, options.seq_len) < 1:
        raise InputError(f"batch and seq_len should be at least 1, got {options.batch} and {options.seq_len}")
    from limbeck.core.analytic_cost import of_model
    from limbeck.core.measurement import machine
    from limbeck.core.target import Target
    from limbeck.cost_models.graphs_ahead import GraphsAhead
    from limbeck.cost_models.machine_profile import full as full_profile
    from limbeck.cost_models.shape_sampling import STEPS, sample_shapes, space_below
    from limbeck.engine.store.store import Store as OpenStore
    from limbeck.measure.dummy_model import Setting, style_of
    from limbeck.model.checkpoints import open_model

    shape, style = of_model(open_model(options.model)[0])
    ranges = {name: value for name, value in asdict(options).items() if name in STEPS}
    space = space_below(shape, ranges, options.per_layer)
    if (count := len(sample_shapes(space, options.samples, seed=options.seed))) < fewest:
        why = f"--samples {options.samples} gives" if count == options.samples else "these ranges have"
        raise InputError(f"a predictor learns from at least {fewest} measured shapes; {why} {count}")
    where = (options.device, options.runtime, threads, options.batch, options.seq_len)
    target = Target(*where, precision=options.precision)
    formats = dict.fromkeys(options.number_format)
    settings = [Setting(style_of(style), target, number_format, options.seq_len) for number_format in formats]
    with open_workers(executor or ExecutorConfig(), out.parent) as workers:
        ahead = GraphsAhead(workers, (open_store(store) or OpenStore()).machine.alone)
        dataset = full_profile(
            out,
            space,
            settings,
            samples=options.samples,
            seed=options.seed,
            on_event=_print_progress,
            timer=ahead.time_group,
            table=ahead.table_of,
        )
    return [dataset.of(setting, machine()) for setting in settings]


def _print_progress(event: dict[str, Any]) -> None:
    """Print one line of progress on standard error."""
    setting = event.get("setting")
    stage = f"{event['turn']} {setting.number_format if setting else ''}".strip()
    count = f": {event['done']} of {event['total']} shapes" if "total" in event else ""
    print(f"measuring {stage}{count}", file=sys.stderr, flush=True)
