"""Command that profiles this machine: what it is, and how fast it runs each shape."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from cyclopts import Parameter

from limbeck.cli._app import MODELS, Runtime, app
from limbeck.core.finite import json_text
from limbeck.errors import InputError

SEVERAL = Parameter(consume_multiple=True, negative_iterable=())
Steps = Annotated[tuple[Annotated[int, Ge(0), Le(100_000)], ...] | None, SEVERAL]
Formats = Annotated[tuple[Literal["float", "int8"], ...], SEVERAL]


@dataclass(frozen=True)
class Full:
    """Options of a full profile.

    Attributes:
        model: Folder, hub name or 'minilm-l6': the largest shape, and everything else that decides the speed.
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
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0


@app.command(group=MODELS)
def profile(
    *,
    out: Path | None = None,
    threads: int = 1,
    full: Annotated[bool, Parameter(negative=())] = False,
    options: Annotated[Full, Parameter(name="*")] = Full(),
) -> None:
    """Describe this machine as JSON: processor, libraries, measured arithmetic, noise.

    A full profile also measures the latency of many shapes and writes everything to one JSON Lines file, with which
    another machine can run a search for this one. It takes minutes to hours; if interrupted, the same command resumes.

    Args:
        out: File to write instead of printing.
        threads: Threads of the runtime.
        full: Measure the shapes of a space, in the file --out; the other options describe it.
        options: Options of a full profile.
    """
    from limbeck.core.target import Target
    from limbeck.cost_models.machine_profile import profile as work
    from limbeck.recipe.validation import check_values
    from limbeck.storage.destination import check_destination

    check_values(options, "--")
    check_values(Target(threads=threads), "--")
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"--out {out}: " + ("is a folder" if out.is_dir() else f"there is no folder {out.parent}"))
    if out is not None:
        check_destination(out.parent, f"--out {out}: the folder", within=True)
    if full:
        _profile_full(out, threads, options)
        return
    if options != Full():
        defaults = asdict(Full())
        changed = [name for name, value in asdict(options).items() if value != defaults[name]]
        raise InputError(f"--{changed[0].replace('_', '-')} is about a full profile; add --full")
    text = json_text(work(threads), indent=2)
    if out is None:
        print(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")


def _profile_full(out: Path | None, threads: int, options: Full) -> None:
    if out is None:
        raise InputError("a full profile is written to a file; add --out machine.jsonl")
    from statistics import median

    from limbeck.core.analytic_cost import of_model
    from limbeck.core.measurement import machine
    from limbeck.core.target import Target
    from limbeck.cost_models.machine_profile import full as work
    from limbeck.cost_models.shape_sampling import STEPS, space_below
    from limbeck.measure.dummy_model import Setting, style_of
    from limbeck.model.checkpoints import open_model

    shape, style = of_model(open_model(options.model)[0])
    ranges = {name: value for name, value in asdict(options).items() if name in STEPS}
    space = space_below(shape, ranges, options.per_layer)
    target = Target("cpu", options.runtime, threads, options.batch, options.seq_len)
    formats = dict.fromkeys(options.number_format)
    settings = [Setting(style_of(style), target, number_format, options.seq_len) for number_format in formats]
    dataset = work(out, space, settings, samples=options.samples, seed=options.seed, on_event=_print_progress)
    for series in (dataset.of(setting, machine()) for setting in settings):
        repetition = f", repeated {100 * float(median(series.repetition)):.1f} %" if len(series.repetition) else ""
        print(
            f"{out}: {series.setting.number_format}, {len(series.shapes)} shapes from {1e3 * series.seconds.min():.3f} "
            f"to {1e3 * series.seconds.max():.3f} ms, noise {100 * series.noise:.1f} %{repetition}"
        )


def _print_progress(event: dict[str, Any]) -> None:
    """Print one line of progress on standard error."""
    setting = event.get("setting")
    stage = f"{event['turn']} {setting.number_format if setting else ''}".strip()
    count = f": {event['done']} of {event['total']} shapes" if "total" in event else ""
    print(f"measuring {stage}{count}", file=sys.stderr, flush=True)
